// Plots of kept windows: bars for what is counted, steps for levels, a trace with a band up to the p99 for what is
// distributed. A window that is missing stays empty.

const SVG = "http://www.w3.org/2000/svg";
const WIDE = 300;
const HIGH = 100;

function emptyPlot() {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", "plot");
  svg.setAttribute("viewBox", `0 0 ${WIDE} ${HIGH}`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("role", "img");
  for (const name of ["shape", "bars", "trace", "here"]) {
    const path = document.createElementNS(SVG, "path");
    path.setAttribute("class", name);
    svg.append(path);
  }
  return svg;
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

/** What a record is drawn as: its value, and how far the band goes. */
function point(record) {
  return {
    from: record.from,
    to: record.to,
    value: record.value,
    top: record.agg && record.agg.p99 !== undefined ? record.agg.p99 : record.value,
  };
}

/** The range that is drawn. Counts start at zero; levels use the room they have. */
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
  let bars = "";
  let trace = "";
  let shapes = "";
  let run = [];
  const endRun = () => {
    if (shape === "band" && run.length > 0) {
      const there = run.map((one) => `${x((one.from + one.to) / 2)} ${y(one.top)}`);
      const back = run.map((one) => `${x((one.from + one.to) / 2)} ${y(one.value)}`).reverse();
      shapes += `M${there.join("L")}L${back.join("L")}Z`;
    }
    run = [];
  };
  let before = null;
  for (const one of known) {
    const together = before !== null && one.from - before.to < 1;
    if (!together) endRun();
    if (shape === "bars") {
      const gap = Math.min(1, (x(one.to) - x(one.from)) / 5);
      const top = Math.min(y(one.value), HIGH - 5);
      bars += `M${x(one.from) + gap} ${HIGH - 4}V${top}H${x(one.to) - gap}V${HIGH - 4}Z`;
    } else if (shape === "steps") {
      trace += `${together ? "L" : "M"}${x(one.from)} ${y(one.value)}H${x(one.to)}`;
    } else {
      const middle = x((one.from + one.to) / 2);
      trace += `${together ? "L" : "M"}${middle} ${y(one.value)}${together ? "" : "h0.1"}`;
    }
    run.push(one);
    before = one;
  }
  endRun();
  put(svg, "shape", shapes);
  put(svg, "bars", bars);
  put(svg, "trace", trace);
  return known.length > 0 ? [low, high] : null;
}

/** A line through numbers that are equally far apart, the last at the right edge. */
function spark(svg, values, room) {
  const high = Math.max(1e-9, ...values);
  const step = WIDE / (room - 1);
  const first = room - values.length;
  const at = (value, index) => `${((first + index) * step).toFixed(1)} ${(HIGH - 6 - (value / high) * (HIGH - 26)).toFixed(1)}`;
  const line = values.map(at).join("L");
  put(svg, "trace", values.length > 1 ? `M${line}` : "");
  put(svg, "shape", values.length > 1 ? `M${(first * step).toFixed(1)} ${HIGH - 6}L${line}V${HIGH - 6}Z` : "");
}
