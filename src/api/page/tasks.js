// The tasks of the node, from the node's stream.

/** What is known of the node: `at` is the agent's moment of the last event in seconds, `heard` ours. */
const node = { info: null, at: 0, heard: 0, ready: true, memory: 0, lastScrape: null, tasks: new Map(), whole: true };

/** Looks that are kept for a task's rate and its small plot, two seconds apart. */
const LOOKS = 61;
/** Looks that a rate goes over. */
const OVER = 6;

/** The agent's time now, in seconds. */
function agentNow() {
  return node.at + (performance.now() - node.heard) / 1000;
}

class Task {
  constructor(row) {
    this.id = row.task_id;
    this.looks = [];
    this.row = row;
  }

  /** Notes how it stands; counts that go back are those of other containers. */
  look(row, at) {
    const last = this.looks[this.looks.length - 1];
    if (last && (row.received < last.received || row.values < last.values)) this.looks = [];
    this.row = row;
    this.looks.push({ at, received: row.received, values: row.values });
    if (this.looks.length > LOOKS) this.looks.shift();
  }

  /** How many of something came a second lately; null where one look does not say. */
  rate(what) {
    const last = this.looks[this.looks.length - 1];
    const first = this.looks[Math.max(0, this.looks.length - OVER)];
    return last && last.at > first.at ? (last[what] - first[what]) / (last.at - first.at) : null;
  }

  trend() {
    const rates = [];
    for (let index = 1; index < this.looks.length; index += 1) {
      const [a, b] = [this.looks[index - 1], this.looks[index]];
      rates.push((b.values - a.values) / Math.max(1e-3, b.at - a.at));
    }
    return rates;
  }

  age() {
    return this.row.last_datagram ? agentNow() - seconds(this.row.last_datagram) : null;
  }

  lost() {
    return this.row.kernel_drops + this.row.dropped;
  }

  troubled() {
    return this.lost() > 0 || this.row.rejected > 0 || this.row.state === "lost" || this.row.state === "mute";
  }
}

/** An event of the stream: everything after a new connection, else what changed. */
function nodeChanged(changes) {
  node.at = seconds(changes.at);
  node.heard = performance.now();
  Object.assign(node, { ready: changes.ready, memory: changes.memory, lastScrape: changes.last_scrape });
  const named = new Set(changes.tasks.map((row) => row.task_id));
  if (node.whole) {
    for (const id of node.tasks.keys()) if (!named.has(id)) node.tasks.delete(id);
    node.whole = false;
  }
  for (const id of changes.gone) node.tasks.delete(id);
  for (const row of changes.tasks) {
    if (!node.tasks.has(row.task_id)) node.tasks.set(row.task_id, new Task(row));
    node.tasks.get(row.task_id).look(row, node.at);
  }
  for (const [id, task] of node.tasks) if (!named.has(id)) task.look(task.row, node.at);
}

/** A count of what was lost, which stands out where there is any. */
function countInto(cell, count, kind) {
  say(cell, number(count));
  cell.className = count > 0 ? `num ${kind}` : "num zero";
}

function stateInto(element, state) {
  say(element, state);
  element.className = `state ${state}`;
}

