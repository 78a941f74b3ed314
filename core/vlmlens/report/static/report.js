"use strict";
document.documentElement.classList.add("js");

// What makes a part of the page answer: functions of (root, pictures), called by `wire`.
const WIRING = [];

function sortBy(button) {
  const header = button.closest("th");
  const table = header.closest("table");
  const column = header.cellIndex;
  const down = header.getAttribute("aria-sort") === "ascending";
  const sign = down ? -1 : 1;
  const text = new Intl.Collator(undefined, { numeric: true });
  const rows = Array.from(table.tBodies[0].rows);
  const compare = (a, b) => {
    const x = a.cells[column], y = b.cells[column];
    const hasX = "v" in x.dataset, hasY = "v" in y.dataset;
    if (hasX && hasY) return sign * (Number(x.dataset.v) - Number(y.dataset.v));
    if (hasX !== hasY) return hasX ? -1 : 1;
    return sign * text.compare(x.textContent, y.textContent);
  };
  rows.sort(compare);
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", down ? "descending" : "ascending");
  table.tBodies[0].append(...rows);
}

function highlight(button) {
  const figure = button.closest("figure");
  const on = button.getAttribute("aria-pressed") !== "true";
  for (const other of figure.querySelectorAll(".legend button")) other.setAttribute("aria-pressed", "false");
  button.setAttribute("aria-pressed", String(on));
  for (const part of figure.querySelectorAll(".s")) {
    part.classList.toggle("faded", on && part.dataset.series !== button.dataset.series);
  }
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  if (button.closest("thead")) sortBy(button);
  else if (button.closest(".legend")) highlight(button);
});
