// A table of any length: only the rows that can be seen exist, and they are used again.

const BEYOND = 10;

class List {
  /** `make` gives an empty row with one link in it, `fill` puts an item into it, `key` names an item. */
  constructor(host, { make, fill, key }) {
    Object.assign(this, { host, make, fill, key, items: [], rows: [], at: 0, height: 40 });
    this.table = host.closest("[role=table]");
    this.later = false;
    const soon = () => this.soon();
    window.addEventListener("scroll", soon, { passive: true });
    window.addEventListener("resize", () => this.measure());
    host.addEventListener("keydown", (event) => this.pressed(event));
    host.addEventListener("focusin", (event) => {
      const row = this.rows.find((row) => row.contains(event.target));
      if (row) this.point(row.index);
    });
  }

  measure() {
    this.height = parseFloat(getComputedStyle(this.host).getPropertyValue("--row")) || 40;
    this.show(this.items);
  }

  /** Shows these items, and keeps pointing at the one that was pointed at. */
  show(items) {
    const pointed = this.items[this.at] && this.key(this.items[this.at]);
    this.items = items;
    const now = pointed === undefined ? -1 : items.findIndex((item) => this.key(item) === pointed);
    this.at = now >= 0 ? now : Math.min(this.at, Math.max(0, items.length - 1));
    this.host.style.height = `${items.length * this.height}px`;
    this.table.setAttribute("aria-rowcount", items.length + 1);
    this.render();
  }

  soon() {
    if (this.later || this.host.offsetParent === null) return;
    this.later = true;
    requestAnimationFrame(() => {
      this.later = false;
      this.render(true);
    });
  }

  /** Places the rows that can be seen, and fills them; after scrolling only those that have come into view. */
  render(scrolled = false) {
    if (this.host.offsetParent === null) return;
    const top = -this.host.getBoundingClientRect().top;
    const first = Math.max(0, Math.floor(top / this.height) - BEYOND);
    const last = Math.min(this.items.length, Math.ceil((top + window.innerHeight) / this.height) + BEYOND);
    const wanted = Math.max(0, last - first);
    while (this.rows.length < wanted) {
      const row = this.make();
      row.link = row.querySelector("a");
      this.rows.push(row);
      this.host.append(row);
    }
    // A row keeps its item as long as it can be seen, so that focus stays where it is.
    const free = [];
    const shown = new Set();
    for (const row of this.rows) {
      if (row.index >= first && row.index < last && !shown.has(row.index)) shown.add(row.index);
      else free.push(row);
    }
    const came = [];
    for (let index = first; index < last; index += 1) {
      if (shown.has(index)) continue;
      const row = free.pop();
      row.index = index;
      came.push(row);
    }
    for (const row of free) {
      row.index = -1;
      row.hidden = true;
    }
    this.order(came);
    for (const row of scrolled ? came : this.rows) if (row.index >= 0) this.place(row);
  }

  /**
   * Puts rows that have come among the others in the order that is seen, in which a screen reader reads them. The others are in
   * order already and do not move: that would take the focus from one of them.
   */
  order(came) {
    const byIndex = new Map(this.rows.map((row) => [row.index, row]));
    for (const row of came.sort((a, b) => b.index - a.index)) {
      const next = byIndex.get(row.index + 1) || null;
      if (row.nextElementSibling !== next) this.host.insertBefore(row, next);
    }
  }

  place(row) {
    const move = `translateY(${row.index * this.height}px)`;
    if (row.style.transform !== move) row.style.transform = move;
    row.hidden = false;
    row.setAttribute("aria-rowindex", row.index + 2);
    row.link.tabIndex = row.index === this.at ? 0 : -1;
    this.fill(row, this.items[row.index]);
  }

  /** Fills what can be seen anew. */
  refresh() {
    for (const row of this.rows) if (row.index >= 0 && this.items[row.index]) this.fill(row, this.items[row.index]);
  }

  visible() {
    return this.rows.filter((row) => row.index >= 0).map((row) => this.items[row.index]);
  }

  /** Whether a row is about to be chosen, which then must not move. */
  busy() {
    return this.host.contains(document.activeElement) || this.host.matches(":hover");
  }

  point(index) {
    this.at = index;
    for (const row of this.rows) row.link.tabIndex = row.index === index ? 0 : -1;
  }

  focus(index) {
    if (this.items.length === 0) return;
    this.point(Math.max(0, Math.min(this.items.length - 1, index)));
    const top = this.host.getBoundingClientRect().top + this.at * this.height;
    const head = this.table.querySelector(".head").offsetHeight;
    if (top < head) window.scrollBy(0, top - head);
    else if (top + this.height > window.innerHeight) window.scrollBy(0, top + this.height - window.innerHeight);
    this.render();
    const row = this.rows.find((row) => row.index === this.at);
    if (row) row.link.focus({ preventScroll: true });
  }

  focusKey(key) {
    const index = this.items.findIndex((item) => this.key(item) === key);
    if (index >= 0) this.focus(index);
  }

  /** Moves between rows, from wherever the focus is. */
  pressed(event) {
    if (event.altKey || event.ctrlKey || event.metaKey || event.defaultPrevented) return;
    const page = Math.max(1, Math.floor(window.innerHeight / this.height) - 2);
    const moves = { ArrowDown: 1, j: 1, ArrowUp: -1, k: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity };
    if (!(event.key in moves)) return;
    event.preventDefault();
    // The first key of all goes to the row that is pointed at, and not past it.
    this.focus(this.host.contains(document.activeElement) ? this.at + moves[event.key] : this.at);
  }
}

/** Headings that sort: a column is {text, kind, of, first}; `first` is the direction it starts with. */
class Sorting {
  constructor(head, columns, sorted) {
    Object.assign(this, { columns, sorted, by: columns[0], down: false });
    for (const column of columns) {
      const inside = column.of
        ? el("button", { type: "button", click: () => this.choose(column) }, column.text)
        : column.text;
      column.cell = el("div", { role: "columnheader", class: column.kind }, inside);
      head.append(column.cell);
    }
    this.mark();
  }

  choose(column) {
    this.down = this.by === column ? !this.down : column.first === "down";
    this.by = column;
    this.mark();
    this.sorted();
  }

  /** The order as an option of the address; empty for the one that a list starts with. */
  text() {
    return this.by === this.columns[0] && !this.down ? "" : `${this.down ? "-" : ""}${this.by.text.toLowerCase()}`;
  }

  /** Takes the order from an option of the address. */
  read(option) {
    const name = option.replace(/^-/, "");
    this.by = this.columns.find((column) => column.of && column.text.toLowerCase() === name) || this.columns[0];
    this.down = option.startsWith("-");
    this.mark();
  }

  mark() {
    for (const column of this.columns) {
      if (column === this.by) column.cell.setAttribute("aria-sort", this.down ? "descending" : "ascending");
      else column.cell.removeAttribute("aria-sort");
    }
  }

  sort(items) {
    const { of } = this.by;
    const sign = this.down ? -1 : 1;
    const least = this.columns[0].of;
    const compare = (a, b) => (a < b ? -1 : a > b ? 1 : 0);
    return items.sort((a, b) => sign * compare(of(a), of(b)) || compare(least(a), least(b)));
  }
}
