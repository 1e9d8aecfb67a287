// Files and texts that leave the page: series as CSV and JSON, links and expressions for the clipboard.

/** A cell of a CSV file. Text that a spreadsheet would run as a formula gets an apostrophe in front. */
function csvCell(value) {
  if (typeof value === "number") return String(value);
  const text = value === null || value === undefined ? "" : String(value);
  const safe = /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
  return /[",\n\r]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

/** Records with their series, one a row. `rows` are {name, type, unit, container, tags, records}. */
function csvOf(rows) {
  const keys = [...new Set(rows.flatMap((row) => row.records).flatMap((record) => Object.keys(record.agg)))];
  const head = ["task", "container", "name", "type", "unit", "tags", "start", "end", "value", ...keys];
  const lines = rows.flatMap((row) => row.records.map((record) => [
    taskView.id, row.container, row.name, row.type, row.unit, row.tags.map(tagText).join(","), record.start, record.end, record.value,
    ...keys.map((key) => record.agg[key]),
  ]));
  return [head, ...lines].map((cells) => cells.map(csvCell).join(",")).join("\r\n") + "\r\n";
}

function jsonOf(rows) {
  const series = rows.map(({ name, type, unit, container, tags, records }) => ({
    name, type, unit, container_id: container || undefined, tags: Object.fromEntries(tags),
    windows: records.map(({ start, end, covered, open, value, agg }) => ({ start, end, covered, open, value, agg })),
  }));
  return `${JSON.stringify({ task_id: taskView.id, node: node.info && node.info.node, series }, null, 1)}\n`;
}

/** Saves a text as a file. */
function save(name, type, text) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  el("a", { href: url, download: name }).click();
  // The browser reads it after the click.
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

/** A name for a file, without what file systems refuse. */
function fileName(...parts) {
  return parts.map((part) => part.replace(/[^\w.-]+/g, "_").slice(0, 60)).join("-");
}

/** Buttons that save what `rows` gives. */
function exportButtons(name, rows) {
  const button = (text, type, make) => el("button", {
    type: "button",
    class: "chip",
    click: () => save(`${fileName(taskView.id, name())}.${text.toLowerCase()}`, type, make(rows())),
  }, text);
  return [button("CSV", "text/csv;charset=utf-8", csvOf), button("JSON", "application/json", jsonOf)];
}

/** Copies a text, and says so on the button. Pages that are not on loopback or TLS have no clipboard. */
async function copy(text, button) {
  let copied = true;
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const field = el("textarea", { readonly: "" });
    field.value = text;
    document.body.append(field);
    field.select();
    copied = document.execCommand("copy");
    field.remove();
    button.focus();
  }
  const label = button.textContent;
  if (label === "Copied") return;
  say(button, copied ? "Copied" : "Not copied");
  setTimeout(() => say(button, label), 1500);
}

function copyButton(label, text) {
  return el("button", { type: "button", class: "chip", click: (event) => copy(text(), event.currentTarget) }, label);
}
