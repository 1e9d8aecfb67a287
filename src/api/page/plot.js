// Small plots: bars for what is counted, steps for levels, a line with a band up to the p99 for what is distributed. A
// missing window stays empty.

const SVG = "http://www.w3.org/2000/svg";
const WIDE = 300;
const HIGH = 100;

function svgElement(name, attributes, ...children) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function emptyPlot() {
  return svgElement("svg", { class: "plot", viewBox: `0 0 ${WIDE} ${HIGH}`, preserveAspectRatio: "none", role: "img" },
    ...["shape", "bars", "trace"].map((name) => svgElement("path", { class: name })));
}

function put(svg, name, d) {
  const path = svg.querySelector(`.${name}`);
  if (path.getAttribute("d") !== d) path.setAttribute("d", d);
}

function shapeOf(type) {
  if (type === "counter" || type === "set") return "bars";
  if (type === "gauge" || type === "service_check") return "steps";
  return "band";
}

/** What a record is drawn as: a statistic, and how far the band goes. */
function point(record, key) {
  const value = statistic(record, key);
  return { from: record.from, to: record.to, value, top: record.agg.p99 ?? value };
}

/** The range that is drawn. Counts start at zero; levels use the whole height. */
function range(points, shape) {
  let low = Infinity;
  let high = -Infinity;
  for (const { value, top } of points) {
    low = Math.min(low, value, shape === "band" ? top : value);
    high = Math.max(high, value, shape === "band" ? top : value);
  }
  if (shape === "bars" || (low > 0 && low < high / 3)) low = Math.min(0, low);
  if (shape === "bars") high = Math.max(0, high);
  if (!(high > low)) return low === 0 ? [0, 1] : shape === "bars" ? [low, high] : [low - 1, high + 1];
  return [low, high];
}

/** Draws points between two moments in milliseconds, and gives the range of values. */
function draw(svg, points, shape, from, to) {
  const known = points.filter((one) => typeof one.value === "number" && one.to > from && one.from < to);
  const [low, high] = range(known, shape);
  const x = (moment) => Number((((moment - from) / (to - from)) * WIDE).toFixed(1));
  const y = (value) => Number((HIGH - 4 - ((value - low) / (high - low)) * (HIGH - 8)).toFixed(1));
  const middle = (one) => x((one.from + one.to) / 2);
  let bars = "";
  let trace = "";
  let shapes = "";
  for (const run of runsOf(known)) {
    if (shape === "bars") {
      for (const one of run) {
        const gap = Math.min(1, (x(one.to) - x(one.from)) / 5);
        bars += `M${x(one.from) + gap} ${HIGH - 4}V${Math.min(y(one.value), HIGH - 5)}H${x(one.to) - gap}V${HIGH - 4}Z`;
      }
    } else if (shape === "steps") {
      trace += `M${run.map((one) => `${x(one.from)} ${y(one.value)}H${x(one.to)}`).join("L")}`;
    } else {
      const line = run.map((one) => `${middle(one)} ${y(one.value)}`);
      trace += `M${line.join("L")}${run.length === 1 ? "h0.1" : ""}`;
      shapes += `M${run.map((one) => `${middle(one)} ${y(one.top)}`).join("L")}L${line.reverse().join("L")}Z`;
    }
  }
  put(svg, "shape", shapes);
  put(svg, "bars", bars);
  put(svg, "trace", trace);
  return known.length > 0 ? [low, high] : null;
}

/** Points in runs of windows that follow each other without a gap. */
function runsOf(points) {
  const runs = [];
  let before = null;
  for (const one of points) {
    if (before !== null && one.from - before.to < 1) runs[runs.length - 1].push(one);
    else runs.push([one]);
    before = one;
  }
  return runs;
}

/** A line from zero through values at moments, between two moments in seconds. */
function spark(svg, points, from, to) {
  const shown = points.filter((one) => one.at >= from);
  const high = Math.max(1e-9, ...shown.map((one) => one.value));
  const x = (at) => (((at - from) / (to - from)) * WIDE).toFixed(1);
  const line = shown.map(({ at, value }) => `${x(at)} ${(HIGH - 6 - (value / high) * (HIGH - 26)).toFixed(1)}`).join("L");
  put(svg, "trace", shown.length > 1 ? `M${line}` : "");
  put(svg, "shape", shown.length > 1 ? `M${x(shown[0].at)} ${HIGH - 6}L${line}V${HIGH - 6}Z` : "");
}
