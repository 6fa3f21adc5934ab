// Tables: text only, so a name is never markup.

/** columns: [{name, key, numeric?, sort?}], rows: [{key: text or {text, title}}]; one that is `plain` leads
 *  nowhere. sorted: {key, descending}. */
export function fill(table, caption, columns, rows, { sorted = null, onSort = null, onRow = null } = {}) {
  const head = document.createElement("tr");
  for (const column of columns) {
    const cell = document.createElement("th");
    cell.scope = "col";
    if (column.numeric) cell.className = "number";
    if (onSort && column.sort) {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = column.name;
      button.addEventListener("click", () => onSort(column.sort));
      cell.append(button);
      if (sorted && sorted.key === column.sort) cell.setAttribute("aria-sort", sorted.descending ? "descending" : "ascending");
    } else cell.textContent = column.name;
    head.append(cell);
  }
  const heading = document.createElement("caption");
  heading.textContent = caption;
  const body = document.createElement("tbody");
  for (const row of rows) {
    const line = document.createElement("tr");
    columns.forEach((column, at) => {
      const cell = document.createElement(at === 0 ? "th" : "td");
      if (at === 0) cell.scope = "row";
      const held = row[column.key];
      const text = typeof held === "object" && held !== null ? held.text : held;
      if (typeof held === "object" && held !== null && held.title) cell.title = held.title;
      if (column.numeric) cell.className = "number";
      if (at === 0 && onRow && !row.plain) {
        const button = document.createElement("button");
        button.type = "button";
        button.textContent = text;
        button.addEventListener("click", () => onRow(row));
        cell.append(button);
      } else cell.textContent = text;
      line.append(cell);
    });
    body.append(line);
  }
  const top = document.createElement("thead");
  top.append(head);
  // A refresh must not take the focus away from whoever sorts by keyboard.
  const focused = table.contains(document.activeElement) ? [...table.querySelectorAll("button")].indexOf(document.activeElement) : -1;
  table.replaceChildren(heading, top, body);
  if (focused >= 0) table.querySelectorAll("button")[focused]?.focus();
}
