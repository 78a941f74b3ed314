"use strict";
/* Of every page: the navigation of small screens, copying, and tables that come by slice. */
document.documentElement.classList.add("js");

function announce(text) {
  const room = document.getElementById("said");
  room.textContent = "";
  setTimeout(() => { room.textContent = text; }, 50);
}

function toggleMenu(button) {
  const open = button.getAttribute("aria-expanded") !== "true";
  button.setAttribute("aria-expanded", String(open));
  document.body.classList.toggle("open", open);
}

async function copy(text, code) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  getSelection().selectAllChildren(code);
  if (!document.execCommand("copy")) throw new Error("copying is not allowed");
}

async function copyOf(button) {
  const code = button.closest(".copied")?.querySelector("code");
  const told = button.dataset.told ?? (button.dataset.told = button.textContent);
  try {
    await copy(button.dataset.copy || code.textContent, code);
    button.textContent = "Copied";
    announce("Copied to the clipboard.");
  } catch {
    button.textContent = "Select and copy it by hand";
    announce("The browser does not allow copying. Select the text and copy it.");
  }
  setTimeout(() => { button.textContent = told; }, 2000);
}

/* A table of which the page holds the first rows only; the server sorts, searches and cuts. */
class SlicedTable {
  constructor(root) {
    Object.assign(this, { root, from: 0, sort: null, down: false, asked: 0 });
    this.table = root.querySelector("table");
    this.size = this.table.tBodies[0].rows.length;
    this.place = root.querySelector(".pager .count");
    this.find = root.querySelector('[data-role="find"]');
    this.find.addEventListener("input", () => {
      clearTimeout(this.waiting);
      this.waiting = setTimeout(() => this.show(0), 200);
    });
    root.querySelector(".pager").addEventListener("click", (event) => {
      const step = event.target.closest("[data-step]")?.dataset.step;
      if (step) this.show(this.from + Number(step) * this.size);
    });
    this.table.tHead.addEventListener("click", (event) => this.sortBy(event));
  }

  sortBy(event) {
    const header = event.target.closest("button")?.closest("th");
    if (!header) return;
    event.stopPropagation();
    this.down = this.sort === header.cellIndex && !this.down;
    this.sort = header.cellIndex;
    for (const other of this.table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", this.down ? "descending" : "ascending");
    this.show(0);
  }

  async show(from) {
    const asked = ++this.asked, address = new URL(this.root.dataset.rows, location.href), query = address.searchParams;
    query.set("from", Math.max(from, 0));
    if (this.sort !== null) query.set("sort", this.sort);
    if (this.down) query.set("down", 1);
    if (this.find.value) query.set("find", this.find.value);
    this.table.setAttribute("aria-busy", "true");
    try {
      const answer = await fetch(address, { headers: { accept: "application/json" } });
      const told = await answer.json();
      if (asked !== this.asked) return;
      if (!answer.ok) throw new Error(told.message);
      this.draw(Math.max(from, 0), told);
    } catch (error) {
      if (asked === this.asked) this.place.textContent = `The rows did not come: ${error.message}`;
    }
    this.table.removeAttribute("aria-busy");
  }

  draw(from, { rows, count }) {
    const heads = this.table.tHead.rows[0].cells;
    this.from = from;
    this.table.tBodies[0].replaceChildren(...rows.map((row) => this.row(row, heads)));
    const last = from + rows.length;
    const of = count.toLocaleString("en");
    this.place.textContent = count ? `${(from + 1).toLocaleString("en")} to ${last.toLocaleString("en")} of ${of}` : "No row fits.";
    this.root.querySelector('[data-step="-1"]').disabled = from === 0;
    this.root.querySelector('[data-step="1"]').disabled = last >= count;
    this.table.parentElement.scrollTop = 0;
  }

  row(cells, heads) {
    const made = document.createElement("tr");
    cells.forEach((cell, i) => {
      const each = document.createElement(i ? "td" : "th");
      if (!i) each.scope = "row";
      if (heads[i].classList.contains("number")) each.className = "number";
      if (Array.isArray(cell)) {
        const link = document.createElement("a");
        [link.textContent] = cell;
        [, link.href] = cell;
        each.append(link);
      } else each.textContent = cell;
      made.append(each);
    });
    return made;
  }
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  const busy = event.target.closest("[data-busy]")?.dataset.busy;
  if (busy) {
    event.target.textContent = busy;
    announce(busy);
  }
  if (button?.matches(".menu")) toggleMenu(button);
  else if (button && "copy" in button.dataset) copyOf(button);
});
document.addEventListener("keydown", (event) => {
  const menu = document.querySelector(".menu");
  if (event.key !== "Escape" || menu?.getAttribute("aria-expanded") !== "true") return;
  toggleMenu(menu);
  menu.focus();
});
for (const table of document.querySelectorAll("[data-rows]")) new SlicedTable(table);
document.querySelector("nav [aria-current]")?.scrollIntoView({ block: "nearest" });
if (location.hash) {
  for (let part = document.getElementById(location.hash.slice(1)); part; part = part.parentElement) {
    if (part.matches("details")) part.open = true;
  }
}
