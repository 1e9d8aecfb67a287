// A series: its kept windows, and what is said of the newest.

const STATUSES = ["ok", "warning", "critical", "unknown"];

/** One series of one container, and its records by the start of their windows. */
class Series {
  constructor(record) {
    Object.assign(this, { id: record.id, name: record.name, type: record.type, unit: record.unit, tags: Object.entries(record.tags) });
    this.container = record.origin.container_id;
    this.records = new Map();
    this.loaded = false;
    this.text = `${this.name}\n${this.tags.map(tagText).join("\n")}`.toLowerCase();
  }

  add(record) {
    const known = this.records.get(record.start);
    // A closed record goes before an open one, and its last revision before the others.
    if (known && !known.open && (record.open || known.rev > record.rev)) return;
    record.from = Date.parse(record.start);
    record.to = Date.parse(record.end);
    this.records.set(record.start, record);
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

  /** Forgets what the agent no longer keeps. */
  forget(before) {
    for (const [start, record] of this.records) {
      if (record.to > before) continue;
      this.records.delete(start);
      this.sorted = null;
    }
    return this.records.size > 0;
  }

  age() {
    const { agg, to, open } = this.newest();
    return open ? 0 : agentNow() - (agg.carried && agg.last_at ? seconds(agg.last_at) : to / 1000);
  }

  points() {
    return this.history().map(point);
  }
}

/** The number for people, with its unit; a check says its status. */
function valueOf(record) {
  if (record.type === "service_check") return STATUSES[record.value] || NOTHING;
  return withUnit(record.value, record.unit);
}

/** What else there is to say about a record, in a few words. */
function detailOf({ type, agg, open, unit }) {
  const parts = [];
  if (open) parts.push("open window");
  if (type === "counter") {
    parts.push(`${rate(agg.rate ?? null)}/s`, `total ${number(agg.total)}`);
  } else if (type === "gauge") {
    if (agg.carried) parts.push("carried");
    if (agg.min !== agg.max) parts.push(`${number(agg.min)} to ${withUnit(agg.max, unit)}`);
  } else if (type === "set") {
    parts.push("members");
  } else if (type === "service_check") {
    if (agg.message) parts.push(agg.message);
  } else {
    parts.push(`p50 ${number(agg.p50)}`, `p99 ${number(agg.p99)}`, `×${number(agg.count)}`);
  }
  return parts.join(" · ");
}
