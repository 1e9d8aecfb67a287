// Where what is shown comes from: answers, streams, and the token that the agent may want.

/**
 * The token, for as long as this tab is open. It stands in a header: addresses are logged, and cookies go to every port of
 * the node, whatever listens there.
 */
const access = {
  KEY: "tallyport-token",
  token: null,

  start(opened) {
    try {
      this.token = sessionStorage.getItem(this.KEY);
    } catch {
      // A browser that keeps nothing asks again.
    }
    byId("access").addEventListener("submit", (event) => {
      event.preventDefault();
      this.token = byId("access-token").value.trim();
      try {
        sessionStorage.setItem(this.KEY, this.token);
      } catch {
        // As above.
      }
      byId("access").hidden = true;
      byId("access-token").value = "";
      opened();
    });
  },

  /** Asks for a token; what was given before was none, or is no longer one. */
  ask() {
    say(byId("access-why"), this.token === null ? "This agent wants a token." : "The agent does not know this token.");
    byId("access").hidden = false;
    byId("access-token").focus();
  },
};

function request(path, accept, more = {}) {
  const headers = { accept };
  // What cannot stand in a header is no token.
  if (/^[\x21-\x7e]+$/.test(access.token ?? "")) headers.authorization = `Bearer ${access.token}`;
  return fetch(path, { cache: "no-store", headers, ...more });
}

/** How often a request is repeated that a busy agent puts off. */
const BUSY_TRIES = 4;

/** Asks the agent; null where it cannot be reached. */
async function ask(path) {
  try {
    for (let tries = 1; ; tries += 1) {
      const answer = await request(path, "application/json");
      if (answer.status === 401) access.ask();
      if (answer.status !== 429 || tries === BUSY_TRIES) return { status: answer.status, body: await answer.json().catch(() => null) };
      await new Promise((next) => setTimeout(next, 1000 * (Number(answer.headers.get("retry-after")) || 1)));
    }
  } catch {
    return null;
  }
}

/** Each event of a stream as it comes: its name and its data. */
async function follow(body, heard) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    // An event of megabytes comes in many parts: only the new one is searched for its end.
    const seam = text.slice(-1) + value;
    text += value;
    if (!seam.includes("\n\n")) continue;
    const events = text.split("\n\n");
    text = events.pop();
    for (const event of events) {
      const field = (name) => event.split("\n").find((line) => line.startsWith(`${name}: `))?.slice(name.length + 2);
      if (field("data") !== undefined) heard(field("event"), field("data"));
    }
  }
}

/** Follows a stream until it is closed, and again after every end of it but one for want of a token. */
function listen(path, handlers, states = {}) {
  const stream = { wait: 500 };
  const open = async () => {
    const source = new AbortController();
    stream.source = source;
    const awaited = () => {
      clearTimeout(stream.silence);
      if (states.silence) stream.silence = setTimeout(() => source.abort(), states.silence);
    };
    awaited();
    let wanted = false;
    try {
      const answer = await request(path, "text/event-stream", { signal: source.signal });
      wanted = answer.status === 401;
      if (answer.ok) {
        await follow(answer.body, (name, data) => {
          if (stream.source !== source) return;
          stream.wait = 500;
          awaited();
          try {
            if (handlers[name]) handlers[name](JSON.parse(data));
          } catch (error) {
            reportError(error);
          }
        });
      }
    } catch {
      // It broke, or was silent for too long, or was closed.
    }
    if (stream.source !== source) return;
    source.abort();
    clearTimeout(stream.silence);
    if (wanted) {
      if (states.closed) states.closed();
      return;
    }
    if (states.lost) states.lost();
    stream.timer = setTimeout(open, stream.wait);
    stream.wait = Math.min(4000, stream.wait * 1.5);
  };
  stream.close = () => {
    const source = stream.source;
    stream.source = null;
    clearTimeout(stream.timer);
    clearTimeout(stream.silence);
    if (source) source.abort();
  };
  open();
  return stream;
}
