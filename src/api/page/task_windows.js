// The windows of a task's series: loaded, followed as they close, and forgotten.

/** Tasks of more series load the windows of those that are looked at. */
const ALL_AT_ONCE = 400;
/** Records that are taken without a pause. */
const PART = 1000;

Object.assign(taskView, {
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
      window: (data) => this.windowCame(data.metrics),
      gap: () => this.load(),
      finished: () => this.load(),
    });
  },

  /** Takes the records of a closed window, in parts, so that the page stays responsive. */
  async windowCame(records) {
    const turn = this.turn;
    for (let first = 0; first < records.length; first += PART) {
      if (first > 0) await new Promise((next) => setTimeout(next));
      if (turn !== this.turn) return;
      this.addRecords(records.slice(first, first + PART));
    }
    this.tidy();
    this.showSeries(false);
    this.again();
  },

  add(records) {
    this.addRecords(records);
    this.tidy();
  },

  addRecords(records) {
    for (const record of records) {
      if (!this.series.has(record.id)) this.series.set(record.id, new Series(record));
      this.series.get(record.id).add(record);
      this.until = Math.max(this.until, milliseconds(record.end));
    }
  },

  /** Forgets what the agent no longer keeps, and shows the rest. */
  tidy() {
    const containers = new Set();
    const many = this.series.size > ALL_AT_ONCE;
    for (const [id, series] of this.series) {
      if (many && !series.loaded) series.forgetOld();
      if (series.forget(this.from())) containers.add(series.container);
      else this.series.delete(id);
    }
    this.several = containers.size > 1;
    if (inspector.shown) inspector.refresh(this.series.get(inspector.shown));
  },

  /** Loads the windows of the series that can be seen, one request after the other. */
  wantWindows() {
    if (this.id === null || this.series.size <= ALL_AT_ONCE) return;
    clearTimeout(this.soon);
    this.soon = setTimeout(async () => {
      const turn = this.turn;
      let any = false;
      for (const series of this.list.visible()) {
        if (series.loaded) continue;
        any = true;
        await this.loadWindows(series);
        if (turn !== this.turn) return;
      }
      if (any) this.list.refresh();
    }, 150);
  },

  /** Loads the windows of all series of a name, or of one series if the name has many. */
  async loadWindows(series) {
    const turn = this.turn;
    const same = [...this.series.values()].filter((one) => one.name === series.name);
    const filters = [["window", "all"], ["name", nameFilter(series.name)]];
    if (same.length > 40) {
      filters.push(["container", series.container]);
      // The agent takes 32 filters of 1024 bytes.
      const tags = series.tags.map(([key, value]) => `${key}:${value}`).filter((tag) => new Blob([tag]).size <= 1024 && !/[:=]/.test(tag.split(":")[0]));
      filters.push(...tags.slice(0, 28).map((tag) => ["tag", tag]));
    }
    const wanted = same.length > 40 ? [series] : same;
    for (const one of wanted) one.loaded = true;
    const answer = await ask(this.api(`/metrics?${new URLSearchParams(filters)}`));
    // The filter is a pattern, so records of other names can come as well.
    if (turn !== this.turn) return;
    if (answer && answer.status === 200) this.add(answer.body.metrics);
    else for (const one of wanted) one.loaded = false;
  },
});
