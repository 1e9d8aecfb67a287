// What stands beside the series of a task: what was lost, events, checks, containers.

const ADVICE = JSON.parse(byId("advice").textContent);

/** What a container's client sends that may not be read as it is meant: how much of it, what it is, and what to do. */
function doubts({ client }) {
  const found = [];
  if (!client) return found;
  if (looksLikeLevels(client)) {
    found.push([client.gauge_changes, "signed gauges", "read as changes, of a client that also sends DogStatsD",
      "set tallyport.gauge-sign to absolute, or to delta if changes are meant"]);
  }
  if (client.decremented.length > 0) {
    found.push([client.decremented.length, "names", `counted down: ${client.decremented.join(", ")}`,
      "use delta() on them, or send a counter as a gauge"]);
  }
  if (client.timers_look_like_seconds) {
    found.push([1, "client", "every timer is below 1 ms", "if it sends seconds, set tallyport.timer-unit to s"]);
  }
  return found;
}

/**
 * Whether gauges with a sign were read as changes although the client speaks DogStatsD, where they are levels. Events and
 * service checks are of DogStatsD alone; the agent does not look at them when it decides.
 */
function looksLikeLevels(client) {
  const task = taskView.document;
  const speaks = client.dogstatsd || (task && task.containers.length === 1 && task.totals.events > 0);
  return Boolean(speaks) && client.gauge_changes > 0;
}

/** The hint beside a gauge of such a client. */
function gaugeHints(series) {
  const container = taskView.document && taskView.document.containers.find((one) => one.container_id === series.container);
  if (series.type !== "gauge" || !container || !container.client || !looksLikeLevels(container.client)) return [];
  return ["Values such as +5 and -5 were read as changes of this container's gauges, but its client speaks DogStatsD, where they are levels. "
    + "If a level is meant, set tallyport.gauge-sign to absolute; if a change is meant, set it to delta."];
}

/** Rejected lines that are shown at most. */
const MOST_REJECTED = 50;

/** The rejected lines of the task that is shown, the oldest first: the agent keeps fewer than are collected here. */
const rejectedLines = {
  lines: new Map(),

  add(lines) {
    // Lines of one datagram whose text is hidden are alike.
    const alike = new Map();
    for (const line of lines) {
      const key = JSON.stringify([line.at, line.container_id, line.code, line.line]);
      alike.set(key, (alike.get(key) || 0) + 1);
      this.lines.set(`${key} ${alike.get(key)}`, line);
    }
    while (this.lines.size > MOST_REJECTED) this.lines.delete(this.lines.keys().next().value);
  },

  show(id) {
    const lines = [...this.lines.values()].sort((a, b) => (a.at < b.at ? 1 : -1));
    const readable = lines.some((line) => line.line !== undefined);
    byId("rejected-lines").hidden = lines.length === 0;
    say(byId("rejected-lines").firstElementChild, `Last rejected lines ${NARROW}${number(lines.length)}`);
    say(byId("rejected-what"), readable ? "Line" : "Lines");
    keep(byId("rejected-note"), [readable, id], () => (readable ? [] : ["The text of these lines is hidden here, because a line can contain anything, a password for example. The admin socket shows it: ",
      el("code", {}, `tallyport tail ${shell(id)} --rejected`)]));
    const rows = readable ? lines.map((line) => [line, el("code", {}, el("bdi", {}, line.line ?? NOTHING))]) : countLines(lines);
    keep(byId("rejected-rows"), lines, () => rows.map(([line, what]) => el("tr", {}, el("td", {}, when(line.at)), el("td", {}, el("bdi", {}, line.container_id)),
      el("td", {}, el("code", {}, line.code)), el("td", {}, what))));
  },
};

/** Lines whose text is hidden, counted by container and reason: [the newest of them, how many]. */
function countLines(lines) {
  const counted = new Map();
  for (const line of lines) {
    const key = JSON.stringify([line.container_id, line.code]);
    const [newest, count] = counted.get(key) || [line, 0];
    counted.set(key, [newest, count + 1]);
  }
  return [...counted.values()].map(([line, count]) => [line, number(count)]);
}

/** Which containers of several have lost what, the worst first. */
function lossesByContainer(containers) {
  const lost = (one) => ({ lost: one.kernel_drops + one.dropped, folded: 0, rejected: one.rejected });
  const worst = containers.filter((one) => countsText(lost(one))).sort((a, b) => lost(b).lost - lost(a).lost || b.rejected - a.rejected);
  if (containers.length < 2 || worst.length === 0) return "";
  const rest = worst.length > 3 ? `; ${number(worst.length - 3)} more on the tab Containers` : "";
  return `By container: ${worst.slice(0, 3).map((one) => `${one.container_id} ${countsText(lost(one))}`).join("; ")}${rest}. `;
}

