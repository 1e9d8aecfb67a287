// The large plot: up to eight lines with axes and a legend, for the pointer and for the arrow keys.

/** Lines that one chart shows; more could not be told apart. */
const MOST_LINES = 8;
const CHART = { left: 58, right: 10, top: 22, bottom: 22 };
const TIME_STEPS = [1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21600, 43200, 86400];

/** A round number near a quarter of a range, so that ticks are easy to read. */
function roundStep(size) {
  const power = 10 ** Math.floor(Math.log10(size));
  return [1, 2, 2.5, 5, 10].find((factor) => factor * power >= size * 0.999) * power;
}

class Chart {
  constructor() {
    this.svg = svgElement("svg", { class: "chart", role: "img", tabindex: "0" });
    this.moment = el("span", { class: "moment" });
    this.legend = el("ul", { class: "legend" });
    this.element = el("figure", {}, el("figcaption", {}, this.legend, this.moment), this.svg);
    this.pointed = null;
    this.svg.addEventListener("pointermove", (event) => this.pointAt(event));
    this.svg.addEventListener("pointerleave", () => this.point(null));
    this.svg.addEventListener("blur", () => this.point(null));
    this.svg.addEventListener("keydown", (event) => this.pressed(event));
    new ResizeObserver(() => this.draw()).observe(this.element);
  }

  /** Shows lines: {label, shape, points: [{from, to, value}]}, what the axis of values measures, and how a value is written. */
  show({ lines, axis, from, to, unit, text }) {
    Object.assign(this, { lines, axis, from, to, unit, text });
    this.draw();
  }

  draw() {
    if (!this.lines || this.element.offsetParent === null) return;
    const wide = Math.max(240, this.element.clientWidth);
    const high = Math.round(Math.min(320, Math.max(170, wide * 0.42)));
    Object.assign(this, { wide, high });
    this.svg.setAttribute("viewBox", `0 0 ${wide} ${high}`);
    this.svg.setAttribute("height", high);
    const known = this.lines.flatMap((line) => line.points).filter((one) => typeof one.value === "number" && one.to > this.from);
    const values = known.map((one) => ({ value: one.value, top: one.value }));
    const bars = this.lines.length === 1 && this.lines[0].shape === "bars";
    const [low, high2] = range(values, this.lines.some((line) => line.shape === "bars") ? "bars" : "steps");
    Object.assign(this, { low, top: high2 });
    this.rule = svgElement("path", { class: "here" });
    const lines = this.lines.map((line, index) => svgElement("path", { class: `${bars ? "bars" : "line"} s${index}`, d: this.path(line, bars) }));
    this.svg.replaceChildren(...this.valueAxis(known.length > 0), ...this.timeAxis(), this.title(), ...lines, this.rule);
    this.showLegend();
  }

  x(moment) {
    return Number((CHART.left + ((moment - this.from) / (this.to - this.from)) * (this.wide - CHART.left - CHART.right)).toFixed(1));
  }

  y(value) {
    const height = this.high - CHART.top - CHART.bottom;
    return Number((CHART.top + height - ((value - this.low) / (this.top - this.low)) * height).toFixed(1));
  }

  path(line, bars) {
    const points = line.points.filter((one) => typeof one.value === "number" && one.to > this.from);
    const x = (moment) => Math.max(CHART.left, this.x(moment));
    if (bars) {
      const zero = this.y(0);
      return points.map((one) => `M${x(one.from) + 0.5} ${zero}V${one.value === 0 ? zero - 1 : this.y(one.value)}H${x(one.to) - 0.5}V${zero}Z`).join("");
    }
    return runsOf(points).map((run) => {
      if (line.shape === "steps") return `M${run.map((one) => `${x(one.from)} ${this.y(one.value)}H${x(one.to)}`).join("L")}`;
      return `M${run.map((one) => `${x((one.from + one.to) / 2)} ${this.y(one.value)}`).join("L")}${run.length === 1 ? "h0.1" : ""}`;
    }).join("");
  }

