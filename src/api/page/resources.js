// CPU, memory and I/O of a task and of its node, read on request while the section is open: the agent samples nothing by itself.
// Of the node's I/O the agent reads only that of the network.

/** Seconds between two readings. */
const RESOURCE_EVERY = 10;
/** Containers of a task whose resources are read. */
const MOST_CONTAINERS = 8;

const RESOURCES = [
  { key: "cpu", name: "CPU", text: (value) => `${number(Number(value.toPrecision(3)))}${NARROW}cores` },
  { key: "memory", name: "Memory", text: bytes },
  { key: "disk", name: "Disk I/O", text: (value) => `${bytes(value)}/s` },
  { key: "network", name: "Network I/O", text: (value) => `${bytes(value)}/s` },
];

const resources = {
  id: null,
  last: new Map(),
  samples: { task: [], node: [] },

  start() {
    this.box = byId("resources");
    // On a small screen the series come first.
    this.box.open = matchMedia("(min-width: 1000px)").matches;
    this.box.addEventListener("toggle", () => this.read());
    setInterval(() => this.read(), 1000);
  },

  /** Starts again for another task. */
  open(id) {
    Object.assign(this, { id, last: new Map(), samples: { task: [], node: [] }, at: -Infinity });
    this.show();
    this.read();
  },

  wanted() {
    return this.id !== null && this.box.open && !this.box.hidden && !document.hidden && byId("access").hidden && taskView.document !== null;
  },

  async read() {
    if (!this.wanted() || this.reading || performance.now() - this.at < RESOURCE_EVERY * 1000) return;
    this.reading = true;
    this.at = performance.now();
    try {
      const id = this.id;
      const live = taskView.document ? taskView.document.containers.filter((one) => !one.finished_at).slice(0, MOST_CONTAINERS) : [];
      const parts = [];
      for (const one of live) parts.push(await this.usage(`/v0/containers/${encodeURIComponent(one.container_id)}`, usageOfContainer));
      const whole = await this.usage("/v0/node", usageOfNode);
      if (this.id !== id) {
        this.at = -Infinity;
        return;
      }
      this.note("task", sumOf(parts.filter(Boolean)));
      this.note("node", whole);
      this.show();
    } finally {
      this.reading = false;
    }
  },

  /** What something uses now; rates are since its last reading. Null where the agent does not know. */
  async usage(path, read) {
    const answer = await ask(path);
    // An agent without the routes of DC/OS has no answer for any of them.
    if (answer && answer.status === 404) this.box.hidden = true;
    if (!answer || answer.status !== 200 || !answer.body) return null;
    const now = { at: performance.now() / 1000, ...read(answer.body.datapoints) };
    const before = this.last.get(path);
    this.last.set(path, now);
    const perSecond = (key) => (before && now[key] !== undefined && now[key] >= before[key] ? (now[key] - before[key]) / (now.at - before.at) : undefined);
    return { cpu: now.cpu ?? perSecond("cpuTime"), memory: now.memory, disk: perSecond("diskBytes"), network: perSecond("networkBytes") };
  },

  note(whose, usage) {
    if (!usage) return;
    const samples = this.samples[whose];
    samples.push({ at: agentNow(), ...usage });
    while (samples.length > 360) samples.shift();
  },

  show() {
    for (const whose of ["task", "node"]) {
      const list = byId(`resources-${whose}`);
      while (list.children.length < RESOURCES.length) list.append(el("div", {}, el("dt"), el("dd"), emptyPlot()));
      RESOURCES.forEach((resource, index) => this.fill(list.children[index], resource, this.samples[whose]));
    }
    byId("resources-task").hidden = this.samples.task.length === 0;
    const live = taskView.document ? taskView.document.containers.filter((one) => !one.finished_at).length : 0;
    const known = this.samples.task.length > 0 || this.at === -Infinity;
    say(byId("resources-note"), !known ? "The agent knows no process or control group of this task's containers."
      : live > MOST_CONTAINERS ? `The sum of the first ${MOST_CONTAINERS} of ${number(live)} containers.` : "");
  },

  fill(cell, { key, name, text }, samples) {
    const [term, value, svg] = cell.children;
    const known = samples.filter((sample) => sample[key] !== undefined).map((sample) => ({ at: sample.at, value: sample[key] }));
    const newest = known[known.length - 1];
    say(term, name);
    say(value, newest ? text(newest.value) : NOTHING);
    svg.setAttribute("aria-hidden", "true");
    const to = newest ? newest.at : 1;
    spark(svg, known, Math.min(to - 60, known.length ? known[0].at : 0), to);
    cell.hidden = !newest;
  },
};

/** The sum of several usages; what none of them has stays unknown. */
function sumOf(parts) {
  if (parts.length === 0) return null;
  const sum = {};
  for (const { key } of RESOURCES) {
    const known = parts.map((part) => part[key]).filter((value) => value !== undefined);
    if (known.length > 0) sum[key] = known.reduce((a, b) => a + b, 0);
  }
  return sum;
}

/** The sum of the datapoints with these names; undefined where there is none. */
function total(datapoints, names) {
  const found = datapoints.filter((one) => names.includes(one.name) && typeof one.value === "number");
  return found.length > 0 ? found.reduce((sum, one) => sum + one.value, 0) : undefined;
}

function usageOfContainer(points) {
  return {
    cpuTime: total(points, ["cpus.user.time", "cpus.system.time"]),
    memory: total(points, ["mem.rss"]) ?? total(points, ["mem.total"]),
    diskBytes: total(points, ["io.read.bytes", "io.write.bytes"]),
    networkBytes: total(points, ["net.rx.bytes", "net.tx.bytes"]),
  };
}

function usageOfNode(points) {
  const cores = total(points, ["cpu.cores"]);
  const busy = total(points, ["cpu.total"]);
  const free = total(points, ["memory.free", "memory.buffers", "memory.cached"]);
  const all = total(points, ["memory.total"]);
  const outside = points.filter((one) => !(one.tags && one.tags.interface === "lo"));
  return {
    cpu: busy === undefined ? undefined : (busy / 100) * cores,
    memory: all === undefined ? undefined : all - (free || 0),
    networkBytes: total(outside, ["network.in", "network.out"]),
  };
}
