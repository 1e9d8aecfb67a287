// The expression that reads in Prometheus what is in view. The agent writes it, because it knows the names and labels on
// `/metrics/tasks`; what is copied is the text that is shown.

/** How long an expression stands before it is asked for again, in milliseconds: series with further tags change it. */
const EXPRESSION_STANDS = 60_000;

class Expression {
  constructor() {
    this.element = el("section", { class: "promql", "aria-label": "In Prometheus" });
    this.asked = "";
    this.found = false;
  }

  /** What the agent is asked for a series in a mode of the chart. */
  query(series, mode) {
    const query = new URLSearchParams({ name: nameFilter(series.name), series: series.id });
    if (mode === "containers") query.set("compare", "");
    if (mode === "sum") query.set("by", address.list("keep").join(","));
    if (isDistribution(series.type)) query.set("stat", taskView.stat);
    return query.toString();
  }

  /** Asks for the expression if something else is in view than before. A name that is missing may come with a window. */
  async show(series, mode) {
    const query = this.query(series, mode);
    const stands = this.found ? Math.floor(Date.now() / EXPRESSION_STANDS) : taskView.until;
    const asked = `${query} ${stands}`;
    if (this.asked === asked) return;
    this.asked = asked;
    const answer = await ask(taskView.api(`/names?${query}`));
    // Of two answers, the one to the last question counts.
    if (this.asked !== asked || !answer || answer.status !== 200) return;
    const [name] = answer.body.names;
    this.found = Boolean(name);
    keep(this.element, [name || null, series.type], () => (name ? this.parts(name) : [el("p", {}, this.why(series))]));
  }

  parts({ scraped, promql, reads, notes }) {
    const text = el("code", {}, promql);
    return [
      el("header", {}, el("span", { class: "label" }, "In Prometheus"), el("code", {}, scraped), copyButton("Copy PromQL", () => text.textContent)),
      el("pre", { tabindex: "0", "aria-label": `PromQL, reads ${reads}` }, text),
      ...(notes || []).map((note) => el("p", {}, note)),
    ];
  }

  why({ type }) {
    if (type === "service_check") return "Service checks are not on /metrics/tasks.";
    return "Not on /metrics/tasks: a metric is there from the end of its first window on, a gauge for as long as it is carried.";
  }
}
