// The tasks of the node, from the node's stream.

/** What is known of the node: `at` is the agent's moment of the last event in seconds, `heard` ours. */
const node = { info: null, at: 0, heard: 0, ready: true, memory: 0, lastScrape: null, tasks: new Map(), whole: true };

/** Looks that a rate goes over, two seconds apart. */
const LOOKS = 6;
/** The shortest time range of the small plots, in seconds, and the largest number of windows in one. */
const SHORTEST_TREND = 120;
const MOST_TREND = 60;

/** The agent's time now, in seconds. */
function agentNow() {
  return node.at + (performance.now() - node.heard) / 1000;
}

class Task {
  constructor(row) {
    this.id = row.task_id;
    this.looks = [];
    this.points = [];
    this.row = row;
  }

  /** Notes how it stands; counts that go back are those of other containers. */
  look(row, at) {
    const last = this.looks[this.looks.length - 1];
    if (last && (row.received < last.received || row.values < last.values)) this.looks = [];
    this.row = row;
    this.looks.push({ at, received: row.received, values: row.values });
    if (this.looks.length > LOOKS) this.looks.shift();
    if (this.looks.length < 2) return;
    this.points.push({ at, value: this.rate("values") });
    const from = at - trendSeconds();
    while (this.points[0].at < from) this.points.shift();
  }

  /** Fills the small plot from the kept windows. */
  recall(values, until) {
    const { window_seconds: length } = node.info;
    const at = (index) => until - (values.length - index - 0.5) * length;
    // Before the first window with a value there may have been no container.
    const first = values.findIndex((value) => value > 0);
    this.points = first < 0 ? [] : values.slice(first).map((value, index) => ({ at: at(first + index), value: value / length }));
  }

  /** How many of something came a second lately; null where one look does not say. */
  rate(what) {
    const last = this.looks[this.looks.length - 1];
    const first = this.looks[0];
    if (last && last.at > first.at) return (last[what] - first[what]) / (last.at - first.at);
    // Until then, the newest kept window says how many values there were.
    const newest = this.points[this.points.length - 1];
    return what === "values" && newest ? newest.value : null;
  }

  age() {
    return this.row.last_datagram ? agentNow() - seconds(this.row.last_datagram) : null;
  }

  /** What was dropped, folded and rejected in all. */
  problems() {
    return sumsOf((name) => this.row[name]);
  }

  /** How much of that is new. */
  fresh() {
    return problems.fresh(this.row);
  }

  troubled() {
    return problems.has(this.row);
  }
}

/** The time range of the small plots, in seconds: that of the kept windows. */
function trendSeconds() {
  const info = node.info;
  return info ? Math.max(SHORTEST_TREND, info.window_seconds * Math.min(MOST_TREND, info.windows_kept)) : SHORTEST_TREND;
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
    const task = node.tasks.get(row.task_id);
    if (row.recent_values) task.recall(row.recent_values, seconds(changes.recent_until));
    task.look(row, node.at);
  }
  for (const [id, task] of node.tasks) if (!named.has(id)) task.look(task.row, node.at);
}

/** A count of problems, which stands out where some of it is new. */
function countInto(cell, count, fresh, kind) {
  say(cell, number(count));
  cell.className = fresh > 0 ? `num ${kind}` : count > 0 ? "num" : "num zero";
  const title = count === 0 ? "" : `${full(count)} ${COUNTED_SINCE}${fresh === count ? "" : `, ${full(fresh)} of them new`}`;
  if (cell.title !== title) cell.title = title;
}

function stateInto(element, state) {
  say(element, state);
  element.className = `state ${state}`;
}

/** The figures of problems, which stand out where some of them are new. */
function problemFigures(counts, fresh) {
  const figure = (name, key, kind) => [name, number(counts[key]), null, fresh[key] > 0 ? kind : ""];
  return [figure("Dropped", "lost", "bad"), figure("Folded", "folded", "warn"), figure("Rejected lines", "rejected", "warn")];
}

