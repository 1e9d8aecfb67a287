// One series in full: its chart, comparisons and sums, its expression for Prometheus, its windows as a table.

const inspector = {
  shown: null,
  series: null,

  async show(series) {
    const box = byId("inspector");
    const was = this.shown;
    this.shown = series ? series.id : null;
    document.body.classList.toggle("inspecting", Boolean(series));
    box.hidden = !series;
    if (was !== this.shown) taskView.list.refresh();
    if (!series) {
      this.series = null;
      return;
    }
    if (was === this.shown && this.series) {
      this.refresh(series);
      return;
    }
    this.build(box, series);
    this.refresh(series);
    box.querySelector("h2").focus({ preventScroll: true });
    if (!series.loaded) {
      await taskView.loadWindows(series);
      if (this.shown === series.id) this.refresh(series);
    }
  },

  build(box, series) {
    const part = (name, attributes) => el(name, attributes || {});
    this.chart = new Chart();
    this.expression = new Expression();
    this.parts = {
      modes: part("div", { class: "chips", role: "group", "aria-label": "What the chart shows" }),
      keys: part("div", { class: "chips keys-kept" }), stats: part("div", { class: "chips", role: "group", "aria-label": "Statistic" }),
      readout: part("p", { class: "readout" }), notes: part("div", { class: "notes" }),
      facts: part("dl"), head: part("tr"), body: part("tbody"),
    };
    const { modes, keys, stats, readout, notes, facts, head, body } = this.parts;
    const close = () => {
      location.hash = address.of({ ...address.place, series: null, tab: "series" });
      taskView.list.focusKey(series.id);
    };
    box.replaceChildren(
      el("header", {}, el("h2", { tabindex: "-1", title: series.name }, series.name), copyButton("Copy link", () => location.href), el("button", { type: "button", class: "chip close", click: close }, "Close")),
      el("ul", { class: "tags", "aria-label": "Type, container and tags" }, pill("type", series.type), pill("container", series.container), series.tags.map((pair) => el("li", {}, tagText(pair)))),
      modes, keys, stats, readout, this.chart.element, notes, this.expression.element, facts,
      el("p", { class: "exports" }, "Export ", exportButtons(() => series.name, () => this.rows().map((row) => ({ name: series.name, type: series.type, unit: series.unit, ...row })).filter(isFirstOfRecords))),
      el("div", { class: "scroll" }, el("table", {}, el("thead", {}, head), body)),
    );
  },

  rows() {
    return rowsOf(this.series, modeOf(this.series));
  },

  refresh(series) {
    if (!series || series.id !== this.shown) return;
    this.series = series;
    const mode = modeOf(series);
    if (mode === "sum") this.loadSums(series);
    const rows = this.rows();
    const newest = series.newest();
    this.controls(series, mode);
    const name = headline(series.type, taskView.stat);
    const value = mode === "one" ? statistic(newest, name) : null;
    this.parts.readout.hidden = mode !== "one";
    keep(this.parts.readout, [name, value, newest.start, newest.open], () => [
      el("span", { class: "stat" }, name), " ", el("strong", { title: full(value) }, valueText(value, series.type, series.unit)),
      el("small", {}, ` ${newest.open ? "open window from" : "window from"} ${clock.format(new Date(newest.from))}`)]);
    this.expression.show(series, mode);
    this.chart.show({ lines: linesOf(rows, series.type), axis: axisOf(series, mode), from: taskView.from(), to: taskView.until, unit: series.unit, text: (value) => valueText(value, series.type, series.unit) });
    keep(this.parts.notes, [...notesOn(series, mode, rows), ...gaugeHints(series)], (notes) => notes.map((note) => el("p", {}, note)));
    this.parts.facts.hidden = mode !== "one";
    this.parts.facts.replaceChildren(...factsOf(newest));
    this.table(series, mode, rows);
  },

  /** Asks for the sums at every new window, and shows them when they have come. */
  async loadSums(series) {
    const kept = address.list("keep");
    const stamp = JSON.stringify([series.id, kept, taskView.until]);
    if (this.asked === stamp) return;
    this.asked = stamp;
    if ((await sums.load(series, kept)) && this.shown === series.id) this.refresh(series);
  },

  controls(series, mode) {
    const { modes, keys, stats } = this.parts;
    const containers = siblingsOf(series).length;
    const possible = { one: true, containers: containers > 1, sum: canBeAdded(series.type) };
    keep(modes, [mode, containers], () => [
      ...Object.entries(MODES).map(([key, text]) => el("button", {
        type: "button", "aria-pressed": String(mode === key), disabled: !possible[key],
        title: key === "sum" ? whyNoSum(series.type) : key === "containers" && containers < 2 ? "No other container of the task has this series." : "",
        click: () => this.choose({ view: key === "one" ? "" : key }),
      }, key === "containers" && containers > 1 ? `${text} ${NARROW}${number(containers)}` : text)),
      canBeAdded(series.type) ? "" : el("span", { class: "why" }, whyNoSum(series.type))]);
    const kept = address.list("keep");
    keys.hidden = mode !== "sum";
    keep(keys, [kept, mode === "sum" ? tagKeysOf(series) : []], ([, all]) => [el("span", { class: "label" }, all.length ? "Keep the tags" : "No tags to keep"), ...all.map(([key, values]) => el("button", {
      type: "button", "aria-pressed": String(kept.includes(key)), title: key,
      click: () => this.choose({ keep: (kept.includes(key) ? kept.filter((one) => one !== key) : [...kept, key]).join(",") }),
    }, `${key} ${NARROW}${number(values)}`))]);
    stats.hidden = !isDistribution(series.type);
    keep(stats, [taskView.stat], () => [el("span", { class: "label" }, "Statistic"), ...statisticChips()]);
  },

  choose(changes) {
    address.set(changes);
    if (address.option("view") === "containers") for (const one of siblingsOf(this.series)) if (!one.loaded) taskView.loadWindows(one).then(() => this.refresh(this.series));
    this.refresh(this.series);
    taskView.showSeries(false);
  },

  /** The windows, the newest first: of one series with all its statistics, of several with one column each. */
  table(series, mode, rows) {
    const { head, body } = this.parts;
    const shown = rows.slice(0, MOST_LINES);
    const columns = mode === "one" ? columnsOf(series.type) : shown.map((row) => [row.label, (record) => valueText(statistic(record, row.key), series.type, series.unit), row]);
    keep(head, columns.map(([name]) => name), () => [el("th", { scope: "col" }, "Window"), ...columns.map(([name]) => el("th", { scope: "col", class: "num", title: name }, el("bdi", {}, name)))]);
    const windows = new Map();
    for (const row of shown) for (const record of row.records) windows.set(record.start, record);
    const found = (row, start) => row.records.find((record) => record.start === start);
    const sorted = [...windows.values()].sort((a, b) => b.from - a.from);
    body.replaceChildren(...sorted.map((window) => el("tr", {}, el("td", {}, when(window.start), window.open ? " open" : window.partial ? " partial" : ""),
      ...columns.map(([, text, row]) => {
        const record = row ? found(row, window.start) : window;
        return el("td", { class: "num" }, record ? text(record) : NOTHING);
      }))));
  },
};

