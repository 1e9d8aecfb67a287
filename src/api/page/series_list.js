// The list of a task's series: its rows, its filters, and what stands there when it is empty.

Object.assign(taskView, {
  make() {
    const cell = (kind, ...children) => el("div", { role: "cell", class: kind }, ...children);
    const row = el("div", { class: "row", role: "row" }, cell("name", el("a"), el("span", { class: "sub" })), cell("type"),
      cell("trend", emptyPlot()), cell("value", el("small", { class: "stat" }), el("span"), el("span", { class: "sub" })), cell("num age"));
    row.svg = row.querySelector("svg");
    return row;
  },

  fill(row, series) {
    const [name, type, , value, age] = row.children;
    const newest = series.newest();
    const [link, sub] = name.children;
    say(link, series.name);
    if (link.title !== series.name) link.title = series.name;
    const target = address.of({ task: this.id, tab: "series", series: series.id });
    if (link.getAttribute("href") !== target) link.setAttribute("href", target);
    say(sub, this.several ? `${series.container}  ${series.label}` : series.label);
    say(type, series.type);
    const stat = headline(series.type, this.stat);
    const shown = statistic(newest, stat);
    const [statCell, number_, detail] = value.children;
    say(statCell, `${stat} `);
    say(number_, valueText(shown, series.type, series.unit));
    number_.className = series.type === "service_check" ? { 0: "", 1: "warn", 2: "bad" }[shown] || "" : "";
    say(detail, detailOf(newest));
    say(age, newest.open ? "now" : `${ago(series.age())} ago`);
    row.classList.toggle("chosen", inspector.shown === series.id);
    // Drawing is what costs; nothing new, nothing to draw.
    const stamp = `${series.id} ${this.until} ${series.records.size} ${newest.rev} ${newest.value} ${this.stat}`;
    if (row.stamp !== stamp) {
      row.stamp = stamp;
      const drawn = draw(row.svg, series.points(stat), shapeOf(series.type), this.from(), this.until);
      row.svg.setAttribute("aria-label", drawn ? `${plural(series.records.size, "window")}, from ${number(drawn[0])} to ${number(drawn[1])}` : "no window yet");
    }
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
    this.statistics(all);
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
        address.set({ type: [...this.types].join(",") });
        this.showSeries(true);
      },
    }, `${type} ${NARROW}${number(count)}`)));
  },

  /** The choice of what timers, histograms and distributions are shown and sorted by. */
  statistics(all) {
    const any = all.some(({ type }) => isDistribution(type));
    byId("series-stats").hidden = !any;
    keep(byId("series-stats"), [this.stat, any], () => [el("span", { class: "label" }, "Timers show"), ...statisticChips()]);
  },

  empty(is, total) {
    const box = byId("series-empty");
    box.hidden = !is;
    if (!is) return;
    if (total > 0) {
      box.replaceChildren(el("h2", {}, "No series fits"), el("p", {}, "Search looks at names and at tags as key:value. Esc empties it."), this.lostHint());
      return;
    }
    const at = this.document && this.document.containers.find((one) => one.statsd_host);
    const address = at ? `STATSD_UDP_HOST=${at.statsd_host} STATSD_UDP_PORT=${at.statsd_port}` : "";
    box.replaceChildren(
      el("h2", {}, "Nothing has been kept of this task"),
      address ? el("p", {}, "Its container was given ", el("code", {}, address), ". Does the application's client read these?") : "",
      el("p", {}, "How far its metrics come:"),
      el("pre", {}, `tallyport explain ${shell(this.id)}`),
      this.lostHint(),
    );
  },

  /** Why a metric can be missing: what of the task was lost, as ways to the reasons. */
  lostHint() {
    const task = node.tasks.get(this.id);
    const sentences = task ? lossSentences(task.problems()) : [];
    if (sentences.length === 0) return "";
    const way = (text) => el("button", { type: "button", class: "way", click: () => this.showLosses() }, text);
    return el("div", {}, el("p", {}, "A metric can be missing because of lost data:"), el("ul", {}, sentences.map((text) => el("li", {}, way(text)))));
  },

  /** Leads to the reasons of what was lost, with the rejected lines. */
  showLosses() {
    const box = byId("task-losses");
    this.unfolded = this.id;
    box.classList.remove("dismissed");
    byId("rejected-lines").open = true;
    box.scrollIntoView({ block: "start" });
    box.querySelector("h2").focus({ preventScroll: true });
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
});
