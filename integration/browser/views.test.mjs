// Tests what the page makes of the windows: statistics, comparisons, sums, exports, problems and resources.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import http from "node:http";
import { after, before, test } from "node:test";

import { Agent, browser, clean, focused, open, row, send, series, until } from "./agent.mjs";

let chromium;
let agent;

before(async () => {
  chromium = await browser();
  agent = await new Agent(["--window", "1s", "--set", "limits.series=50"]).start();
});

after(async () => {
  await chromium.close();
  await agent.end();
});

const inspector = (page) => page.locator("#inspector");
const windowsOf = (page, name) => page.evaluate((name) => Math.max(0, ...[...taskView.series.values()].filter((one) => one.name === name).map((one) => one.records.size)), name);

/** The row of a series of one container. */
const rowOf = (page, name, container, tags = "") => series(page, new RegExp(`^${name}${container.replace(".", "\\.")}\\s*${tags}`));

/** Sends the same requests from two containers of a task until each series has three closed windows. */
async function shop(task) {
  const addresses = [await agent.reserve(`${task}-a`, task), await agent.reserve(`${task}-b`, task)];
  const sending = setInterval(() => addresses.forEach((to, index) => {
    const times = Array.from({ length: 100 }, (_, n) => (n + 1) * (index + 1)).join(":");
    send(to, `latency:${times}|ms|#route:/pay`, `latency:${times}|ms|#route:/cart`, `hits:${3 + index}|c|#route:/pay,status:200`,
      `hits:1|c|#route:/pay,status:500`, `hits:5|c|#route:/cart,status:200`, "level:7|g");
  }), 200);
  await until("three windows are kept", async () => {
    const answer = await (await fetch(`${agent.url}v1/tasks/${task}/metrics?window=all&name=level`)).json();
    return answer.metrics.length >= 6;
  });
  return () => clearInterval(sending);
}

test("percentiles of every window are in the table, in the chart and beside the number", async () => {
  const stop = await shop("percentiles.1");
  const { page, seen, close } = await open(chromium, agent, { view: "#/task/percentiles.1" });
  const first = rowOf(page, "latency", "percentiles.1-a", "route:/pay");
  await first.waitFor();
  assert.match(await first.textContent(), /mean 50\.5.ms/, "the number says which statistic it is");
  await page.locator("#series-stats").getByText("p99").click();
  assert.match(await first.textContent(), /p99 9\d(\.\d+)?.ms.*p50 \d+.*p95 \d+/);
  await first.locator("a").click();
  const head = await inspector(page).locator("thead").innerText();
  assert.match(head, /Window\s+p50\s+p95\s+p99\s+mean\s+max\s+count/);
  await until("several windows are listed", async () => (await inspector(page).locator("tbody tr").count()) >= 3);
  assert.match(await inspector(page).locator("tbody tr").first().innerText(), /\d\d:\d\d:\d\d.*\s(49|5\d)(\.\d+)?.ms\s+9\d(\.\d+)?.ms\s+9\d/);
  assert.deepEqual(await inspector(page).locator(".legend bdi").allTextContents(), ["p50", "p95", "p99"]);
  assert.match(await inspector(page).locator("svg.chart text").first().textContent(), /\d.ms/, "the axis has units");
  const chart = inspector(page).locator("svg.chart");
  assert.match(await inspector(page).locator(".moment").textContent(), /^Newest window/);
  const box = await chart.boundingBox();
  const points = await page.evaluate(() => inspector.chart.lines[0].points.map((one) => inspector.chart.x((one.from + one.to) / 2)));
  await page.mouse.move(box.x + points[1], box.y + 50);
  await until("the window under the pointer is read", async () => /^Window \d\d:\d\d/.test(await inspector(page).locator(".moment").textContent()));
  await chart.focus();
  await page.keyboard.press("ArrowLeft");
  assert.match(await inspector(page).locator(".moment").textContent(), /^Window \d\d:\d\d/, "the keyboard reads it as well");
  clean(agent, seen);
  stop();
  await close();
});