  title() {
    return svgElement("text", { class: "axis", x: 0, y: 11 }, this.axis);
  }

  valueAxis(any) {
    if (!any) return [svgElement("text", { x: this.wide / 2, y: this.high / 2, "text-anchor": "middle" }, "No data in the kept windows")];
    const ticks = [];
    const step = roundStep((this.top - this.low) / 4);
    for (let value = Math.ceil(this.low / step) * step; value <= this.top + step * 1e-6; value += step) ticks.push(Math.abs(value) < step * 1e-6 ? 0 : value);
    return ticks.flatMap((value) => [
      svgElement("path", { class: "grid", d: `M${CHART.left} ${this.y(value)}H${this.wide - CHART.right}` }),
      svgElement("text", { x: CHART.left - 6, y: this.y(value) + 4, "text-anchor": "end" }, this.text(value)),
    ]);
  }

  timeAxis() {
    const span = (this.to - this.from) / 1000;
    const room = Math.max(2, Math.floor((this.wide - CHART.left) / 90));
    const step = (TIME_STEPS.find((size) => span / size <= room) || 86400) * 1000;
    const ticks = [];
    for (let at = Math.ceil(this.from / step) * step; at <= this.to; at += step) ticks.push(at);
    return ticks.map((at) => svgElement("text", { x: Math.min(this.x(at), this.wide - 28), y: this.high - 5, "text-anchor": "middle" }, clock.format(new Date(at))));
  }

  /** The legend, with the values of the window that is pointed at, otherwise of the newest. */
  showLegend() {
    const windows = this.lines.flatMap((line) => line.points);
    const at = this.pointed ?? windows.reduce((newest, one) => Math.max(newest, (one.from + one.to) / 2), -Infinity);
    const found = windows.find((one) => one.from <= at && at < one.to);
    const items = this.lines.map((line) => {
      const there = line.points.find((one) => one.from <= at && at < one.to);
      return [line.label, there ? this.text(there.value) : NOTHING];
    });
    keep(this.legend, [items, this.unit], () => items.map(([label, value], index) => el("li", {},
      svgElement("svg", { class: "swatch", viewBox: "0 0 18 8", "aria-hidden": "true" }, svgElement("path", { class: `line s${index}`, d: "M0 4H18" })),
      el("bdi", { title: label }, label), el("strong", {}, value))));
    const name = this.pointed === null ? "Newest window" : "Window";
    say(this.moment, found ? `${name} ${clock.format(new Date(found.from))} to ${clock.format(new Date(found.to))}` : "");
    this.svg.setAttribute("aria-label", `${items.map(([label, value]) => `${label} ${value}`).join(", ")}. ${this.moment.textContent}. Arrow keys move between windows; the table below has all of them.`);
    const middle = found && this.pointed !== null ? this.x((found.from + found.to) / 2) : null;
    this.rule.setAttribute("d", middle === null ? "" : `M${middle} ${CHART.top}V${this.high - CHART.bottom}`);
  }

  point(moment) {
    this.pointed = moment;
    if (this.lines) this.showLegend();
  }

  pointAt(event) {
    const box = this.svg.getBoundingClientRect();
    const share = (event.clientX - box.left - CHART.left) / (box.width - CHART.left - CHART.right);
    if (share >= 0 && share <= 1) this.point(this.from + share * (this.to - this.from));
  }

  pressed(event) {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step) return;
    event.preventDefault();
    event.stopPropagation();
    const windows = [...new Set(this.lines.flatMap((line) => line.points).map((one) => (one.from + one.to) / 2))].sort((a, b) => a - b);
    const at = windows.findIndex((middle) => middle >= (this.pointed ?? Infinity));
    const next = at < 0 ? windows.length - 1 : Math.max(0, Math.min(windows.length - 1, at + step));
    if (windows.length > 0) this.point(windows[next]);
  }
}
