// What ties the page together: the address, the stream of the node, the keys.

const connection = {
  stream: null,
  lost: false,
  unsaid: true,

  open() {
    if (this.stream) return;
    const handlers = { node: (info) => this.node(info), tasks: (changes) => this.tasks(changes) };
    // Without a word for eight seconds, something in between is gone.
    this.stream = listen("/v1/watch?recent", handlers, { lost: () => this.broken(), closed: () => this.closed(), silence: 8000 });
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
    say(byId("notice"), changes.degraded.map((part) => part.why).join(" · "));
    byId("notice").hidden = changes.degraded.length === 0;
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
    publishers.read();
  },

  broken() {
    this.lost = true;
    this.say("No answer", "lost");
    say(byId("notice"), "The agent does not answer. What is shown is what it said last; trying again until it is back.");
    byId("notice").hidden = false;
    document.body.classList.add("stale");
  },

  /** The agent wants a token, or another one; the stream has ended. */
  closed() {
    this.stream = null;
    this.lost = true;
    this.say("Token wanted", "lost");
    byId("notice").hidden = true;
    access.ask();
  },

  say(text, kind) {
    const link = byId("link");
    say(link, text);
    link.className = `link ${kind}`;
  },
};

/** Shows what the address names. */
function route() {
  const place = address.read();
  const before = taskView.id;
  byId("tasks").hidden = place.task !== null;
  byId("task").hidden = place.task === null;
  if (place.task === null) {
    if (before !== null) taskView.close();
    document.title = node.info ? `${node.info.node} · tallyport` : "tallyport";
    tasksView.route();
    tasksView.show(true);
    if (before !== null) tasksView.list.focusKey(before);
    return;
  }
  if (before !== place.task) {
    window.scrollTo(0, 0);
    byId("task").querySelector("h1").focus({ preventScroll: true });
  }
  taskView.open(place);
}

/** Whether a key moves between rows although no row has the focus: not where it moves something else. */
function movesRows(target) {
  return !(target instanceof HTMLInputElement || target instanceof HTMLTextAreaElement) && !target.closest("#inspector, .rows, [role=tablist], summary, select");
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
    if (inspector.shown) byId("inspector").querySelector(".close").click();
    else if (search.value !== "") {
      search.value = "";
      search.dispatchEvent(new Event("input"));
    } else if (typing) event.target.blur();
    else if (taskView.id !== null) location.hash = "#/";
  } else if ((event.key === "ArrowDown" || event.key === "Enter") && event.target === search) {
    event.preventDefault();
    const list = taskView.id === null ? tasksView.list : taskView.list;
    list.focus(0);
  } else if (movesRows(event.target)) {
    const list = taskView.id === null ? tasksView.list : taskView.tab === "series" ? taskView.list : null;
    if (list) list.pressed(event);
  }
}

access.start(() => {
  connection.close();
  connection.lost = true;
  connection.open();
});
problems.start();
tasksView.start();
taskView.start();
resources.start();
tasksView.list.measure();
taskView.list.measure();
window.addEventListener("hashchange", route);
document.addEventListener("keydown", pressed);
// A hidden page holds no connection, of which a browser has few.
document.addEventListener("visibilitychange", () => {
  if (document.hidden) {
    connection.close();
    if (taskView.stream) taskView.stream.close();
  } else if (byId("access").hidden) {
    connection.lost = true;
    connection.open();
  }
});
setInterval(() => {
  const view = taskView.id === null ? tasksView : taskView;
  view.list.refresh();
  if (view === tasksView && node.info) {
    tasksView.figures();
    publishers.ages();
  }
}, 1000);
connection.open();