function showLosses({ totals, recent_rejected: recent, widest_tags: widest, task_id: id, containers }) {
  const rows = [];
  const add = (count, what, reason, advice, last) => rows.push([count, what, reason, advice, last]);
  const { datagrams, lines, values } = totals;
  if (datagrams.kernel_drops > 0) {
    add(datagrams.kernel_drops, "datagrams", "buffer full", ADVICE.kernel);
  }
  for (const [reason, count] of Object.entries(datagrams.dropped)) add(count, "datagrams", reason, ADVICE.dropped[reason]);
  for (const [reason, count] of Object.entries(values.dropped)) add(count, "values", reason, ADVICE.dropped[reason]);
  if (values.folded > 0) add(values.folded, "values", "folded", ADVICE.dropped.series_limit);
  for (const [reason, count] of Object.entries(totals.over_limit)) add(count, "over limit, kept", reason, ADVICE.dropped[reason]);
  for (const [code, count] of Object.entries(lines.rejected)) {
    const last = recent.filter((line) => line.code === code).pop();
    add(count, "lines", code, ADVICE.rejected[code], last && last.at);
  }
  for (const [count, what, reason, advice] of containers.flatMap(doubts)) add(count, what, reason, advice);
  if (!totals.balanced) add(1, "sum", "unbalanced", "the counts of this task do not add up: please tell us");
  byId("task-losses").hidden = rows.length === 0;
  byId("task-losses").classList.toggle("grave", rows.some(([, what, reason]) => (what === "datagrams" || what === "values") && reason !== "folded"));
  keep(byId("losses"), rows, () => rows.map(([count, what, reason, advice, last]) => el("tr", {}, el("td", { title: full(count) }, number(count)),
    el("td", {}, what), el("td", {}, el("code", {}, reason)), el("td", {}, last ? when(last) : ""), el("td", {}, advice || ""))));
  const limited = values.dropped.series_limit || values.dropped.memory_limit || totals.over_limit.series_limit || values.folded;
  const named = (widest || []).filter((tag) => tag.values > 1);
  const notes = [lossesByContainer(containers)].filter(Boolean);
  if (limited && named.length > 0) {
    notes.push("Most series come from ", named.map((tag) => `${tag.key === null ? "names" : tag.key} (${plural(tag.values, "value")})`).join(", "), ". ");
  }
  if (values.folded > 0) notes.push("Folded values are counters beyond the series limit: they are counted in tallyport.overflow, without their names and tags. ");
  rejectedLines.add(recent);
  rejectedLines.show(id);
  byId("wide-tags").hidden = notes.length === 0;
  byId("wide-tags").replaceChildren(...notes);
}

function card(head, ...more) {
  return el("article", { class: "card" }, head, ...more);
}

function nothing(title, text, command) {
  return [el("div", { class: "empty" }, el("h2", {}, title), el("p", {}, text), el("pre", {}, command))];
}

function eventCards(events) {
  if (events.length === 0) return nothing("No event yet", "The last hundred events of each container are shown here. To send one:", "_e{6,5}:deploy|v1.27|t:success|#team:shop");
  return [...events].reverse().map((event) => card(
    el("h3", {}, el("span", { class: `badge ${event.alert_type}` }, event.alert_type), event.title),
    event.text ? el("p", {}, event.text.replaceAll("\\n", "\n")) : "",
    el("p", { class: "sub" }, when(event.timestamp || event.received_at), ` · ${event.container_id}`, event.hostname ? ` · ${event.hostname}` : ""),
    tagList(Object.entries(event.tags), "Tags"),
  ));
}

function checkCards(checks) {
  if (checks.length === 0) return nothing("No service check yet", "The last status of each check is shown here. To send one:", "_sc|database.up|0|#shard:1|m:answers");
  return checks.map((check) => card(
    el("h3", {}, el("span", { class: `badge ${check.status}` }, check.status), check.name),
    check.message ? el("p", {}, check.message) : "",
    el("p", { class: "sub" }, when(check.received_at), ` · ${check.container_id}`),
    tagList(Object.entries(check.tags), "Tags"),
  ));
}

/** A count that stands out unless it is zero. */
function counted(count, kind) {
  return el("span", { class: count > 0 ? kind : "" }, number(count));
}

function containerCards(containers) {
  return containers.map((one) => card(
    el("h3", {}, one.container_id, " ", el("span", { class: `state ${one.state}` }, one.state)),
    el("dl", {}, [
      ["Generation", number(one.generation)],
      ["Address", one.statsd_host ? `${one.statsd_host}:${one.statsd_port}` : one.unix_socket ? one.unix_socket.path : "none"],
      ["Others kept out by", one.origin_guard === "none" ? "nothing" : one.origin_guard],
      ["Process", one.pid ? String(one.pid) : NOTHING],
      ["Received", `${number(one.received)} datagrams`],
      ["Dropped", counted(one.kernel_drops + one.dropped, "bad")],
      ["Rejected lines", counted(one.rejected, "warn")],
      ["Receive buffer", bytes(one.receive_buffer)],
      ["Memory", bytes(one.memory)],
      ["Image", one.image || NOTHING],
    ].map(terms)),
    one.reason ? el("p", { class: "warn" }, `No socket: ${one.reason}`) : "",
    one.warnings.map((warning) => el("p", { class: "warn" }, warning)),
    doubts(one).map(([count, what, reason]) => el("p", { class: "warn" }, `${number(count)} ${what} ${reason}`)),
    tagList(Object.entries(one.labels), "Labels"),
  ));
}
