// Which tasks have problems, and which of them were dismissed in this tab. Counts are those of the containers' whole lives; what is new
// among them decides whether a task is listed and whether a count stands out.

/** Since when counts count: an agent that is stopped and started again begins anew, and one that takes over goes on. */
const COUNTED_SINCE = "since the containers or the agent started";

/** How long a container may send nothing before its task counts as silent, in windows. */
const SILENT_AFTER = 6;

/** Counts of a task's row that are problems when they grow. */
const PROBLEM_COUNTS = ["kernel_drops", "dropped", "folded", "rejected"];

/** What was dropped, folded and rejected, by a count of each name. */
function sumsOf(count) {
  return { lost: count("kernel_drops") + count("dropped"), folded: count("folded"), rejected: count("rejected") };
}

/** Counts in words, such as "3 dropped, 12 lines rejected"; empty if there are none. */
function countsText({ lost, folded, rejected }) {
  const parts = [[lost, `${full(lost)} dropped`], [folded, `${full(folded)} folded`], [rejected, `${plural(rejected, "line")} rejected`]];
  return parts.filter(([count]) => count > 0).map(([, text]) => text).join(", ");
}

/** The same as sentences about a task. */
function lossSentences({ lost, folded, rejected }) {
  const sentence = (count, what, one, many) => (count > 0 ? [`${plural(count, one, many)} of this task ${count === 1 ? "was" : "were"} ${what}`] : []);
  return [...sentence(rejected, "rejected", "line"), ...sentence(lost, "dropped", "value or datagram", "values or datagrams"),
    ...sentence(folded, "folded into tallyport.overflow", "value")];
}

const problems = {
  KEY: "tallyport-dismissed",
  dismissed: {},

  start() {
    try {
      this.dismissed = JSON.parse(sessionStorage.getItem(this.KEY)) || {};
    } catch {
      // A browser that keeps nothing starts with none.
    }
  },

  /** What was noted when a task was dismissed. Counts that went back belong to other containers. */
  noted(row) {
    const before = this.dismissed[row.task_id];
    return before && before.started === (node.info && node.info.started) && PROBLEM_COUNTS.every((name) => before[name] <= row[name]) ? before : null;
  },

  /** How much of a task's counts is new: what came since they were dismissed, otherwise all of them if any came in the kept windows. */
  fresh(row) {
    const before = this.noted(row);
    const recent = node.info && row.last_problem && agentNow() - seconds(row.last_problem) <= node.info.window_seconds * node.info.windows_kept;
    return sumsOf((name) => (before ? row[name] - before[name] : recent ? row[name] : 0));
  },

  /** The state that is a problem: `lost`, `mute`, `silent` or none. */
  state(row) {
    if (row.state === "lost" || row.state === "mute") return row.state;
    const since = Math.max(seconds(row.last_datagram) || 0, seconds(row.reserved_at) || 0);
    const window = node.info ? node.info.window_seconds : 10;
    return row.state === "listening" && agentNow() - since > SILENT_AFTER * window ? "silent" : "";
  },

  has(row) {
    const state = this.state(row);
    const before = this.dismissed[row.task_id];
    return Object.values(this.fresh(row)).some((count) => count > 0) || (state !== "" && !(before && before.state === state));
  },

  /** Forgets the problems that these tasks have had until now. */
  dismiss(rows) {
    for (const row of rows) {
      const counts = Object.fromEntries(PROBLEM_COUNTS.map((name) => [name, row[name]]));
      this.dismissed[row.task_id] = { ...counts, state: this.state(row), started: node.info && node.info.started, at: Date.now() };
    }
    this.keep();
  },

  /** Shows again what was dismissed. */
  restore() {
    this.dismissed = {};
    this.keep();
  },

  /** When the problems of a task were dismissed, in milliseconds; null if they were not. */
  at(id) {
    return this.dismissed[id] ? this.dismissed[id].at : null;
  },

  any() {
    return Object.keys(this.dismissed).some((id) => node.tasks.has(id));
  },

  keep() {
    try {
      sessionStorage.setItem(this.KEY, JSON.stringify(this.dismissed));
    } catch {
      // They stay dismissed until the page is loaded again.
    }
  },
};
