// Numbers, times and elements. Whatever applications say becomes a text node, never markup.

const NARROW = "\u202f";
const NOTHING = "–";
const SCALES = [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]];
const exactly = new Intl.NumberFormat("en", { maximumFractionDigits: 9 });
const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });

/** Four digits that matter, with a scale from ten thousand on: 12, 0.25, 1,234, 12.3 k. */
function number(value) {
  if (typeof value !== "number" || !Number.isFinite(value)) return NOTHING;
  const size = Math.abs(value);
  if (size >= 1e15 || (size > 0 && size < 1e-4)) return value.toExponential(2);
  if (size >= 9999.5) {
    const [scale, letter] = SCALES.find(([scale]) => size >= scale * 0.99995) || SCALES[SCALES.length - 1];
    return `${trimmed(value / scale)}${NARROW}${letter}`;
  }
  return trimmed(value);
}

function trimmed(value) {
  const size = Math.abs(value);
  const digits = size >= 1000 ? 0 : size >= 100 ? 1 : size >= 10 ? 2 : size >= 0.1 ? 3 : 5;
  return exactly.format(Number(value.toFixed(digits)));
}

/** How many a second: three digits that matter, since the last ones would only flicker. */
function rate(value) {
  return number(value === null ? value : Number(value.toPrecision(3)));
}

/** Every digit there is. */
function full(value) {
  return typeof value === "number" ? exactly.format(value) : NOTHING;
}

/** Units of time from a second on, in milliseconds. Minutes and longer ones start at two, because 90 s says more than 1.5 min. */
const LONG_TIMES = [[1.728e8, 8.64e7, "d"], [7.2e6, 3.6e6, "h"], [1.2e5, 6e4, "min"], [999.95, 1e3, "s"]];

function withUnit(value, unit) {
  const long = unit === "ms" && Number.isFinite(value) && LONG_TIMES.find(([from]) => Math.abs(value) >= from);
  if (long) return `${number(value / long[1])}${NARROW}${long[2]}`;
  const text = number(value);
  return unit && text !== NOTHING ? `${text}${NARROW}${unit}` : text;
}

function bytes(value) {
  for (const [power, unit] of [[30, "GiB"], [20, "MiB"], [10, "KiB"]]) {
    if (value >= 2 ** power) return withUnit(Number((value / 2 ** power).toPrecision(3)), unit);
  }
  return withUnit(value, "B");
}

/** How long ago, as one number and its unit. */
function ago(seconds) {
  if (seconds === null || Number.isNaN(seconds)) return NOTHING;
  const whole = Math.max(0, Math.round(seconds));
  for (const [size, unit] of [[86400, "d"], [3600, "h"], [60, "min"]]) {
    if (whole >= 2 * size) return `${Math.floor(whole / size)}${NARROW}${unit}`;
  }
  return `${whole}${NARROW}s`;
}

function plural(count, one, many) {
  return `${exactly.format(count)} ${count === 1 ? one : many || `${one}s`}`;
}

function seconds(timestamp) {
  return timestamp ? Date.parse(timestamp) / 1000 : null;
}

function tagText([key, value]) {
  return value === "" ? key : `${key}:${value}`;
}

/** A word for a shell, quoted where it must be. */
function shell(word) {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}

function byId(id) {
  return document.getElementById(id);
}

/** An element; what is neither an element nor absent among the children becomes text. */
function el(name, attributes, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (typeof value === "function") made.addEventListener(key, value);
    else if (value !== undefined && value !== null && value !== false) made.setAttribute(key, value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return made;
}

/** Sets text only where it differs: what is the same costs no layout. */
function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function tagList(pairs, label) {
  return el("ul", { class: "tags", "aria-label": label }, pairs.map((pair) => el("li", {}, tagText(pair))));
}

/** A pill that says what kind of thing it holds, unlike a tag. */
function pill(kind, text) {
  return el("li", { class: `pill ${kind}` }, el("span", {}, kind), " ", el("bdi", {}, text));
}

/** Replaces what is in a box where it differs from what was there. */
function keep(box, value, make) {
  const stamp = JSON.stringify(value);
  if (box.stamp === stamp) return;
  box.stamp = stamp;
  box.replaceChildren(...make(value));
}

function when(timestamp) {
  return el("time", { datetime: timestamp, title: timestamp }, clock.format(new Date(timestamp)));
}

function terms(pair) {
  return el("div", {}, el("dt", {}, pair[0]), el("dd", { title: pair[2] }, pair[1]));
}

/** The figures above a table; a figure is [name, text, unit, class]. */
function figures(list, wanted) {
  while (list.children.length > wanted.length) list.lastElementChild.remove();
  wanted.forEach(([name, text, unit, kind], index) => {
    if (!list.children[index]) list.append(el("div", {}, el("dt"), el("dd", {}, el("span"), el("small"))));
    const [term, value] = list.children[index].children;
    say(term, name);
    say(value.firstChild, text);
    say(value.lastChild, unit && text !== NOTHING ? `${NARROW}${unit}` : "");
    value.className = kind || "";
  });
}
