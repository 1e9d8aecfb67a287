// The address of what is shown: `#/`, `#/task/ID`, `#/task/ID/TAB`, `#/task/ID/series/SERIES`, each with options after `?`:
//
//   q          the search
//   problems   only tasks with problems
//   type       types of series, separated by commas
//   stat       the statistic of timers, histograms and distributions
//   view       `containers` compares containers, `sum` adds up
//   keep       tags that are not added up, separated by commas
//   sort       the column that sorts, with `-` for descending

const address = {
  options: new URLSearchParams(),
  place: { task: null, tab: "series", series: null },

  /** Reads the address; an address that was cut off is as good as none. */
  read() {
    const [path, query] = splitOnce(location.hash, "?");
    const [, kind, id, tab, series] = path.split("/");
    let task = null;
    try {
      task = kind === "task" && id ? decodeURIComponent(id) : null;
    } catch {
      // As above.
    }
    this.place = { task, tab: tab || "series", series: series || null };
    this.options = new URLSearchParams(query);
    return this.place;
  },

  option(key) {
    return this.options.get(key) || "";
  },

  list(key) {
    return this.option(key).split(",").filter(Boolean);
  },

  /** The options without those that are empty, after changes. */
  changed(changes = {}) {
    const options = new URLSearchParams(this.options);
    for (const [key, value] of Object.entries(changes)) {
      if (value) options.set(key, value);
      else options.delete(key);
    }
    return options;
  },

  /** The address of a place with these options. */
  of({ task, tab, series }, options = this.options) {
    const path = task === null ? "#/" : `#/task/${encodeURIComponent(task)}${series ? `/series/${series}` : tab && tab !== "series" ? `/${tab}` : ""}`;
    const query = options.toString();
    return query ? `${path}?${query}` : path;
  },

  /** Notes options in the address, without a step in the browser's history. */
  set(changes) {
    this.options = this.changed(changes);
    this.replace(this.place);
  },

  replace(place) {
    this.place = place;
    history.replaceState(null, "", this.of(place));
  },
};

function splitOnce(text, mark) {
  const at = text.indexOf(mark);
  return at < 0 ? [text, ""] : [text.slice(0, at), text.slice(at + 1)];
}
