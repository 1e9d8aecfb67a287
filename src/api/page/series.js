// A series: its kept windows, and the statistics that a window can be shown by.

const STATUSES = ["ok", "warning", "critical", "unknown"];
/** Statistics of timers, histograms and distributions that can be chosen. */
const STATISTICS = ["mean", "p50", "p95", "p99", "max"];
/** What the one number of a window is, by type. */
const HEADLINES = { counter: "sum", gauge: "level", set: "members", service_check: "status" };

function isDistribution(type) {
  return type === "timer" || type === "histogram" || type === "distribution";
}

/** A filter for a name. The agent takes filters of 1024 bytes; a longer name is asked for by its start. */
function nameFilter(name) {
  const encoder = new TextEncoder();
  if (encoder.encode(name).length <= 1024) return name;
  const { read } = encoder.encodeInto(name, new Uint8Array(1000));
  return `${name.slice(0, read)}*`;
}

/** Whether records of several series of this type can be added up without an error. */
function canBeAdded(type) {
  return type !== "gauge" && type !== "service_check";
}

/** One series of one container, and its records by the start of their windows. */
class Series {
  constructor(record) {
    Object.assign(this, { id: record.id, name: record.name, type: record.type, unit: record.unit, tags: Object.entries(record.tags) });
    this.container = record.origin.container_id;
    this.records = new Map();
    this.loaded = false;
    this.label = this.tags.map(tagText).join("  ");
    this.text = `${this.name}\n${this.tags.map(tagText).join("\n")}`.toLowerCase();
    this.order = `${this.text}\n${this.container}`;
    // The same for every container.
    this.identity = JSON.stringify([this.name, this.type, this.tags]);
  }

  add(record) {
    const known = this.records.get(record.start);
    // A closed record replaces an open one, and a later revision an earlier one.
    if (known && !known.open && (record.open || known.rev > record.rev)) return;
    this.records.set(record.start, shortened(record));
    this.sorted = null;
  }

  history() {
    if (!this.sorted) this.sorted = [...this.records.values()].sort((a, b) => a.from - b.from);
    return this.sorted;
  }

  newest() {
    const history = this.history();
    return history[history.length - 1];
  }

  /** Forgets windows that ended before this, and says whether any is left. */
  forget(before) {
    for (const [start, record] of this.records) {
      if (record.to > before) continue;
      this.records.delete(start);
      this.sorted = null;
    }
    return this.records.size > 0;
  }

  /** Forgets all windows but the newest: they are loaded when the series is looked at. */
  forgetOld() {
    if (this.records.size < 2) return;
    const newest = this.newest();
    this.records = new Map([[newest.start, newest]]);
    this.sorted = null;
  }

  age() {
    const { agg, to, open } = this.newest();
    return open ? 0 : agentNow() - (agg.carried && agg.last_at ? seconds(agg.last_at) : to / 1000);
  }

  points(key) {
    return this.history().map((record) => point(record, key));
  }
}

/** What is needed of a record: a page can hold hundreds of thousands. */
function shortened({ start, end, rev, open, partial, seconds, covered, value, agg, type, unit }) {
  return { start, end, rev, open, partial, seconds, covered, value, agg, type, unit, from: milliseconds(start), to: milliseconds(end) };
}

/** A moment in milliseconds. The records of a window have the same two moments, and parsing them is slow. */
function milliseconds(timestamp) {
  let known = milliseconds.known.get(timestamp);
  if (known === undefined) {
    known = Date.parse(timestamp);
    if (milliseconds.known.size > 1000) milliseconds.known.clear();
    milliseconds.known.set(timestamp, known);
  }
  return known;
}
milliseconds.known = new Map();

/** A statistic of a record; null where the record does not have it. */
function statistic(record, key) {
  const value = isDistribution(record.type) && key !== "mean" ? record.agg[key] : record.value;
  return typeof value === "number" ? value : null;
}

/** The name of the statistic that is shown first. */
function headline(type, chosen) {
  return HEADLINES[type] || chosen;
}

/** A value of a record's type as text; a check says its status. */
function valueText(value, type, unit) {
  if (type === "service_check") return STATUSES[value] || NOTHING;
  return withUnit(value, unit);
}

/** What else there is to say about a record, in a few words. */
function detailOf({ type, agg, open, unit }) {
  const parts = [];
  if (open) parts.push("open window");
  if (type === "counter") {
    parts.push(`${rate(agg.rate ?? null)}/s`, `total ${number(agg.total)}`);
  } else if (type === "gauge") {
    if (agg.carried) parts.push("carried");
    if (agg.min !== agg.max) parts.push(`${withUnit(agg.min, unit)} to ${withUnit(agg.max, unit)}`);
  } else if (type === "service_check") {
    if (agg.message) parts.push(agg.message);
  } else if (isDistribution(type)) {
    parts.push(...["p50", "p95", "p99"].map((key) => `${key} ${withUnit(agg[key], unit)}`), `${number(agg.count)} ${agg.count === 1 ? "value" : "values"}`);
  }
  return parts.join(" · ");
}