const tasksView = {
  only: false,

  start() {
    const columns = [
      { text: "Task", kind: "name", of: (task) => task.id },
      { text: "State", kind: "status", of: (task) => task.row.state },
      { text: "Last 2 minutes", kind: "spark" },
      { text: "Values/s", kind: "num", of: (task) => task.rate("values") || 0, first: "down" },
      { text: "Series", kind: "num", of: (task) => task.row.series, first: "down" },
      { text: "Age", kind: "num", of: (task) => task.row.last_datagram || "", first: "down" },
      { text: "Dropped", kind: "num", of: (task) => task.lost(), first: "down" },
      { text: "Rejected", kind: "num", of: (task) => task.row.rejected, first: "down" },
    ];
    this.sorting = new Sorting(byId("tasks-head"), columns, () => this.show(true));
    this.list = new List(byId("tasks-rows"), { make: this.make, fill: this.fill, key: (task) => task.id });
    this.search = byId("tasks-search");
    this.search.addEventListener("input", () => this.show(true));
    byId("tasks-problems").addEventListener("click", (event) => {
      this.only = !this.only;
      event.currentTarget.setAttribute("aria-pressed", this.only);
      this.show(true);
    });
  },

  make() {
    const cell = (kind, short, ...children) => el("div", { role: "cell", class: kind, "data-short": short }, ...children);
    const row = el("div", { class: "row", role: "row" }, cell("name", null, el("a")), cell("status", null, el("span")),
      cell("spark", null, emptyPlot()), cell("num", "/s"), cell("num", "series"), cell("num", "ago"), cell("num", "dropped"),
      cell("num", "rejected"));
    row.svg = row.querySelector("svg");
    row.svg.setAttribute("aria-hidden", "true");
    return row;
  },

  fill(row, task) {
    const [name, state, , values, series, age, lost, rejected] = row.children;
    const link = name.firstChild;
    say(link, task.id);
    if (link.title !== task.id) link.title = task.id;
    const target = `#/task/${encodeURIComponent(task.id)}`;
    if (link.getAttribute("href") !== target) link.setAttribute("href", target);
    stateInto(state.firstChild, task.row.state);
    spark(row.svg, task.trend(), LOOKS - 1);
    say(values, rate(task.rate("values")));
    values.classList.toggle("zero", !task.rate("values"));
    say(series, number(task.row.series));
    say(age, ago(task.age()));
    countInto(lost, task.lost(), "bad");
    countInto(rejected, task.row.rejected, "warn");
    row.classList.toggle("finished", task.row.finished);
  },

  chosen() {
    const words = this.search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const fits = (task) => words.every((word) => task.id.toLowerCase().includes(word) || task.row.state === word);
    return [...node.tasks.values()].filter((task) => (!this.only || task.troubled()) && fits(task));
  },

  /** Shows what is there; rows stay where they are while somebody points at them, unless it was asked for. */
  show(asked) {
    this.figures();
    let items = this.chosen();
    if (!asked && this.list.busy()) {
      const here = new Set(items);
      const kept = this.list.items.map((task) => node.tasks.get(task.id)).filter((task) => here.has(task));
      const known = new Set(kept);
      items = [...kept, ...items.filter((task) => !known.has(task))];
    } else {
      items = this.sorting.sort(items);
    }
    const total = node.tasks.size;
    say(byId("tasks-count"), items.length === total ? plural(total, "task") : `${number(items.length)} of ${plural(total, "task")}`);
    const trouble = [...node.tasks.values()].filter((task) => task.troubled()).length;
    say(byId("tasks-problems"), trouble > 0 ? `With problems · ${number(trouble)}` : "With problems");
    byId("tasks-table").hidden = items.length === 0;
    this.empty(items.length === 0 && node.at > 0, total);
    this.list.show(items);
  },

  empty(is, total) {
    const box = byId("tasks-empty");
    box.hidden = !is;
    if (!is) return;
    if (total === 0) {
      box.replaceChildren(
        el("h2", {}, "No container yet"),
        el("p", {}, "A container gets a socket of its own when it starts. To see one now:"),
        el("pre", {}, "tallyport run --task-id hello -- bash -c \\\n  'while sleep 0.1; do echo \"loops:1|c\" > \"/dev/udp/$STATSD_UDP_HOST/$STATSD_UDP_PORT\"; done'"),
        el("p", {}, "For the containers of an engine: ", el("code", {}, "tallyport hook install --for docker"),
          " (containerd, podman, crio). On Kubernetes the agent asks the runtime by itself, with ", el("code", {}, "nri.enabled"), "."),
      );
    } else if (this.search.value === "") {
      box.replaceChildren(el("h2", {}, "No task with problems"), el("p", {}, "Nothing was dropped or rejected, and every container has its address."));
    } else {
      box.replaceChildren(el("h2", {}, "No task fits"), el("p", {}, "Search looks at task ids and states. Esc empties it."));
    }
  },

  figures() {
    let [values, received, series, lost, rejected, rated] = [0, 0, 0, 0, 0, false];
    for (const task of node.tasks.values()) {
      rated = rated || task.rate("values") !== null;
      values += task.rate("values") || 0;
      received += task.rate("received") || 0;
      series += task.row.series;
      lost += task.lost();
      rejected += task.row.rejected;
    }
    const info = node.info;
    const scraped = node.lastScrape ? ago(agentNow() - seconds(node.lastScrape)) : "never";
    figures(byId("node-figures"), [
      ["Tasks", number(node.tasks.size)],
      ["Values", rate(rated ? values : null), "/s"],
      ["Datagrams", rate(rated ? received : null), "/s"],
      ["Series", number(series)],
      ["Dropped", number(lost), null, lost > 0 ? "bad" : ""],
      ["Rejected lines", number(rejected), null, rejected > 0 ? "warn" : ""],
      ["Memory", bytes(node.memory), info ? `of ${bytes(info.memory_limit)}` : ""],
      ["Last scrape", scraped, node.lastScrape ? "ago" : ""],
    ]);
  },
};