/** Keeps one row of those with the same records: a distribution has a row for each of its statistics. */
function isFirstOfRecords(row, index, rows) {
  return rows.findIndex((one) => one.records === row.records) === index;
}

/** What the value axis measures. */
function axisOf(series, mode) {
  const name = headline(series.type, taskView.stat);
  const what = isDistribution(series.type) && mode === "one" ? "value" : name;
  const unit = series.unit ? `, ${series.unit}` : "";
  return series.type === "counter" ? "sum of each window" : `${what}${unit}`;
}

/** Numbers of a record without the unit of its values. */
const COUNTS = new Set(["samples", "count", "rate", "cardinality", "percentile_error"]);

/** Everything that a record says, as terms. */
function factsOf({ agg, unit }) {
  const text = (key, value) => {
    if (typeof value === "number") return COUNTS.has(key) ? number(value) : withUnit(value, unit);
    return key === "last_at" || key === "timestamp" ? when(value) : value;
  };
  return Object.entries(agg).filter(([, value]) => typeof value !== "boolean")
    .map(([key, value]) => terms([key, text(key, value), typeof value === "number" ? full(value) : null]));
}

/** The columns of the table of one series: a name, and the text of a record. */
function columnsOf(type) {
  const of = (key) => [key, (record) => withUnit(record.agg[key], record.unit)];
  const samples = ["samples", (record) => (record.agg.carried ? "carried" : number(record.agg.samples))];
  if (isDistribution(type)) return [...["p50", "p95", "p99", "mean", "max"].map(of), ["count", (record) => number(record.agg.count)]];
  if (type === "counter") return [["sum", (record) => number(record.value)], ["rate", (record) => `${rate(record.agg.rate ?? null)}/s`], ["total", (record) => number(record.agg.total)], samples];
  if (type === "gauge") return [["level", (record) => withUnit(record.value, record.unit)], of("min"), of("max"), samples];
  return [[HEADLINES[type], (record) => valueText(record.value, type, record.unit)], samples];
}

/** Buttons that choose the statistic of timers, histograms and distributions. */
function statisticChips() {
  return STATISTICS.map((name) => el("button", { type: "button", "aria-pressed": String(taskView.stat === name), click: () => taskView.chooseStatistic(name) }, name));
}
