// What the page shows and where it comes from: the address, the streams, the keys.

/** Asks the agent; null where it cannot be reached. */
async function ask(path) {
  try {
    const answer = await fetch(path, { headers: { accept: "application/json" }, cache: "no-store" });
    return { status: answer.status, body: await answer.json().catch(() => null) };
  } catch {
    return null;
  }
}

/** Follows a stream until it is closed. The browser would give up after an answer that is an error; we do not. */
function listen(path, handlers, states = {}) {
  const stream = { wait: 500 };
  const open = () => {
    const source = new EventSource(path);
    stream.source = source;
    const heard = () => {
      stream.wait = 500;
      clearTimeout(stream.silence);
      if (states.silence) stream.silence = setTimeout(broken, states.silence);
    };
    const broken = () => {
      source.close();
      clearTimeout(stream.silence);
      if (states.lost) states.lost();
      stream.timer = setTimeout(open, stream.wait);
      stream.wait = Math.min(4000, stream.wait * 1.5);
    };
    source.onerror = broken;
    for (const [name, handle] of Object.entries(handlers)) {
      source.addEventListener(name, (event) => {
        if (stream.source !== source) return;
        heard();
        handle(JSON.parse(event.data));
      });
    }
    if (states.silence) stream.silence = setTimeout(broken, states.silence);
  };
  stream.close = () => {
    clearTimeout(stream.timer);
    clearTimeout(stream.silence);
    if (stream.source) stream.source.close();
    stream.source = null;
  };
  open();
  return stream;
}

const connection = {
  stream: null,
  lost: false,
  unsaid: true,

  open() {
    if (this.stream) return;
    // Without a word for eight seconds, something in between is gone.
    this.stream = listen("/v1/watch", { node: (info) => this.node(info), tasks: (changes) => this.tasks(changes) }, { lost: () => this.broken(), silence: 8000 });
  },

  close() {
    if (this.stream) this.stream.close();
    this.stream = null;
  },

  node(info) {
    const other = this.lost || !node.info || node.info.started !== info.started;
    node.whole = true;
    if (node.info && node.info.started !== info.started) node.tasks.clear();
    node.info = info;
    say(byId("node"), `${info.node} · ${info.version} · windows of ${number(info.window_seconds)}${NARROW}s, ${number(info.windows_kept)} kept`);
    this.reload = other && taskView.id !== null;
    this.lost = false;
  },

  tasks(changes) {
    nodeChanged(changes);
    this.say(changes.ready ? "Live" : "Not ready", changes.ready ? "live" : "");
    byId("notice").hidden = true;
    document.body.classList.remove("stale");
    if (this.unsaid) {
      this.unsaid = false;
      route();
    } else if (this.reload) {
      taskView.load();
    }
    this.reload = false;
    if (taskView.id === null) tasksView.show(false);
    else taskView.show();
  },

  broken() {
    this.lost = true;
    this.say("No answer", "lost");
    say(byId("notice"), "The agent does not answer. What is shown is what it said last; trying again until it is back.");
    byId("notice").hidden = false;
    document.body.classList.add("stale");
  },

  say(text, kind) {
    const link = byId("link");
    say(link, text);
    link.className = `link ${kind}`;
  },
};

/** `#/`, `#/task/ID`, `#/task/ID/TAB`, `#/task/ID/series/SERIES`. */
function route() {
  const [, kind, id, tab, chosen] = location.hash.split("/");
  let name = null;
  try {
    name = kind === "task" && id ? decodeURIComponent(id) : null;
  } catch {
    // An address that was cut off is as good as none.
  }
  const before = taskView.id;
  byId("tasks").hidden = name !== null;
  byId("task").hidden = name === null;
  if (name === null) {
    if (before !== null) taskView.close();
    document.title = node.info ? `${node.info.node} · tallyport` : "tallyport";
    tasksView.show(true);
    if (before !== null) tasksView.list.focusKey(before);
    return;
  }
  if (before !== name) {
    window.scrollTo(0, 0);
    byId("task").querySelector("h1").focus({ preventScroll: true });
  }
  taskView.open(name, tab, chosen);
}

function pressed(event) {
  const search = taskView.id === null ? tasksView.search : taskView.search;
  const typing = event.target instanceof HTMLInputElement;
  if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey) {
    event.preventDefault();
    if (taskView.id !== null) taskView.choose("series");
    search.focus();
    search.select();
  } else if (event.key === "Escape") {
    event.preventDefault();
    if (inspector.shown) byId("inspector").querySelector("button").click();
    else if (search.value !== "") {
      search.value = "";
      search.dispatchEvent(new Event("input"));
    } else if (typing) search.blur();
    else if (taskView.id !== null) location.hash = "#/";
  } else if ((event.key === "ArrowDown" || event.key === "Enter") && typing) {
    event.preventDefault();
    const list = taskView.id === null ? tasksView.list : taskView.list;
    list.focus(0);
  }
}

tasksView.start();
taskView.start();
tasksView.list.measure();
taskView.list.measure();
window.addEventListener("hashchange", route);
document.addEventListener("keydown", pressed);
// A page that nobody sees holds no connection, of which a browser has few.
document.addEventListener("visibilitychange", () => {
  if (document.hidden) {
    connection.close();
    if (taskView.stream) taskView.stream.close();
  } else {
    connection.lost = true;
    connection.open();
  }
});
setInterval(() => {
  const view = taskView.id === null ? tasksView : taskView;
  view.list.refresh();
  if (view === tasksView && node.info) tasksView.figures();
}, 1000);
connection.open();
