// Nodes, built one by one. Text always goes in as text: nothing here reads markup, so no name can become code.

const SVG = "http://www.w3.org/2000/svg";

function filled(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "style") for (const [key, text] of Object.entries(value)) node.style.setProperty(key, text);
    else if (name === "value") node.value = value;
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...children.flat(3).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

/** Return an element: h("p", {class: "note"}, "text", node, [more]). */
export function h(tag, attributes, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

/** Return an element of a picture. */
export function s(tag, attributes, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

let last = 0;

/** Return an id that no other element of the page has. */
export function newId(stem) {
  last += 1;
  return `${stem}-${last}`;
}

/** Return *text* in a direction of its own, whatever script it is in; long ones break anywhere. */
export function name(text, attributes) {
  if (text === null || text === undefined || text === "") return missing("none was named");
  return h("bdi", { class: "name", title: text.length > 24 ? text : null, ...attributes }, text);
}

/** Return the sign for what is not known, with the reason in words. */
export function missing(reason) {
  return h("span", { class: "missing", title: reason }, "–", h("span", { class: "sr" }, ` unknown: ${reason}`));
}

/** Return *value* as *form* writes it; the sign for unknown, with *reason*, where there is none. */
export function figure(value, form, reason = "nothing to go by yet") {
  return value === null || value === undefined ? missing(reason) : h("span", { class: "figure" }, form(value));
}

/**
 * Return a table. *columns*: {head, cell(row), text: true for words, rowHead: true for the cell that names the row}.
 * It scrolls sideways on its own, and can be reached by keyboard; where the window is narrow, each row of a wide one
 * becomes a small list. The roles say what it is all the same.
 */
export function table(caption, columns, rows, options = {}) {
  const wordy = (column) => (column.text || column.rowHead ? "text" : null);
  const head = columns.map((column) => h("th", { scope: "col", role: "columnheader", class: wordy(column) }, column.head));
  const label = (column) => (column.head instanceof Node ? column.head.textContent : column.head);
  const body = rows.map((row, i) => h("tr", { role: "row", ...options.row?.(row, i) }, columns.map((column) =>
    column.rowHead ? h("th", { scope: "row", role: "rowheader", class: "text" }, column.cell(row, i))
      : h("td", { role: "cell", class: wordy(column), "data-label": label(column) }, h("div", null, column.cell(row, i))))));
  return h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `${caption}, table` },
    h("table", { class: columns.length > 3 ? "listed" : null, role: "table" }, h("caption", { class: "sr" }, caption),
      h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, head)), h("tbody", { role: "rowgroup" }, body)));
}

/** Return a long table with its first rows in sight and all of them to be unfolded; a short one as it is. */
export function shortTable(caption, columns, rows, first = 12) {
  if (rows.length <= first + 3) return table(caption, columns, rows);
  return h("div", null, table(`${caption}, the first ${first}`, columns, rows.slice(0, first)), details(`All ${rows.length}`, table(caption, columns, rows)));
}

/** Return what can be unfolded. */
export function details(summary, ...children) {
  return h("details", null, h("summary", null, summary), ...children);
}

/** Return a section with its heading. */
export function section(title, note, ...children) {
  const id = newId("section");
  return h("section", { "aria-labelledby": id },
    h("h2", { id }, title), note ? h("p", { class: "note" }, note) : null, ...children);
}

/** Return what stands where nothing is there yet: what it would be, and how to get it. */
export function nothing(title, ...children) {
  return h("div", { class: "nothing" }, h("p", { class: "lead" }, title), ...children);
}

/** Return a mark that says how something stands: in words and by its sign, not by its colour alone. */
export function badge(kind, text) {
  const signs = { good: "✓", attention: "!", neutral: "·" };
  return h("span", { class: `badge ${kind}` }, h("span", { "aria-hidden": "true" }, signs[kind]), " ", text);
}
