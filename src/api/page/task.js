// One task: its series with their kept windows, what was lost, events, checks and containers.

const TABS = [["series", "Series"], ["events", "Events"], ["checks", "Checks"], ["containers", "Containers"]];

const taskView = {
  id: null,
  series: new Map(),
  types: new Set(),
  /** The statistic of timers, histograms and distributions. */
  stat: "mean",
  tab: "series",
  turn: 0,

  start() {
    const columns = [
      { text: "Name and tags", kind: "name", of: (series) => series.order },
      { text: "Type", kind: "type", of: (series) => series.type },
      { text: "Kept windows", kind: "trend" },
      { text: "Value", kind: "num value", of: (series) => statistic(series.newest(), this.stat) || 0, first: "down" },
      { text: "Age", kind: "num age", of: (series) => series.age() },
    ];
    this.sorting = new Sorting(byId("series-head"), columns, () => {
      address.set({ sort: this.sorting.text() });
      this.showSeries(true);
    });
    this.list = new List(byId("series-rows"), { make: this.make, fill: (row, series) => this.fill(row, series), key: (series) => series.id });
    this.search = byId("series-search");
    this.search.addEventListener("input", () => {
      address.set({ q: this.search.value });
      this.showSeries(true);
    });
    const listed = () => this.list.items.map((series) => ({ ...series, records: [series.newest()] }));
    byId("series-exports").append("Export ", ...exportButtons(() => "series", listed), copyButton("Copy link", () => location.href));
    byId("task-dismiss").addEventListener("click", () => {
      problems.dismiss([node.tasks.get(this.id)].filter(Boolean).map((task) => task.row));
      this.unfolded = null;
      byId("rejected-lines").open = false;
      this.show();
    });
    window.addEventListener("scroll", () => this.wantWindows(), { passive: true });
    for (const [key, text] of TABS) {
      byId("tabs").append(el("button", { type: "button", role: "tab", id: `tab-${key}`, "aria-controls": `panel-${key}`, click: () => this.choose(key) }, text));
    }
    byId("tabs").addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!step) return;
      const at = TABS.findIndex(([key]) => key === this.tab);
      this.choose(TABS[(at + step + TABS.length) % TABS.length][0]);
      byId(`tab-${this.tab}`).focus();
    });
  },

  /** The first moment of what is kept, in milliseconds. */
  from() {
    const info = node.info || { window_seconds: 10, windows_kept: 30 };
    return this.until - info.window_seconds * info.windows_kept * 1000;
  },

  api(part) {
    return `/v1/tasks/${encodeURIComponent(this.id)}${part}`;
  },

  /** Opens the task that the address names, or the tab or series of the one that is open. */
  async open({ task, tab, series }) {
    this.search.value = address.option("q");
    this.types = new Set(address.list("type"));
    this.stat = STATISTICS.includes(address.option("stat")) ? address.option("stat") : "mean";
    this.sorting.read(address.option("sort"));
    if (this.id !== task) {
      this.close();
      this.id = task;
      say(byId("task-name"), task);
      byId("task-name").title = task;
      say(byId("task-state"), "");
      byId("task-state").className = "state";
      figures(byId("task-figures"), []);
      byId("task-labels").replaceChildren();
      byId("task-losses").hidden = true;
      byId("series-empty").hidden = true;
      rejectedLines.lines.clear();
      this.known(true);
      document.title = `${task} · tallyport`;
      this.showTab(tab);
      this.show();
      resources.open(task);
      await this.load();
    } else {
      this.showTab(tab);
      this.showSeries(true);
    }
    if (this.id === task) inspector.show(address.place.series ? this.series.get(address.place.series) : null);
  },

  chooseStatistic(stat) {
    this.stat = stat;
    address.set({ stat: stat === "mean" ? "" : stat });
    this.showSeries(true);
    if (inspector.series) inspector.refresh(inspector.series);
  },

  close() {
    this.turn += 1;
    this.id = null;
    this.document = null;
    this.missing = false;
    this.series.clear();
    this.until = 0;
    this.several = false;
    this.wanted = [];
    this.list.show([]);
    inspector.show(null);
    resources.id = null;
    if (this.stream) this.stream.close();
    this.stream = null;
  },

  /** The task has changed: reads what stands beside the series, at most every two seconds. */
  async again() {
    if (this.reading || !this.document) return;
    this.reading = true;
    try {
      await this.readAgain();
    } finally {
      this.reading = false;
    }
  },

  async readAgain() {
    const turn = this.turn;
    const answer = await ask(this.api(""));
    if (turn !== this.turn || !answer || answer.status !== 200) return;
    this.documentCame(answer.body);
    await this.lists();
    // Before the first window closes, only the open one has anything.
    if (turn !== this.turn || answer.body.series <= this.series.size) return;
    const newest = await ask(this.api("/metrics"));
    if (turn !== this.turn || !newest || newest.status !== 200) return;
    this.add(newest.body.metrics);
    this.showSeries(false);
  },

  known(is) {
    byId("tabs").hidden = !is;
    byId("panel-series").querySelector(".tools").hidden = !is;
    byId("resources").hidden = !is;
    byId("series-exports").hidden = !is;
    if (!is) for (const id of ["task-labels", "task-losses", "task-state"]) byId(id).hidden = true;
    else for (const id of ["task-labels", "task-state"]) byId(id).hidden = false;
  },

  documentCame(body) {
    this.document = body;
    this.known(true);
    stateInto(byId("task-state"), body.state);
    const labels = Object.entries(body.labels);
    if (byId("task-labels").childElementCount !== labels.length) {
      byId("task-labels").replaceChildren(...labels.map((pair) => el("li", {}, tagText(pair))));
    }
    showLosses(body);
    keep(byId("panel-containers"), body.containers.map((one) => [one.container_id, one.generation, one.state, one.received, one.kernel_drops, one.dropped, one.rejected, one.series, one.client]), () => containerCards(body.containers));
    this.count("containers", body.containers.length);
    this.show();
  },

  async lists() {
    const turn = this.turn;
    const [events, checks] = [await ask(this.api("/events")), await ask(this.api("/checks"))];
    if (turn !== this.turn || !events || !checks || events.status !== 200 || checks.status !== 200) return;
    keep(byId("panel-events"), events.body.events, eventCards);
    keep(byId("panel-checks"), checks.body.checks, checkCards);
    this.count("events", events.body.events.length);
    this.count("checks", checks.body.checks.length);
  },

  count(key, count) {
    const [, text] = TABS.find(([name]) => name === key);
    say(byId(`tab-${key}`), `${text} ${NARROW}${number(count)}`);
  },

  choose(tab) {
    address.replace({ task: this.id, tab, series: null });
    this.showTab(tab);
  },

  showTab(tab) {
    this.tab = TABS.some(([key]) => key === tab) ? tab : "series";
    for (const [key] of TABS) {
      byId(`panel-${key}`).hidden = key !== this.tab;
      byId(`tab-${key}`).setAttribute("aria-selected", key === this.tab);
      byId(`tab-${key}`).tabIndex = key === this.tab ? 0 : -1;
    }
    if (this.tab === "series") this.list.render();
    else inspector.show(null);
  },

  /** The node's stream told something: figures and ages. */
  show() {
    const task = node.tasks.get(this.id);
    if (!task) return;
    if (this.missing) {
      // It has come meanwhile.
      this.missing = false;
      this.load();
    }
    if (this.document) stateInto(byId("task-state"), problems.state(task.row) || task.row.state);
    this.dismissal(task);
    const newer = this.document && this.row && (task.row.received !== this.row.received || task.row.state !== this.row.state);
    this.row = task.row;
    figures(byId("task-figures"), [
      ["Values", rate(task.rate("values")), "/s"],
      ["Datagrams", rate(task.rate("received")), "/s"],
      ["Series", number(task.row.series)],
      ["Last datagram", task.row.last_datagram ? ago(task.age()) : "none yet", task.row.last_datagram ? "ago" : ""],
      ...problemFigures(task.problems(), task.fresh()),
      ["Received", number(task.row.received), "datagrams"],
    ]);
    if (newer) this.again();
  },

  /** Says since when the reasons count, and folds them away while nothing has come since they were dismissed. */
  dismissal(task) {
    const at = problems.noted(task.row) && problems.at(task.id);
    const fresh = countsText(task.fresh());
    byId("task-dismiss").hidden = !task.troubled();
    byId("task-losses").classList.toggle("dismissed", Boolean(at) && !fresh && this.unfolded !== task.id);
    const since = at ? `${fresh || "nothing new"} since it was dismissed at ${clock.format(new Date(at))}` : fresh ? "" : "nothing new in the kept windows";
    say(byId("losses-since"), [COUNTED_SINCE, since].filter(Boolean).join("; "));
  },
};
