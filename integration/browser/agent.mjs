// A real agent and a real browser for the tests.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createSocket } from "node:dgram";
import { mkdtempSync, rmSync } from "node:fs";
import http from "node:http";
import { createRequire } from "node:module";
import net from "node:net";
import os from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";

import { chromium } from "playwright-core";

const here = path.dirname(fileURLToPath(import.meta.url));
const binary = process.env.TALLYPORT_BIN || path.join(here, "../../target/debug/tallyport");
export const StatsD = createRequire(path.join(here, "../clients/node/package.json"))("hot-shots");

export const sleep = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

/** Waits until a condition holds; fails with its description. */
export async function until(what, holds, patience = 20_000) {
  const deadline = Date.now() + patience;
  for (;;) {
    if (await holds()) return;
    if (Date.now() > deadline) throw new Error(`not within ${patience} ms: ${what}`);
    await sleep(50);
  }
}

async function freePort() {
  const server = net.createServer().listen(0, "127.0.0.1");
  await new Promise((resolve) => server.once("listening", resolve));
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/** An agent in a directory of its own, at an address that it keeps over restarts. */
export class Agent {
  constructor(flags = ["--window", "1s"]) {
    this.flags = flags;
    this.directory = mkdtempSync(path.join(os.tmpdir(), "tallyport-browser-"));
    this.socket = path.join(this.directory, "admin.sock");
  }

  async start() {
    this.port ??= await freePort();
    this.url = `http://127.0.0.1:${this.port}/`;
    this.log = "";
    this.child = spawn(binary, ["agent", "--http-listen", `127.0.0.1:${this.port}`, "--admin-socket", this.socket,
      "--state-dir", path.join(this.directory, "state"), ...this.flags], { stdio: ["ignore", "ignore", "pipe"] });
    this.child.stderr.on("data", (text) => (this.log += text));
    await until("the agent is ready", async () => {
      if (this.child.exitCode !== null) throw new Error(`the agent ended:\n${this.log}`);
      return (await fetch(`${this.url}ready`).catch(() => ({ ok: false }))).ok;
    });
    return this;
  }

  async stop() {
    const ended = new Promise((resolve) => this.child.once("exit", resolve));
    this.child.kill("SIGTERM");
    const code = await ended;
    if (code !== 0) throw new Error(`the agent ended with ${code}:\n${this.log}`);
  }

  async end() {
    await this.stop();
    rmSync(this.directory, { recursive: true });
  }

  /** Reserves a socket through the admin socket; returns the container's variables. */
  reserve(container, task, labels = {}, more = {}) {
    const body = JSON.stringify({ container_id: container, task_id: task, labels, ttl: null, ...more });
    return new Promise((resolve, reject) => {
      const request = http.request({ socketPath: this.socket, path: "/v1/containers", method: "POST", agent: keep }, (answer) => {
        let text = "";
        answer.on("data", (part) => (text += part)).on("end", () => {
          if (answer.statusCode > 201) reject(new Error(`${answer.statusCode} ${text}`));
          else resolve(JSON.parse(text));
        });
      });
      request.on("error", reject).end(body);
    });
  }
}

const keep = new http.Agent({ keepAlive: true, maxSockets: 1 });
const socket = createSocket("udp4").unref();

/** Sends lines unchanged. */
export function send(to, ...lines) {
  return new Promise((resolve) => socket.send(lines.join("\n"), to.statsd_port, to.statsd_host, resolve));
}

export function browser() {
  return chromium.launch({
    executablePath: process.env.CHROMIUM || "/usr/bin/chromium",
    args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
      "--disable-component-update", "--disable-sync"],
  });
}

/** The row of a task, and that of a series. */
export const row = (page, text) => page.locator("#tasks-rows .row:not([hidden])", { hasText: text });
export const series = (page, text) => page.locator("#series-rows .row:not([hidden])", { hasText: text });
export const focused = (page) => page.evaluate(() => document.activeElement.textContent);

/** Checks that the page requested nothing from other hosts and reported no errors. */
export function clean(agent, seen) {
  assert.ok(seen.requests.length > 1);
  const outside = seen.requests.filter((url) => !url.startsWith(agent.url) && !url.startsWith("data:") && !url.startsWith("blob:"));
  assert.deepEqual(outside, []);
  assert.deepEqual(seen.complaints, []);
}

/** A page, with its requests and its errors. */
export async function open(browser, agent, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, ...options });
  const page = await context.newPage();
  const seen = { requests: [], complaints: [] };
  page.on("request", (request) => seen.requests.push(request.url()));
  page.on("console", (message) => {
    if (["error", "warning"].includes(message.type())) seen.complaints.push(message.text());
  });
  page.on("pageerror", (error) => seen.complaints.push(error.stack));
  await page.goto(agent.url + (options.view || ""));
  await page.locator("#link.live").waitFor();
  return { page, seen, close: () => context.close() };
}