const tasksView = {
  only: false,

  start() {
    const columns = [
      { text: "Task", kind: "name", of: (task) => task.id },
      { text: "State", kind: "status", of: (task) => problems.state(task.row) || task.row.state },
      { text: "Kept windows", kind: "spark" },
      { text: "Values/s", kind: "num", of: (task) => task.rate("values") || 0, first: "down" },
      { text: "Series", kind: "num", of: (task) => task.row.series, first: "down" },
      { text: "Age", kind: "num", of: (task) => task.row.last_datagram || "", first: "down" },
      { text: "Dropped", kind: "num", of: (task) => task.problems().lost, first: "down" },
      { text: "Folded", kind: "num", of: (task) => task.problems().folded, first: "down" },
      { text: "Rejected", kind: "num", of: (task) => task.problems().rejected, first: "down" },
    ];
    this.sorting = new Sorting(byId("tasks-head"), columns, () => {
      address.set({ sort: this.sorting.text() });
      this.show(true);
    });
    this.list = new List(byId("tasks-rows"), { make: this.make, fill: this.fill, key: (task) => task.id });
    this.search = byId("tasks-search");
    this.search.addEventListener("input", () => {
      address.set({ q: this.search.value });
      this.show(true);
    });
    byId("tasks-problems").addEventListener("click", () => {
      address.set({ problems: this.only ? "" : "1" });
      this.only = !this.only;
      this.show(true);
    });
    byId("tasks-dismiss").addEventListener("click", () => {
      problems.dismiss([...node.tasks.values()].filter((task) => task.troubled()).map((task) => task.row));
      this.show(true);
    });
    byId("tasks-restore").addEventListener("click", () => {
      problems.restore();
      this.show(true);
    });
  },

  /** Takes search, filter and order from the address, or puts those of before into it. */
  route() {
    if ([...address.options.keys()].length > 0) {
      this.search.value = address.option("q");
      this.only = address.option("problems") !== "";
      this.sorting.read(address.option("sort"));
    } else {
      address.set({ q: this.search.value, problems: this.only ? "1" : "", sort: this.sorting.text() });
    }
  },

  make() {
    const cell = (kind, short, ...children) => el("div", { role: "cell", class: kind, "data-short": short }, ...children);
    const row = el("div", { class: "row", role: "row" }, cell("name", null, el("a")), cell("status", null, el("span")),
      cell("spark", null, emptyPlot()), cell("num", "/s"), cell("num", "series"), cell("num age"), cell("num", "dropped"),
      cell("num", "folded"), cell("num", "rejected"));
    row.svg = row.querySelector("svg");
    row.svg.setAttribute("aria-hidden", "true");
    return row;
  },

  fill(row, task) {
    const [name, state, , values, series, age, lost, folded, rejected] = row.children;
    const link = name.firstChild;
    say(link, task.id);
    if (link.title !== task.id) link.title = task.id;
    const target = `#/task/${encodeURIComponent(task.id)}`;
    if (link.getAttribute("href") !== target) link.setAttribute("href", target);
    stateInto(state.firstChild, problems.state(task.row) || task.row.state);
    // Rows are filled at every step of scrolling; the plot changes only with the stream.
    const stamp = `${task.id} ${node.at}`;
    if (row.stamp !== stamp) spark(row.svg, task.points, node.at - trendSeconds(), node.at);
    row.stamp = stamp;
    say(values, rate(task.rate("values")));
    values.classList.toggle("zero", !task.rate("values"));
    say(series, number(task.row.series));
    say(age, task.row.last_datagram ? `${ago(task.age())} ago` : "no data");
    const [counts, fresh] = [task.problems(), task.fresh()];
    countInto(lost, counts.lost, fresh.lost, "bad");
    countInto(folded, counts.folded, fresh.folded, "warn");
    countInto(rejected, counts.rejected, fresh.rejected, "warn");
    row.classList.toggle("finished", task.row.finished);
  },

  chosen() {
    const words = this.search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const fits = (task) => words.every((word) => task.id.toLowerCase().includes(word) || task.row.state === word || problems.state(task.row) === word);
    return [...node.tasks.values()].filter((task) => (!this.only || task.troubled()) && fits(task));
  },

  /** Shows what is there; rows stay where they are while the pointer is on them, unless it was asked for. */
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
    byId("tasks-problems").setAttribute("aria-pressed", this.only);
    byId("tasks-dismiss").hidden = trouble === 0;
    byId("tasks-restore").hidden = !problems.any();
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
      box.replaceChildren(el("h2", {}, "No task with problems"),
        el("p", {}, `Nothing was dropped, folded or rejected in the kept windows${problems.any() ? " or since it was dismissed" : ""}, every container has its address, and none is silent.`));
    } else {
      box.replaceChildren(el("h2", {}, "No task fits"), el("p", {}, "Search looks at task ids and states. Esc empties it."));
    }
  },

  figures() {
    let [values, received, series, rated] = [0, 0, 0, false];
    const [counts, fresh] = [{ lost: 0, folded: 0, rejected: 0 }, { lost: 0, folded: 0, rejected: 0 }];
    for (const task of node.tasks.values()) {
      rated = rated || task.rate("values") !== null;
      values += task.rate("values") || 0;
      received += task.rate("received") || 0;
      series += task.row.series;
      for (const [sum, part] of [[counts, task.problems()], [fresh, task.fresh()]]) for (const key of Object.keys(sum)) sum[key] += part[key];
    }
    const info = node.info;
    const scraped = node.lastScrape ? ago(agentNow() - seconds(node.lastScrape)) : "never";
    figures(byId("node-figures"), [
      ["Tasks", number(node.tasks.size)],
      ["Values", rate(rated ? values : null), "/s"],
      ["Datagrams", rate(rated ? received : null), "/s"],
      ["Series", number(series)],
      ...problemFigures(counts, fresh),
      ["Memory", bytes(node.memory), info ? `of ${bytes(info.memory_limit)}` : ""],
      ["Last scrape", scraped, node.lastScrape ? "ago" : ""],
    ]);
  },
};
