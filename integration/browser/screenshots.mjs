// Takes the pictures in docs/images/: the page of an agent with the tasks of a small shop, in desktop and phone width,
// light and dark. `make screenshots` runs it; check the pictures before committing them.

import path from "node:path";
import { fileURLToPath } from "node:url";

import { Agent, browser, open, send, sleep } from "./agent.mjs";

const images = path.join(path.dirname(fileURLToPath(import.meta.url)), "../../docs/images");
const TASKS = ["auth.2", "auth.3", "checkout.7f9c", "checkout.b21d", "cron-cleanup.5", "image-resizer.4", "inventory-sync.9", "mailer.1",
  "payments-gateway.3", "recommendations-offline-training-batch.20261124", "search-frontend.1", "search-index.2"];
const ROUTES = ["/pay", "/cart", "/login", "/search", "/item"];
const chance = (scale) => -Math.log(1 - Math.random()) * scale;

/** The lines that a task sends in a fifth of a second, `t` seconds after the start. */
function lines(task, index, t) {
  const level = (2 + 1.5 * Math.sin(t / 9 + index)) * (1 + 0.5 * Math.sin(t / 3 + index));
  const of = ROUTES.slice(0, 3 + (index % 3)).flatMap((route) => [
    `http.requests:${Math.round(chance(level))}|c|#route:${route},status:200`,
    `http.latency:${[1, 2, 3].map(() => (4 + chance(4 + 3 * Math.sin(t / 11 + index))).toFixed(1)).join(":")}|ms|#route:${route}`,
  ]);
  of.push(`heap.used:${Math.round(3e8 + 1e8 * Math.sin(t / 9 + index) + chance(1e7))}|g`, `queue.depth:${Math.round(20 + 15 * Math.sin(t / 7))}|g|#queue:mail`,
    `users.unique:${Math.floor(Math.random() * 5000)}|s`, `payload.bytes:${Math.round(chance(4000))}|h`);
  const quiet = task.startsWith("cron") ? t > 6 : Math.sin(t / 5 + index) < -0.3 && index % 2 === 0;
  if (task.startsWith("payments") && Math.random() < 0.1) of.push("amount:12,50|c", "broken");
  return quiet ? [] : of;
}

const agent = await new Agent(["--window", "2s", "--set", "node=node-7"]).start();
const addresses = [];
for (const task of TASKS) {
  addresses.push(await agent.reserve(`c-${task}`, task, { team: /check|pay/.test(task) ? "shop" : "core", zone: "eu-1a" }));
}
await agent.reserve("c-silent", "silent-sidecar.1", { team: "core" });
const start = Date.now();
const sending = setInterval(() => addresses.forEach((to, index) => {
  const said = lines(TASKS[index], index, (Date.now() - start) / 1000);
  // An empty datagram would be counted as well.
  if (said.length > 0) send(to, ...said);
}), 200);
const chromium = await browser();
const looks = [];
for (const [width, height, size] of [[1280, 800, "desktop"], [360, 740, "phone"]]) {
  for (const colorScheme of ["light", "dark"]) {
    const options = { viewport: { width, height }, colorScheme, deviceScaleFactor: size === "phone" ? 2 : 1 };
    looks.push({ name: `${size}-${colorScheme}`, size, ...(await open(chromium, agent, options)) });
  }
}
// The time range of the tasks' small plots.
await sleep(122_000);
for (const { name, size, page, close } of looks) {
  const shot = (what) => page.screenshot({ path: path.join(images, `page-${what}-${name}.png`) });
  await page.bringToFront();
  await shot("tasks");
  await page.goto(`${agent.url}#/task/payments-gateway.3`);
  await page.locator("#series-rows a", { hasText: "http.latency" }).first().waitFor();
  await sleep(2500);
  await shot("task");
  if (size === "desktop") {
    await page.locator("#series-rows a", { hasText: "http.latency" }).first().click();
    await sleep(500);
    await shot("series");
  }
  await close();
}
clearInterval(sending);
await chromium.close();
await agent.end();
