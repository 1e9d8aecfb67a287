// What the chart of a series shows: its own statistics, the same series of other containers, or sums over tags.

const MODES = { one: "This series", containers: "Compare containers", sum: "Sum over tags" };

/** The agent's sums of one name and type, by the tags that are kept. */
const sums = {
  key: "",
  records: [],
  failed: false,

  /** Asks for the sums again; `true` if they are still wanted when they have come. */
  async load(series, kept) {
    const key = JSON.stringify([taskView.id, series.name, series.type, kept]);
    if (this.key !== key) Object.assign(this, { key, records: [], failed: false });
    const answer = await ask(taskView.api(`/metrics?window=all&name=${encodeURIComponent(nameFilter(series.name))}&by=${encodeURIComponent(kept.join(","))}`));
    if (this.key !== key || !answer) return false;
    this.failed = answer.status !== 200;
    // A filter is a pattern that other names can match as well.
    const fits = (record) => record.name === series.name && record.type === series.type;
    if (!this.failed) this.records = answer.body.metrics.filter(fits).map((record) => ({ ...shortened(record), tags: Object.entries(record.tags) }));
    return true;
  },
};

/** Series of other containers with the same name, tags and type, this one among them. */
function siblingsOf(series) {
  return [...taskView.series.values()].filter((one) => one.identity === series.identity);
}

/** Keys of tags among all series of the same name and type, with the number of their values. */
function tagKeysOf(series) {
  const values = new Map();
  for (const one of taskView.series.values()) {
    if (one.name !== series.name || one.type !== series.type) continue;
    for (const [key, value] of one.tags) {
      if (!values.has(key)) values.set(key, new Set());
      values.get(key).add(value);
    }
  }
  return [...values].map(([key, set]) => [key, set.size]).sort();
}

/** The mode that is chosen in the address, if the series has it. */
function modeOf(series) {
  const mode = address.option("view");
  if (mode === "containers" && siblingsOf(series).length > 1) return mode;
  return mode === "sum" && canBeAdded(series.type) ? mode : "one";
}

/**
 * The rows of the chart and of the table: {label, records, key, tags, container}. `records` are windows in order, `key` is the
 * statistic that is drawn.
 */
function rowsOf(series, mode) {
  const distribution = isDistribution(series.type);
  const key = headline(series.type, taskView.stat);
  if (mode === "one") {
    const base = { records: series.history(), tags: series.tags, container: series.container };
    if (!distribution) return [{ ...base, label: key, key }];
    const keys = ["p50", "p95", "p99"];
    if (!keys.includes(taskView.stat)) keys.push(taskView.stat);
    return keys.map((name) => ({ ...base, label: name, key: name }));
  }
  const rows = mode === "containers"
    ? siblingsOf(series).map((one) => ({ label: one.container, records: one.history(), tags: one.tags, container: one.container, key }))
    : sumRows(series, key);
  // The largest ones are drawn, in an order that does not change with their values: so a line keeps its colour.
  const byLabel = (a, b) => (a.label < b.label ? -1 : 1);
  const weighed = rows.map((row) => [weightOf(row), row]).sort(([a, x], [b, y]) => b - a || byLabel(x, y)).map(([, row]) => row);
  return [...weighed.slice(0, MOST_LINES).sort(byLabel), ...weighed.slice(MOST_LINES)];
}

/** Tags that the name of a sum lists; of more it says how many. */
const NAMED_TAGS = 3;

/** What is added up: the tags that are not kept, and containers. */
function sumName(series) {
  const kept = address.list("keep");
  const keys = tagKeysOf(series).map(([key]) => key).filter((key) => !kept.includes(key));
  const containers = new Set([...taskView.series.values()].filter((one) => one.name === series.name && one.type === series.type).map((one) => one.container)).size;
  const short = (key) => (key.length > 40 ? `${key.slice(0, 39)}…` : key);
  const parts = keys.length > NAMED_TAGS ? [plural(keys.length, "tag")] : keys.map(short);
  if (containers > 1) parts.push(plural(containers, "container"));
  return parts.length > 0 ? `sum over ${parts.join(", ")}` : "sum of one series";
}

function sumRows(series, key) {
  const rows = new Map();
  for (const record of sums.records) {
    const label = record.tags.map(tagText).join("  ") || sumName(series);
    if (!rows.has(label)) rows.set(label, { label, records: [], tags: record.tags, container: "", key });
    rows.get(label).records.push(record);
  }
  for (const row of rows.values()) row.records.sort((a, b) => a.from - b.from);
  return [...rows.values()];
}

/** How large a row is over the kept windows: the largest are shown. */
function weightOf({ records, key }) {
  return records.reduce((sum, record) => sum + Math.abs(statistic(record, key) || 0), 0);
}

/** The rows as lines of the chart. */
function linesOf(rows, type) {
  const shape = { bars: "bars", steps: "steps", band: "line" }[shapeOf(type)];
  return rows.slice(0, MOST_LINES).map((row) => ({
    label: row.label,
    shape: rows.length > 1 && shape === "bars" ? "line" : shape,
    points: row.records.map((record) => ({ from: record.from, to: record.to, value: statistic(record, row.key) })),
  }));
}

/** What the chart does not show, and why. */
function notesOn(series, mode, rows) {
  const notes = [];
  if (rows.length > MOST_LINES) notes.push(`The ${MOST_LINES} largest of ${number(rows.length)} lines are shown. The exports have all of them.`);
  if (mode === "sum" && !sums.failed && rows.some((row) => row.tags.length > 0)) notes.push(`Each line is a ${sumName(series)}.`);
  if (mode === "sum" && sums.failed) notes.push("The agent could not add up these series.");
  if (mode === "sum" && !sums.failed && series.type === "set") notes.push("Members are counted once, however many containers or series report them.");
  if (mode === "sum" && !sums.failed && isDistribution(series.type)) notes.push("Percentiles are those of the merged distributions, not averages of percentiles.");
  return notes;
}

/** Why the sum over tags is not offered for a type. */
function whyNoSum(type) {
  if (type === "gauge") return "Gauges are levels: adding them up would count levels that are not of the same moment.";
  return type === "service_check" ? "The outcomes of service checks have no sum." : "";
}
