// One task: its series with their kept windows, what was lost, events, checks and containers.

/** Tasks of more series load the windows of those that are looked at. */
const ALL_AT_ONCE = 400;
const TABS = [["series", "Series"], ["events", "Events"], ["checks", "Checks"], ["containers", "Containers"]];

const taskView = {
  id: null,
  series: new Map(),
  types: new Set(),
  tab: "series",
  turn: 0,

  start() {
    const columns = [
      { text: "Name and tags", kind: "name", of: (series) => series.text },
      { text: "Type", kind: "type", of: (series) => series.type },
      { text: "Kept windows", kind: "trend" },
      { text: "Value", kind: "num value", of: (series) => series.newest().value || 0, first: "down" },
      { text: "Age", kind: "num age", of: (series) => series.age() },
    ];
    this.sorting = new Sorting(byId("series-head"), columns, () => this.showSeries(true));
    this.list = new List(byId("series-rows"), { make: this.make, fill: (row, series) => this.fill(row, series), key: (series) => series.id });
    this.search = byId("series-search");
    this.search.addEventListener("input", () => this.showSeries(true));
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

  make() {
    const cell = (kind, ...children) => el("div", { role: "cell", class: kind }, ...children);
    const row = el("div", { class: "row", role: "row" }, cell("name", el("a"), el("span", { class: "sub" })), cell("type"),
      cell("trend", emptyPlot()), cell("value", el("span"), el("span", { class: "sub" })), cell("num age"));
    row.svg = row.querySelector("svg");
    return row;
  },

  fill(row, series) {
    const [name, type, , value, age] = row.children;
    const newest = series.newest();
    const [link, sub] = name.children;
    const tags = series.tags.map(tagText);
    if (this.several) tags.unshift(series.container);
    say(link, series.name);
    if (link.title !== series.name) link.title = series.name;
    const target = `${this.path()}/series/${series.id}`;
    if (link.getAttribute("href") !== target) link.setAttribute("href", target);
    say(sub, tags.join("  "));
    say(type, series.type);
    say(value.firstChild, valueOf(newest));
    value.firstChild.className = newest.type === "service_check" ? { ok: "", warning: "warn", critical: "bad" }[valueOf(newest)] || "" : "";
    say(value.lastChild, detailOf(newest));
    say(age, newest.open ? "now" : ago(series.age()));
    row.classList.toggle("chosen", inspector.shown === series.id);
    // Drawing is what costs; nothing new, nothing to draw.
    const stamp = `${series.id} ${this.until} ${series.records.size} ${newest.rev} ${newest.value}`;
    if (row.stamp !== stamp) {
      row.stamp = stamp;
      const drawn = draw(row.svg, series.points(), shapeOf(series.type), this.from(), this.until);
      row.svg.setAttribute("aria-label", drawn ? `${plural(series.records.size, "window")}, from ${number(drawn[0])} to ${number(drawn[1])}` : "no window yet");
    }
  },

  path() {
    return `#/task/${encodeURIComponent(this.id)}`;
  },

  /** The first moment of what is kept, in milliseconds. */
  from() {
    const info = node.info || { window_seconds: 10, windows_kept: 30 };
    return this.until - info.window_seconds * info.windows_kept * 1000;
  },

  api(part) {
    return `/v1/tasks/${encodeURIComponent(this.id)}${part}`;
  },

  /** Opens a task, or chooses a tab or a series of the one that is open. */
  async open(id, tab, chosen) {
    if (this.id !== id) {
      this.close();
      this.id = id;
      this.search.value = "";
      this.types.clear();
      say(byId("task-name"), id);
      say(byId("task-state"), "");
      byId("task-state").className = "state";
      figures(byId("task-figures"), []);
      byId("task-labels").replaceChildren();
      byId("task-losses").hidden = true;
      byId("series-empty").hidden = true;
      this.known(true);
      document.title = `${id} · tallyport`;
      this.showTab(tab);
      this.show();
      await this.load();
    } else {
      this.showTab(tab);
    }
    if (this.id === id) inspector.show(chosen ? this.series.get(chosen) : null);
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
    if (this.stream) this.stream.close();
    this.stream = null;
  },

  /** Reads everything anew: the task, its newest records, then its windows; then follows it. */
  async load() {
    const turn = (this.turn += 1);
    const still = () => turn === this.turn;
    const answer = await ask(this.api(""));
    if (!still() || !answer) return;
    if (answer.status !== 200) {
      this.unknown(answer.body);
      return;
    }
    this.documentCame(answer.body);
    const newest = await ask(this.api("/metrics"));
    if (!still() || !newest || newest.status !== 200) return;
    this.series.clear();
    this.add(newest.body.metrics);
    this.follow();
    this.lists();
    if (this.series.size <= ALL_AT_ONCE) {
      const all = await ask(this.api("/metrics?window=all"));
      if (!still() || !all || all.status !== 200) return;
      this.add(all.body.metrics);
      for (const series of this.series.values()) series.loaded = true;
    }
    this.showSeries(false);
    this.wantWindows();
  },

  follow() {
    if (this.stream) this.stream.close();
    this.stream = null;
    if (!this.document || this.document.finished) return;
    this.stream = listen(this.api("/watch"), {
      window: (data) => {
        this.add(data.metrics);
        this.showSeries(false);
        this.again();
      },
      gap: () => this.load(),
      finished: () => this.load(),
    });
  },

  add(records) {
    const several = new Set();
    for (const record of records) {
      if (!this.series.has(record.id)) this.series.set(record.id, new Series(record));
      this.series.get(record.id).add(record);
      this.until = Math.max(this.until, record.to);
    }
    for (const [id, series] of this.series) {
      if (series.forget(this.from())) several.add(series.container);
      else this.series.delete(id);
    }
    this.several = several.size > 1;
    if (inspector.shown) inspector.refresh(this.series.get(inspector.shown));
  },

  /** Loads the windows of the series that can be seen, one name after the other. */
  wantWindows() {
    if (this.id === null || this.series.size <= ALL_AT_ONCE) return;
    clearTimeout(this.soon);
    this.soon = setTimeout(async () => {
      const turn = this.turn;
      const names = new Set(this.list.visible().filter((series) => !series.loaded).map((series) => series.name));
      for (const name of names) {
        await this.loadWindows(name);
        if (turn !== this.turn) return;
      }
      if (names.size > 0) this.list.refresh();
    }, 150);
  },

  async loadWindows(name) {
    const turn = this.turn;
    for (const series of this.series.values()) if (series.name === name) series.loaded = true;
    const answer = await ask(this.api(`/metrics?window=all&name=${encodeURIComponent(name)}`));
    // A name can be a pattern, which others fit, too.
    if (turn === this.turn && answer && answer.status === 200) this.add(answer.body.metrics);
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
    keep(byId("panel-containers"), body.containers.map((one) => [one.container_id, one.generation, one.state, one.received, one.series, one.client]), () => containerCards(body.containers));
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
    history.replaceState(null, "", tab === "series" ? this.path() : `${this.path()}/${tab}`);
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
    if (this.document) stateInto(byId("task-state"), task.row.state);
    const newer = this.document && this.row && (task.row.received !== this.row.received || task.row.state !== this.row.state);
    this.row = task.row;
    figures(byId("task-figures"), [
      ["Values", rate(task.rate("values")), "/s"],
      ["Datagrams", rate(task.rate("received")), "/s"],
      ["Series", number(task.row.series)],
      ["Last datagram", ago(task.age()), task.row.last_datagram ? "ago" : ""],
      ["Dropped", number(task.lost()), null, task.lost() > 0 ? "bad" : ""],
      ["Rejected lines", number(task.row.rejected), null, task.row.rejected > 0 ? "warn" : ""],
      ["Received", number(task.row.received), "datagrams"],
    ]);
    if (newer) this.again();
  },

  showSeries(asked) {
    const all = [...this.series.values()];
    const words = this.search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const wanted = all.filter((series) => (this.types.size === 0 || this.types.has(series.type)) && words.every((word) => series.text.includes(word)));
    if (!asked && this.list.busy()) {
      const place = new Map(this.list.items.map((series, index) => [series.id, index]));
      wanted.sort((a, b) => (place.get(a.id) ?? Infinity) - (place.get(b.id) ?? Infinity) || 0);
    } else {
      this.sorting.sort(wanted);
    }
    this.chips(all);
    this.count("series", all.length);
    say(byId("series-count"), wanted.length === all.length ? plural(all.length, "series", "series") : `${number(wanted.length)} of ${plural(all.length, "series", "series")}`);
    byId("series-table").hidden = wanted.length === 0;
    this.empty(wanted.length === 0, all.length);
    this.list.show(wanted);
    if (asked) this.wantWindows();
  },

  chips(all) {
    const counts = new Map();
    for (const { type } of all) counts.set(type, (counts.get(type) || 0) + 1);
    keep(byId("series-types"), [[...counts], [...this.types]], () => [...counts].sort().map(([type, count]) => el("button", {
      type: "button",
      "aria-pressed": String(this.types.has(type)),
      click: () => {
        if (!this.types.delete(type)) this.types.add(type);
        this.showSeries(true);
      },
    }, `${type} ${NARROW}${number(count)}`)));
  },

  empty(is, total) {
    const box = byId("series-empty");
    box.hidden = !is;
    if (!is) return;
    if (total > 0) {
      box.replaceChildren(el("h2", {}, "No series fits"), el("p", {}, "Search looks at names and at tags as key:value. Esc empties it."));
      return;
    }
    const at = this.document && this.document.containers.find((one) => one.statsd_host);
    const address = at ? `STATSD_UDP_HOST=${at.statsd_host} STATSD_UDP_PORT=${at.statsd_port}` : "";
    box.replaceChildren(
      el("h2", {}, "Nothing has been kept of this task"),
      address ? el("p", {}, "Its container was given ", el("code", {}, address), ". Does the application's client read these?") : "",
      el("p", {}, "How far its metrics come:"),
      el("pre", {}, `tallyport explain ${shell(this.id)}`),
    );
  },

  /** There is no such task, at least not now. */
  unknown(error) {
    this.document = null;
    this.missing = true;
    this.series.clear();
    inspector.show(null);
    this.known(false);
    this.showTab("series");
    byId("series-table").hidden = true;
    figures(byId("task-figures"), []);
    const box = byId("series-empty");
    const nearest = (error && error.nearest) || [];
    box.hidden = false;
    box.replaceChildren(
      el("h2", {}, "No such task on this node"),
      el("p", {}, "It may run on another node, or have ended so long ago that it is forgotten (containers.tombstone)."),
      nearest.length ? el("p", {}, "Did you mean ", nearest.flatMap((id, index) => [index ? ", " : "", el("a", { href: `#/task/${encodeURIComponent(id)}` }, id)]), "?") : "",
    );
  },
};
