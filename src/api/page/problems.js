// Which tasks have problems, and which of them were dismissed in this tab.

/** How long a container may send nothing before its task counts as silent, in windows. */
const SILENT_AFTER = 6;

/** Counts of a task's row that are problems when they grow. */
const PROBLEM_COUNTS = ["kernel_drops", "dropped", "folded", "rejected"];

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

  /** What a task's counts have grown by since they were dismissed. Counts that went back belong to other containers. */
  counts(row) {
    const before = this.dismissed[row.task_id];
    const valid = before && before.started === (node.info && node.info.started) && PROBLEM_COUNTS.every((name) => before[name] <= row[name]);
    return Object.fromEntries(PROBLEM_COUNTS.map((name) => [name, row[name] - (valid ? before[name] : 0)]));
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
    return Object.values(this.counts(row)).some((count) => count > 0) || (state !== "" && !(before && before.state === state));
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
