// Tests what the page shows of publishers, with a destination that answers as it is told.

import assert from "node:assert/strict";
import http from "node:http";
import path from "node:path";
import { after, before, test } from "node:test";

import { Agent, browser, clean, open, row, send, until } from "./agent.mjs";

const MARKUP = "<img src=x onerror=hacked()> no such user";

let chromium;
let agent;
let server;
let answer = { status: 401, body: MARKUP };

before(async () => {
  server = http.createServer((request, response) => {
    request.resume().on("end", () => response.writeHead(answer.status).end(answer.body));
  }).listen(0, "127.0.0.1");
  await new Promise((listening) => server.once("listening", listening));
  chromium = await browser();
  agent = new Agent(["--window", "1s", "--set", "publish.influx.type=influxdb", "--set", `publish.influx.url=http://127.0.0.1:${server.address().port}`,
    "--set", "publish.archive.type=file"]);
  agent.flags.push("--set", `publish.archive.path=${path.join(agent.directory, "records.ndjson")}`);
  await agent.start();
});

after(async () => {
  await chromium.close();
  await agent.end();
  server.closeAllConnections();
  server.close();
});

const card = (page, name) => page.locator("#publisher-cards .card", { has: page.getByRole("heading", { name }) });
const fact = async (page, name, index) => (await card(page, name).locator("dd").nth(index).innerText()).trim();

test("what holds a publisher up is in words, beside one that delivers", async () => {
  const to = await agent.reserve("c-1", "web.1");
  await send(to, "hits:3|c", "level:7|g");
  const { page, seen, close } = await open(chromium, agent);
  await card(page, "influx").waitFor();
  assert.equal(await page.getByRole("region", { name: "Publishers" }).locator(".card").count(), 2);
  await until("it is held", async () => /held: the destination does not admit the agent/.test(await card(page, "influx").innerText()));
  const text = await card(page, "influx").innerText();
  assert.match(text, new RegExp(`influxdb · http://127\\.0\\.0\\.1:${server.address().port}`));
  assert.match(text, /Last answer: 401 Unauthorized: <img src=x onerror=hacked\(\)> no such user/, "an answer stays text");
  assert.match(text, /What to do: the server wants credentials; set token_file/);
  assert.equal(await page.locator("main img").count(), 0);
  assert.equal(await fact(page, "influx", 0), "0", "nothing is delivered");
  assert.equal(await fact(page, "influx", 4), "none yet");
  await until("the other one delivers", async () => Number(await fact(page, "archive", 0)) >= 2);
  assert.match(await card(page, "archive").innerText(), /(up to date|sending|waiting for the next round)[\s\S]*file · .*records\.ndjson/);
  assert.match(await fact(page, "archive", 4), /^\d+.s ago$/);
  assert.deepEqual(seen.complaints, []);
  answer = { status: 204, body: "" };
  // A publisher that is held tries again within a minute.
  await until("it delivers what it held", async () => Number(await fact(page, "influx", 0)) >= 2, 70_000);
  assert.doesNotMatch(await card(page, "influx").innerText(), /Last answer|What to do/);
  clean(agent, seen);
  await close();
});

test("what was refused is counted, and the command that shows it is named", async () => {
  answer = { status: 400, body: '{"error":"partial write: field type conflict dropped=1"}' };
  const to = await agent.reserve("c-2", "web.2");
  await send(to, "poison:1|c");
  const { page, seen, close } = await open(chromium, agent);
  await until("it is dead", async () => Number(await fact(page, "influx", 3).catch(() => 0)) >= 1, 60_000);
  assert.match(await card(page, "influx").innerText(), /tallyport publish dead influx shows what was refused/);
  assert.equal(await card(page, "influx").locator("dd").nth(3).locator(".bad").count(), 1);
  answer = { status: 204, body: "" };
  clean(agent, seen);
  await close();
});

test("cards fit a phone and a wide screen, in both schemes, and leave the keys to the list", async () => {
  for (const [width, height] of [[360, 740], [1280, 800], [1920, 1080]]) {
    for (const colorScheme of ["light", "dark"]) {
      const { page, seen, close } = await open(chromium, agent, { viewport: { width, height }, colorScheme });
      await card(page, "influx").waitFor();
      assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), width);
      for (const one of await page.locator("#publisher-cards .card").all()) {
        const box = await one.boundingBox();
        assert.ok(box.x >= 0 && box.x + box.width <= width, `${width}: ${JSON.stringify(box)}`);
      }
      const paper = await card(page, "influx").evaluate((one) => getComputedStyle(one).backgroundColor.match(/\d+/g).map(Number).reduce((a, b) => a + b));
      assert.ok(colorScheme === "dark" ? paper < 150 : paper > 600, "a card has the scheme's colour");
      await row(page, "web.1").waitFor();
      await page.keyboard.press("ArrowDown");
      assert.equal(await page.evaluate(() => document.activeElement.closest("#tasks-rows") !== null), true);
      clean(agent, seen);
      await close();
    }
  }
});

test("they are read while the list is shown, and not beside a task", async () => {
  const { page, seen, close } = await open(chromium, agent);
  await card(page, "archive").waitFor();
  const asked = () => seen.requests.filter((url) => url.endsWith("/v1/publishers")).length;
  const first = asked();
  await until("they are read again", () => asked() > first);
  await row(page, "web.1").locator("a").click();
  await page.locator("#task").waitFor();
  const before = asked();
  await page.waitForTimeout(6000);
  assert.equal(asked(), before);
  await close();
});

test("without a publisher there is nothing of it", async () => {
  const plain = await new Agent().start();
  const { page, seen, close } = await open(chromium, plain);
  await until("they were read", () => seen.requests.some((url) => url.endsWith("/v1/publishers")));
  await page.waitForTimeout(500);
  assert.equal(await page.locator("#publishers").isVisible(), false);
  assert.equal(await page.getByText("Publishers").count() > 0 && (await page.getByText("Publishers").first().isVisible()), false);
  clean(plain, seen);
  await close();
  await plain.end();
});
