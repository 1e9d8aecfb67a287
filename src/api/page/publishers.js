// The publishers of the node: what they have delivered, and what keeps them from it. Nothing is shown where there are none.

/** Seconds between two readings. */
const PUBLISHERS_EVERY = 4;

/** What a publisher waits for, by the reason of its document. */
const HELD = {
  auth: "held: the destination does not admit the agent",
  gone: "held: what it writes to does not exist",
  refusing: "held: the destination refuses everything",
};

/** What a publisher does, in words. */
function publisherState({ state, reason, next_attempt: next, records }) {
  if (state === "held") return HELD[reason] || "held";
  if (state === "retrying") return next ? `trying again at ${clock.format(new Date(next))}` : "trying again";
  if (state === "starting") return "counting what is left to send";
  if (state === "idle") return records.pending > 0 ? "waiting for the next round" : "up to date";
  return state;
}

/** How many records were dropped, and for which reasons. */
function lostRecords({ dropped }) {
  const reasons = Object.entries(dropped).filter(([, count]) => count > 0);
  return [reasons.reduce((sum, [, count]) => sum + count, 0), reasons.map(([reason, count]) => (reasons.length > 1 ? `${reason} ${number(count)}` : reason)).join(", ")];
}

const publishers = {
  at: -Infinity,
  list: [],

  wanted() {
    return taskView.id === null && !document.hidden && byId("access").hidden && node.info !== null;
  },

  /** Reads them again if the page is visible and the last reading is old enough. */
  async read() {
    if (!this.wanted() || this.reading || performance.now() - this.at < PUBLISHERS_EVERY * 1000) return;
    this.reading = true;
    this.at = performance.now();
    try {
      const answer = await ask("/v1/publishers");
      if (!answer || answer.status !== 200 || !Array.isArray(answer.body)) return;
      this.list = answer.body;
      this.show();
    } finally {
      this.reading = false;
    }
  },

  show() {
    const cards = byId("publisher-cards");
    byId("publishers").hidden = this.list.length === 0;
    while (cards.children.length > this.list.length) cards.lastElementChild.remove();
    this.list.forEach((one, index) => {
      if (!cards.children[index]) cards.append(this.make());
      this.fill(cards.children[index], one);
    });
    this.ages();
  },

  make() {
    const fact = (name) => el("div", {}, el("dt", {}, name), el("dd", {}, el("span"), " ", el("small")));
    return card(
      el("h3", {}, el("bdi"), " ", el("span", { class: "state" })),
      el("p", { class: "sub" }),
      el("dl", {}, ["Delivered", "Pending", "Dropped", "Dead", "Last delivery"].map(fact)),
      el("p", {}),
      el("p", {}),
      el("p", { class: "sub" }),
    );
  },

  // In place, so that a text that is being selected stays.
  fill(box, one) {
    const [head, where, facts, said, advice, dead] = box.children;
    const { records } = one;
    say(head.firstChild, one.name);
    say(head.lastChild, publisherState(one));
    head.lastChild.className = `state ${one.state}`;
    say(where, `${one.type} · ${one.destination}`);
    if (where.title !== one.destination) where.title = one.destination;
    const [lost, reasons] = lostRecords(records);
    const counts = [[records.delivered], [records.pending], [lost, "bad", reasons], [records.dead, "bad"]];
    counts.forEach(([count, kind, why], index) => {
      const [value, note] = facts.children[index].lastChild.children;
      say(value, number(count));
      if (value.title !== full(count)) value.title = full(count);
      value.className = kind && count > 0 ? kind : "";
      say(note, why || "");
    });
    said.className = one.state === "held" ? "bad" : "warn";
    this.sentence(said, one.last_answer ? `Last answer: ${one.last_answer}` : "");
    this.sentence(advice, one.advice ? `What to do: ${one.advice}` : "");
    this.sentence(dead, one.dead_letters > 0 ? `tallyport publish dead ${shell(one.name)} shows what was refused, and why` : "");
  },

  sentence(element, text) {
    say(element, text);
    element.hidden = text === "";
  },

  /** The ages of the last deliveries, which go on between two readings. */
  ages() {
    this.list.forEach(({ last_delivery: last }, index) => {
      const box = byId("publisher-cards").children[index];
      if (!box) return;
      const [value, note] = box.children[2].lastChild.lastChild.children;
      say(value, last ? ago(agentNow() - seconds(last)) : "none yet");
      say(note, last ? "ago" : "");
    });
  },
};