test("containers are compared, tags are added up, and a link holds the view", async () => {
  const stop = await shop("compare.1");
  const { page, seen, close } = await open(chromium, agent, { view: "#/task/compare.1?type=timer,counter" });
  await series(page, "latency").first().locator("a").click();
  await page.getByRole("button", { name: /Compare containers/ }).click();
  assert.deepEqual(await inspector(page).locator(".legend bdi").allTextContents(), ["compare.1-a", "compare.1-b"]);
  await page.getByRole("button", { name: "Sum over tags" }).click();
  await until("the sum is there", async () => (await inspector(page).locator(".legend bdi").allTextContents()).join() === "sum over route, 2 containers");
  await until("counts of both containers are merged", async () => (await page.evaluate(() => sums.records.some((one) => one.agg.max === 200 && one.agg.min === 1))));
  await page.getByRole("button", { name: /^route/ }).click();
  await until("there is a line for each route", async () => (await inspector(page).locator(".legend bdi").allTextContents()).join() === "route:/cart,route:/pay");
  await inspector(page).getByText("p95", { exact: true }).first().click();
  const link = page.url();
  assert.match(link, /#\/task\/compare\.1\/series\/[0-9a-f]+\?type=timer%2Ccounter&view=sum&keep=route&stat=p95$/);
  const again = await open(chromium, agent, { view: link.slice(link.indexOf("#")) });
  await until("the link shows the same", async () => (await inspector(again.page).locator(".legend bdi").allTextContents()).join() === "route:/cart,route:/pay");
  assert.equal(await again.page.locator("#series-types [aria-pressed=true]").count(), 2);
  assert.equal(await again.page.evaluate(() => taskView.stat), "p95");
  await again.close();
  await page.keyboard.press("Escape");
  await page.locator("#series-types").getByText("counter").click();
  await page.locator("#series-types").getByText("timer").click();
  await page.locator("#series-types").getByText("gauge").click();
  await series(page, "level").first().locator("a").click();
  assert.equal(await page.getByRole("button", { name: "Sum over tags" }).isDisabled(), true);
  await inspector(page).getByText("Gauges are levels").waitFor();
  clean(agent, seen);
  stop();
  await close();
});

test("the shown series are saved as CSV and as JSON", async () => {
  const stop = await shop("export.1");
  const to = await agent.reserve("export.1-a", "export.1");
  await send(to, '=cmd"x:1|c|#a:1');
  const { page, seen, close } = await open(chromium, agent, { view: "#/task/export.1" });
  await rowOf(page, "latency", "export.1-a", "route:/cart").locator("a").click();
  await until("windows are there", async () => (await windowsOf(page, "latency")) >= 3);
  const saved = async (button) => {
    const [download] = await Promise.all([page.waitForEvent("download"), button.click()]);
    return [download.suggestedFilename(), readFileSync(await download.path(), "utf8")];
  };
  const [name, csv] = await saved(inspector(page).getByRole("button", { name: "CSV" }));
  assert.equal(name, "export.1-latency.csv");
  const lines = csv.trim().split("\r\n");
  assert.match(lines[0], /^task,container,name,type,unit,tags,start,end,value,samples,.*p50,.*p95,p99/);
  assert.ok(lines.length > 3 && lines.slice(1).every((line) => line.startsWith("export.1,export.1-a,latency,timer,ms,route:/cart,20")), csv);
  const [, json] = await saved(inspector(page).getByRole("button", { name: "JSON" }));
  const document = JSON.parse(json);
  assert.deepEqual([document.task_id, document.series.length, document.series[0].unit], ["export.1", 1, "ms"]);
  assert.ok(document.series[0].windows.every((window) => window.agg.p95 > 0));
  await page.keyboard.press("Escape");
  await page.locator("#series-search").fill("cmd");
  await series(page, "cmd").waitFor();
  const [, listed] = await saved(page.locator("#series-exports").getByRole("button", { name: "CSV" }));
  assert.match(listed, /,"'=cmd""x",counter,/, "a name is no formula, and only what is shown is saved");
  assert.equal(listed.trim().split("\r\n").length, 2);
  clean(agent, seen);
  stop();
  await close();
});

test("plots are filled from kept windows when the page opens", async () => {
  const stop = await shop("filled.1");
  const { page, seen, close } = await open(chromium, agent);
  const path = await row(page, "filled.1").locator("svg .trace").getAttribute("d");
  assert.ok(path.split("L").length >= 3, `the small plot has the windows at once: ${path}`);
  assert.match(await row(page, "filled.1").locator(".num").first().textContent(), /[1-9]/, "and so has the rate");
  await row(page, "filled.1").locator("a").click();
  await until("series have theirs", async () => /^([3-9]|\d\d) windows/.test(await series(page, "level").first().locator("svg").getAttribute("aria-label").catch(() => "")));
  clean(agent, seen);
  stop();
  await close();
});

test("problems are dismissed for the tab, and come back when there are new ones", async () => {
  const bad = await agent.reserve("p-bad", "rejecting.1");
  const folding = await agent.reserve("p-fold", "folding.1");
  await agent.reserve("p-silent", "silent.1");
  await send(bad, "broken");
  await send(folding, ...Array.from({ length: 60 }, (_, n) => `c${n}:1|c`));
  const { page, seen, close } = await open(chromium, agent);
  const names = async () => (await page.locator("#tasks-rows .row:not([hidden]) .name").allTextContents()).sort().join();
  const rejected = row(page, "rejecting.1").locator("[data-short=rejected]");
  await page.locator("#tasks-problems").click();
  const ours = async () => (await names()).split(",").filter((name) => /^(rejecting|folding|silent)/.test(name)).join();
  await until("all kinds of problems are listed", async () => (await ours()) === "folding.1,rejecting.1,silent.1");
  assert.match(await row(page, "silent.1").textContent(), /silent.*no data/);
  assert.match(await row(page, "folding.1").textContent(), /10/);
  await page.locator("#tasks-dismiss").click();
  await page.getByText("No task with problems").waitFor();
  await page.reload();
  await page.getByText("No task with problems").waitFor();
  await send(bad, "broken again", "and again");
  await until("it is listed again, with one count everywhere", async () => (await rejected.textContent().catch(() => "")) === "3");
  assert.equal(await rejected.getAttribute("class"), "num warn");
  assert.match(await rejected.getAttribute("title"), /^3 since the containers or the agent started, 2 of them new$/);
  assert.equal(await ours(), "rejecting.1");
  await row(page, "rejecting.1").locator("a").click();
  await page.locator("#losses td").first().waitFor();
  const figure = page.locator("#task-figures div", { hasText: "Rejected lines" }).locator("dd");
  await until("the table agrees", async () => (await page.locator("#losses td").first().textContent()) === (await figure.textContent()));
  assert.match(await page.locator("#losses-since").textContent(), /^since the containers or the agent started; 2 lines rejected since it was dismissed at \d\d:/);
  await page.locator("#task-dismiss").click();
  await page.locator("#losses").waitFor({ state: "hidden" });
  assert.equal(await figure.textContent(), "3", "dismissing changes no count");
  assert.match(await page.locator("#losses-since").textContent(), /nothing new since it was dismissed/);
  await page.locator(".back a").click();
  await page.locator("#tasks-restore").click();
  await until("what was dismissed can be shown", async () => /rejecting\.1/.test(await ours()));
  assert.doesNotMatch(await page.locator("body").innerText(), /–\s*(ago|\/s)/, "nothing is unknown ago");
  clean(agent, seen);
  await close();
});

test("problems are those of the kept windows until they are dismissed", async () => {
  const short = await new Agent(["--window", "1s", "--set", "windows.keep=3"]).start();
  const to = await short.reserve("old-1", "old.1");
  const beat = setInterval(() => send(to, "beat:1|c"), 500);
  await send(to, "broken");
  const { page, seen, close } = await open(chromium, short, { view: "#/?problems=1" });
  await row(page, "old.1").waitFor();
  await page.getByText("No task with problems").waitFor();
  await page.locator("#tasks-problems").click();
  const cell = row(page, "old.1").locator("[data-short=rejected]");
  assert.deepEqual([await cell.textContent(), await cell.getAttribute("class")], ["1", "num"], "it is still counted, and no longer stands out");
  await send(to, "broken again");
  await until("what is new stands out", async () => (await cell.getAttribute("class")) === "num warn");
  clearInterval(beat);
  clean(short, seen);
  await close();
  await short.end();
});

test("a search that finds nothing says what was lost, and leads there", async () => {
  const to = await agent.reserve("missing-1", "missing.1");
  await send(to, "kept:1|c", "wanted:x|c", "wanted:y|c", ...Array.from({ length: 60 }, (_, n) => `c${n}:1|c`));
  const { page, seen, close } = await open(chromium, agent, { view: "#/task/missing.1" });
  await series(page, "c0").first().waitFor();
  await page.locator("#task-dismiss").click();
  await page.locator("#series-search").fill("wanted");
  const way = page.locator("#series-empty").getByRole("button", { name: "2 lines of this task were rejected" });
  await way.waitFor();
  assert.match(await page.locator("#series-empty").innerText(), /\d+ values of this task were folded into tallyport\.overflow/);
  await way.click();
  await page.locator("#losses").getByText("invalid_value").waitFor();
  await page.locator("#rejected-rows tr").first().waitFor();
  assert.equal(await page.evaluate(() => document.activeElement.id), "losses-title");
  clean(agent, seen);
  await close();
});

test("rejected lines are shown where the reader may see them", async () => {
  const to = await agent.reserve("r-1", "lines.1");
  await send(to, "first broken", "<b>second:x|c", "third:x|c", "fourth:x|c");
  const open_ = await open(chromium, agent, { view: "#/task/lines.1" });
  await open_.page.getByText("Last rejected lines").click();
  await open_.page.locator("#rejected-rows tr").first().waitFor();
  assert.match(await open_.page.locator("#rejected-lines").innerText(), /hidden here, because a line can contain anything[\s\S]*tallyport tail lines\.1/);
  const counted = await open_.page.locator("#rejected-rows tr").allInnerTexts();
  const lines = counted.map((text) => Number(text.match(/r-1\s+\w+\s+(\d)$/)[1]));
  assert.equal(lines.reduce((sum, count) => sum + count, 0), 4, "lines without text are counted by reason, those of one datagram as well");
  const high = await open_.page.locator("#rejected-lines").boundingBox();
  assert.ok(high.height < 400, "however many there are, the series stay on the screen");
  assert.doesNotMatch(await open_.page.locator("body").innerText(), /first broken/);
  await open_.page.getByRole("tab", { name: /Containers/ }).click();
  assert.match(await open_.page.locator("#panel-containers").innerText(), /r-1[\s\S]*Dropped\s+0\s+Rejected lines\s+4/, "and which container sent them");
  await open_.close();
  // The admin socket through a forwarded port, as `ssh -L` makes one.
  const proxy = http.createServer((request, response) => {
    const onward = http.request({ socketPath: agent.socket, path: request.url, method: request.method, headers: request.headers }, (answer) => {
      response.writeHead(answer.statusCode, answer.headers);
      answer.pipe(response);
    });
    response.on("close", () => onward.destroy());
    request.pipe(onward.on("error", () => response.destroy()));
  }).listen(0, "127.0.0.1");
  await new Promise((listening) => proxy.once("listening", listening));
  const admin = { url: `http://127.0.0.1:${proxy.address().port}/` };
  const { page, seen, close } = await open(chromium, admin, { view: "#/task/lines.1" });
  await page.getByText("Last rejected lines").click();
  await page.locator("#rejected-rows").getByText("<b>second:x|c").waitFor();
  assert.equal(await page.locator("#rejected-rows tr").count(), 4);
  await send(to, ...Array.from({ length: 80 }, (_, n) => `broken ${n}`));
  await until("new lines are added", async () => (await page.locator("#rejected-rows tr").count()) > 4);
  assert.ok((await page.locator("#rejected-rows tr").count()) <= 50);
  clean(admin, seen);
  await close();
  proxy.closeAllConnections();
  await new Promise((closed) => proxy.close(closed));
});

test("what a task and its node use is read while it is looked at", async () => {
  const busy = spawn("sh", ["-c", "while :; do :; done"]);
  await agent.reserve("u-1", "busy.1", {}, { pid: busy.pid });
  const { page, seen, close } = await open(chromium, agent, { view: "#/task/busy.1" });
  // What is known of a process without a control group of its own depends on the machine.
  await until("the task uses something", async () => /(Memory|CPU)\s+[\d.]+.([KMG]iB|cores)/.test(await page.locator("#resources-task").innerText()), 30_000);
  await until("so does the node", async () => /CPU\s+[\d.]+.cores\s+Memory\s+[\d.]+.[KMG]iB/.test(await page.locator("#resources-node").innerText()), 30_000);
  const asked = () => seen.requests.filter((url) => /\/v0\/node/.test(url)).length;
  await page.locator("#resources summary").click();
  const before_ = asked();
  await page.waitForTimeout(11_000);
  assert.equal(asked(), before_, "nothing is read while it is closed");
  clean(agent, seen);
  await close();
  busy.kill("SIGKILL");
});

test("a gauge with signs of a client that speaks DogStatsD has a hint", async () => {
  const to = await agent.reserve("s-1", "signed.1");
  await send(to, "temperature:-5|g");
  await send(to, "_e{1,1}:a|b");
  const { page, seen, close } = await open(chromium, agent, { view: "#/task/signed.1" });
  await series(page, "temperature").locator("a").click();
  await inspector(page).getByText(/set tallyport\.gauge-sign to absolute/).waitFor();
  clean(agent, seen);
  await close();
});

test("a series shows the expression that reads it in Prometheus, and copies what is shown", async () => {
  const stop = await shop("named.1");
  const { page, seen, close } = await open(chromium, agent, { view: "#/task/named.1", permissions: ["clipboard-read", "clipboard-write"] });
  const expression = inspector(page).locator(".promql pre");
  const shows = (text) => until(text, async () => (await expression.textContent().catch(() => "")) === text);
  const copied = () => page.evaluate(() => navigator.clipboard.readText());
  await rowOf(page, "latency", "named.1-a", "route:/pay").locator("a").click();
  const own = 'task="named.1",route="/pay"';
  await shows(`sum(rate(latency_seconds_sum{${own}}[5m])) / sum(rate(latency_seconds_count{${own}}[5m]))`);
  await inspector(page).getByText("p99", { exact: true }).first().click();
  await shows(`latency_seconds{${own},quantile="0.99"}`);
  await page.getByRole("button", { name: "Copy PromQL" }).click();
  await page.getByText("Copied").waitFor();
  assert.equal(await copied(), await expression.textContent());
  await page.getByRole("button", { name: "Sum over tags" }).click();
  await shows('max(latency_seconds{task="named.1",quantile="0.99"})');
  await page.getByRole("button", { name: /^route/ }).click();
  await shows('max by (route) (latency_seconds{task="named.1",quantile="0.99"})');
  await inspector(page).getByText("Percentiles of summaries cannot be merged").waitFor();
  await until("the button can be used again", async () => (await page.getByRole("button", { name: "Copy PromQL" }).count()) === 1);
  await page.getByRole("button", { name: "Copy PromQL" }).click();
  assert.equal(await copied(), await expression.textContent(), "what is shown is copied, with the kept tags");
  await page.getByRole("button", { name: "Copy link" }).last().click();
  await until("the link is copied", async () => (await copied()) === page.url());
  await page.keyboard.press("Escape");
  await rowOf(page, "hits", "named.1-a", "route:/pay  status:500").locator("a").click();
  await shows('sum by (route) (rate(hits_total{task="named.1"}[5m]))');
  await page.getByRole("button", { name: "This series" }).click();
  await shows(`sum(rate(hits_total{${own},status="500"}[5m]))`);
  clean(agent, seen);
  stop();
  await close();
});

test("the first key moves to a row, wherever the focus is", async () => {
  await agent.reserve("key-1", "aaa.1");
  const { page, seen, close } = await open(chromium, agent);
  await row(page, "aaa.1").waitFor();
  await page.keyboard.press("ArrowDown");
  assert.equal(await focused(page), "aaa.1");
  await page.locator(".brand").focus();
  await page.keyboard.press("j");
  assert.equal(await focused(page), "aaa.1");
  await page.keyboard.press("Enter");
  await page.locator("#task-name", { hasText: "aaa.1" }).waitFor();
  clean(agent, seen);
  await close();
});
