// One series at full length: its windows as a plot and as a table, and everything its newest record has.

const inspector = {
  shown: null,

  async show(series) {
    const box = byId("inspector");
    const was = this.shown;
    this.shown = series ? series.id : null;
    document.body.classList.toggle("inspecting", Boolean(series));
    box.hidden = !series;
    if (was !== this.shown) taskView.list.refresh();
    if (!series) return;
    this.svg = emptyPlot();
    this.svg.addEventListener("pointermove", (event) => this.point(event));
    this.svg.addEventListener("pointerleave", () => this.refresh(this.series));
    this.parts = { readout: el("p", { class: "readout" }), span: el("span"), from: el("span"), until: el("span"), facts: el("dl"), body: el("tbody") };
    const close = () => {
      location.hash = taskView.path();
      taskView.list.focusKey(series.id);
    };
    const { readout, span, from, until, facts, body } = this.parts;
    box.replaceChildren(
      el("header", {}, el("h2", { tabindex: "-1" }, series.name), el("button", { type: "button", click: close }, "Close")),
      tagList([...series.tags, ["type", series.type], ["container", series.container]], "Tags"),
      readout,
      el("div", { class: "axis" }, el("span"), span), this.svg, el("div", { class: "axis" }, from, until),
      facts,
      el("table", {}, el("thead", {}, el("tr", {}, ["Window", "Value", "Samples"].map((text) => el("th", { scope: "col", class: text === "Window" ? "" : "num" }, text)))), body),
    );
    box.querySelector("h2").focus({ preventScroll: true });
    this.refresh(series);
    if (!series.loaded) {
      await taskView.loadWindows(series.name);
      if (this.shown === series.id) this.refresh(series);
    }
  },

  refresh(series) {
    if (!series || series.id !== this.shown) return;
    this.series = series;
    const { readout, span, from, until, facts, body } = this.parts;
    const newest = series.newest();
    const drawn = draw(this.svg, series.points(), shapeOf(series.type), taskView.from(), taskView.until);
    put(this.svg, "here", "");
    this.svg.setAttribute("aria-label", `${plural(series.records.size, "kept window")}, also in the table below`);
    say(readout, valueOf(newest));
    say(span, drawn ? `${number(drawn[0])} to ${withUnit(drawn[1], series.unit)}` : "");
    say(from, clock.format(new Date(taskView.from())));
    say(until, clock.format(new Date(taskView.until)));
    facts.replaceChildren(...Object.entries(newest.agg).filter(([, value]) => typeof value !== "boolean").map(([key, value]) => terms([
      key, typeof value === "number" ? number(value) : key === "last_at" || key === "timestamp" ? when(value) : value, typeof value === "number" ? full(value) : null,
    ])));
    body.replaceChildren(...[...series.history()].reverse().map((record) => el("tr", {},
      el("td", {}, when(record.start), record.open ? " open" : record.partial ? " partial" : ""),
      el("td", { class: "num", title: full(record.value) }, valueOf(record)), el("td", { class: "num" }, record.agg.carried ? "carried" : number(record.agg.samples)))));
  },

  point(event) {
    const box = this.svg.getBoundingClientRect();
    const moment = taskView.from() + ((event.clientX - box.left) / box.width) * (taskView.until - taskView.from());
    const record = this.series.history().find((one) => one.from <= moment && moment < one.to);
    if (!record) return;
    const middle = ((record.from + record.to) / 2 - taskView.from()) / (taskView.until - taskView.from());
    put(this.svg, "here", `M${(middle * WIDE).toFixed(1)} 0V${HIGH}`);
    this.parts.readout.replaceChildren(valueOf(record), el("small", {}, `  at ${clock.format(new Date(record.start))}`));
  },
};
