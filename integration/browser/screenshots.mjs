// Takes the pictures in docs/images/: the page of an agent with the tasks of a small shop, on a phone, a desktop and a wide
// screen, light and dark. `make screenshots` runs it; check the pictures before committing them.

import { spawn } from "node:child_process";
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
// A process that uses something, for the figures of a container.
const working = spawn("sh", ["-c", "while :; do dd if=/dev/zero of=/dev/null bs=64k count=400 2>/dev/null; sleep 0.2; done"]);
const addresses = [];
for (const task of TASKS) {
  const more = task.startsWith("payments") ? { pid: working.pid } : {};
  addresses.push(await agent.reserve(`c-${task}`, task, { team: /check|pay/.test(task) ? "shop" : "core", zone: "eu-1a" }, more));
}
await agent.reserve("c-silent", "silent-sidecar.1", { team: "core" });
TASKS.push("payments-gateway.3");
addresses.push(await agent.reserve("c-payments-gateway.3-canary", "payments-gateway.3", { team: "shop", zone: "eu-1b" }));
const start = Date.now();
const sending = setInterval(() => addresses.forEach((to, index) => {
  const said = lines(TASKS[index], index, (Date.now() - start) / 1000);
  // An empty datagram would be counted as well.
  if (said.length > 0) send(to, ...said);
}), 200);
const chromium = await browser();
// The time range of the plots, which are filled when the page opens.
await sleep(66_000);
for (const [width, height, size] of [[1280, 800, "desktop"], [390, 844, "phone"], [1920, 1080, "wide"]]) {
  for (const colorScheme of ["light", "dark"]) {
    const options = { viewport: { width, height }, colorScheme, deviceScaleFactor: size === "phone" ? 2 : 1 };
    const { page, close } = await open(chromium, agent, options);
    const shot = (what) => page.screenshot({ path: path.join(images, `page-${what}-${size}-${colorScheme}.png`) });
    const latency = page.locator("#series-rows .row:not([hidden])", { hasText: /^http\.latencyc-payments-gateway\.3\s+route:\/pay/ }).locator("a");
    await sleep(4500);
    if (size !== "wide") await shot("tasks");
    await page.goto(`${agent.url}#/task/payments-gateway.3?stat=p99`);
    await latency.waitFor();
    // Two readings of what the task uses.
    await sleep(size === "phone" ? 2500 : 12_500);
    if (size !== "wide") await shot("task");
    await latency.click();
    await page.locator("#inspector svg.chart path.line").first().waitFor({ state: "attached" });
    await sleep(500);
    if (size !== "wide") await shot("series");
    await page.getByRole("button", { name: "Sum over tags" }).click();
    await page.getByRole("button", { name: /^route/ }).click();
    await page.locator("#inspector .legend", { hasText: "route:/" }).waitFor();
    await sleep(500);
    if (size === "wide") await shot("sum");
    await close();
  }
}
clearInterval(sending);
working.kill("SIGKILL");
await chromium.close();
await agent.end();
