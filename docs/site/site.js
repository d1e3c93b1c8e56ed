// Tables sort by a click on a heading, filter by words, and download as CSV; pictures enlarge by a click.
"use strict";

function number(text) {
  const found = text.replace(/,/g, "").match(/-?\d+(\.\d+)?/);
  return found && /^[\s*+≈-]*\d/.test(text.trim()) ? parseFloat(found[0]) : NaN;
}

function sortRows(table, column, up) {
  const body = table.tBodies[0];
  const text = (row) => (row.cells[column] ? row.cells[column].textContent.trim() : "");
  const order = (a, b) => {
    const [x, y] = [number(text(a)), number(text(b))];
    if (isNaN(x) !== isNaN(y)) return isNaN(x) ? 1 : -1; // what is no number goes last, either way
    const found = isNaN(x) ? text(a).localeCompare(text(b)) : x - y;
    return up ? found : -found;
  };
  [...body.rows].sort(order).forEach((row) => body.append(row));
}

function asCsv(table) {
  const cell = (td) => `"${td.textContent.trim().replace(/"/g, '""')}"`;
  return [...table.rows].filter((row) => !row.hidden).map((row) => [...row.cells].map(cell).join(",")).join("\r\n");
}

function tools(table, place) {
  const bar = document.createElement("div");
  bar.className = "tools";
  if (table.tBodies[0].rows.length > 8) {
    const filter = document.createElement("input");
    filter.type = "search";
    filter.placeholder = "rows with …";
    filter.setAttribute("aria-label", "show the rows that hold these words");
    filter.addEventListener("input", () => {
      const words = filter.value.toLowerCase().split(/\s+/);
      for (const row of table.tBodies[0].rows) {
        const cells = [...row.cells].map((td) => td.textContent.trim().toLowerCase());
        row.hidden = !words.every((word) => cells.some((text) => text.includes(word)));
      }
    });
    bar.append(filter);
  }
  const csv = document.createElement("button");
  csv.textContent = "CSV";
  csv.title = "download this table";
  csv.addEventListener("click", () => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([asCsv(table)], { type: "text/csv" }));
    link.download = `${document.title.split(" — ")[0].replace(/\W+/g, "_")}_${place + 1}.csv`;
    link.click();
    URL.revokeObjectURL(link.href);
  });
  bar.append(csv);
  return bar;
}

function furnish(table, place) {
  const scroll = document.createElement("div");
  scroll.className = "scroll";
  scroll.tabIndex = 0; // a keyboard scrolls it
  table.replaceWith(scroll);
  scroll.append(table);
  for (const cell of table.querySelectorAll("td")) cell.classList.toggle("prose", cell.textContent.trim().length > 40);
  if (table.tHead && !table.tHead.textContent.trim()) table.deleteTHead(); // Markdown has no table without headings
  if (!table.tHead || !table.tBodies.length) return;
  scroll.before(tools(table, place));
  const merged = [...table.rows].some((row) => [...row.cells].some((td) => td.rowSpan > 1 || td.colSpan > 1));
  if (merged || table.tHead.rows.length > 1) return; // rows that hang together cannot be sorted
  [...table.tHead.rows[0].cells].forEach((heading, column) => {
    const button = document.createElement("button");
    button.append(...heading.childNodes);
    heading.append(button);
    heading.setAttribute("aria-sort", "none");
    button.addEventListener("click", () => {
      const up = heading.getAttribute("aria-sort") !== "ascending";
      for (const other of table.tHead.rows[0].cells) other.setAttribute("aria-sort", "none");
      heading.setAttribute("aria-sort", up ? "ascending" : "descending");
      sortRows(table, column, up);
    });
  });
}

function enlarge(image) {
  image.addEventListener("click", () => {
    const dialog = document.createElement("dialog");
    dialog.className = "large";
    const large = image.cloneNode();
    large.removeAttribute("width");
    large.removeAttribute("style");
    dialog.append(large);
    dialog.addEventListener("click", () => dialog.close());
    dialog.addEventListener("close", () => dialog.remove());
    document.body.append(dialog);
    dialog.showModal();
  });
}

document.querySelectorAll("article table").forEach(furnish);
document.querySelectorAll("article img").forEach((image) => image.closest("a") || enlarge(image));
