
const LEVELS = 24;

function element(name, text, look) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (look) made.className = look;
  return made;
}

function dataOf(parent, name) {
  const block = parent.querySelector(`script[type="application/json"].${name}`);
  return block && JSON.parse(block.textContent);
}

function option(value, text) {
  const made = element("option", text);
  made.value = value;
  return made;
}

function chooser(name, values, changed) {
  const label = element("label"), select = element("select");
  label.append(element("span", name), select);
  select.append(option("", "any"), ...values.map((value) => option(value, value)));
  select.addEventListener("change", changed);
  return [label, select];
}

function lookOf(value, data) {
  if (value === null) return "hn";
  const share = data.high > data.low ? (value - data.low) / (data.high - data.low) : 0.5;
  return `h${Math.round(Math.min(Math.max(share, 0), 1) * (LEVELS - 1))}`;
}

class Sheets {
  constructor(figure, data, pictures) {
    Object.assign(this, { figure, data, pictures, at: [data.layers.length - 1, 0], facets: new Map() });
    this.view = figure.querySelector(".view");
    this.tip = figure.querySelector(".tip");
    this.addFacets();
    for (const role of ["filter", "sheet", "find", "layer", "words"]) this.listen(role);
    this.view.addEventListener("keydown", (event) => this.move(event));
    for (const name of ["pointerover", "click"]) {
      this.view.addEventListener(name, (event) => this.point(event));
    }
    if (this.control("layer")) this.control("layer").value = data.layers.length - 1;
    this.filter();
  }

  control(role) {
    return this.figure.querySelector(`[data-role="${role}"]`);
  }

  listen(role) {
    const control = this.control(role);
    if (!control) return;
    const changed = { filter: () => this.filter(), layer: () => this.setLayer() }[role];
    control.addEventListener("input", changed ?? (() => this.draw()));
  }

  word(number) {
    return this.data.words[number];
  }

  addFacets() {
    const found = new Map();
    for (const sheet of this.data.sheets) {
      for (const [name, value] of Object.entries(sheet.facets)) {
        found.set(name, (found.get(name) ?? new Set()).add(this.word(value)));
      }
    }
    for (const [name, values] of found) {
      if (values.size < 2) continue;
      const [label, select] = chooser(name, [...values], () => this.filter());
      this.facets.set(name, select);
      this.figure.querySelector(".facets").append(label);
    }
  }

  filter() {
    const wanted = this.control("filter").value.toLowerCase();
    const fits = (sheet) => {
      const own = Object.values(sheet.facets).map((value) => this.word(value));
      const said = [this.word(sheet.name), this.word(sheet.question), ...own].join("\n");
      const chosen = [...this.facets].every(
        ([name, select]) => !select.value || this.word(sheet.facets[name]) === select.value,
      );
      return chosen && said.toLowerCase().includes(wanted);
    };
    const select = this.control("sheet"), before = select.value;
    const kept = this.data.sheets.map((sheet, i) => [sheet, i]).filter(([sheet]) => fits(sheet));
    select.replaceChildren(...kept.map(([sheet, i]) => option(i, this.word(sheet.name))));
    if (kept.some(([, i]) => String(i) === before)) select.value = before;
    this.figure.querySelector(".count").textContent = `${kept.length} of ${this.data.sheets.length}`;
    this.draw();
  }

  get sheet() {
    return this.data.sheets[this.control("sheet").value];
  }

  draw() {
    const question = this.figure.querySelector(".question");
    this.view.replaceChildren();
    this.tip.replaceChildren();
    question.textContent = this.sheet ? this.word(this.sheet.question) : "No sample fits.";
    if (!this.sheet) return;
    this.at[1] = Math.min(this.at[1], this.sheet.cells[0].length - 1);
    this.data.kind === "lens" ? this.drawTable() : this.drawPatches();
    this.show();
  }

  text(layer, i) {
    const texts = this.sheet.texts[layer], value = this.sheet.cells[layer][i];
    return texts ? this.word(texts[i]) : value === null ? "" : String(value);
  }

  drawTable() {
    const table = element("table"), head = element("tr"), body = element("tbody");
    const sought = this.control("find").value;
    head.append(element("th", "layer"), ...this.sheet.x.map((name) => element("th", this.word(name))));
    this.data.layers.forEach((name, layer) => {
      const row = element("tr");
      row.append(element("th", name));
      this.sheet.cells[layer].forEach((value, i) => {
        const text = this.text(layer, i), cell = element("td", text, lookOf(value, this.data));
        cell.classList.toggle("sought", sought !== "" && text.includes(sought));
        cell.dataset.at = `${layer} ${i}`;
        row.append(cell);
      });
      body.append(row);
    });
    const top = element("thead");
    top.append(head);
    table.append(top, body);
    this.view.append(table);
  }

  drawPatches() {
    const [source, wide, high] = this.pictures[this.sheet.picture] ?? ["", 1, 1];
    const svg = document.createElementNS(SVG, "svg");
    const width = 1000, height = (1000 * high) / wide;
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    svg.setAttribute("role", "img");
    svg.setAttribute("aria-label", this.word(this.sheet.name));
    if (source) {
      const picture = document.createElementNS(SVG, "image");
      for (const [key, value] of Object.entries({ href: source, width, height })) {
        picture.setAttribute(key, value);
      }
      picture.classList.toggle("pixels", Math.max(wide, high) <= 96);
      svg.append(picture);
    }
    this.patches = this.sheet.boxes.map((box, i) => box && this.patch(svg, box, i, width, height));
    this.view.append(svg);
    this.setLayer();
  }

  patch(svg, [left, top, right, bottom], i, width, height) {
    const rect = document.createElementNS(SVG, "rect"), word = document.createElementNS(SVG, "text");
    const size = { x: left * width, y: top * height, width: (right - left) * width, height: (bottom - top) * height };
    for (const [key, value] of Object.entries(size)) rect.setAttribute(key, value);
    rect.dataset.at = i;
    word.setAttribute("x", size.x + size.width / 2);
    word.setAttribute("y", size.y + size.height / 2 + 7);
    svg.append(rect, word);
    return { rect, word, letters: Math.floor(size.width / 12.5) };
  }

  setLayer() {
    const layer = Number(this.control("layer").value), withWords = this.control("words").checked;
    this.at[0] = layer;
    this.figure.querySelector(".layer").textContent = this.data.layers[layer];
    if (!this.sheet) return;
    this.patches.forEach((patch, i) => {
      if (!patch) return;
      const text = this.sheet.texts.length && withWords && patch.letters >= 3 ? this.text(layer, i) : "";
      patch.rect.setAttribute("class", `patch ${lookOf(this.sheet.cells[layer][i], this.data)}`);
      patch.word.textContent = text.length > patch.letters ? `${text.slice(0, patch.letters - 1)}…` : text;
    });
    this.show();
  }

  point(event) {
    const at = event.target.closest("[data-at]")?.dataset.at.split(" ").map(Number);
    if (!at) return;
    this.at = at.length === 2 ? at : [this.at[0], at[0]];
    this.show();
  }

  move(event) {
    const [layers, cells] = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key] ?? [];
    if (layers === undefined || !this.sheet) return;
    event.preventDefault();
    const within = (value, count) => Math.min(Math.max(value, 0), count - 1);
    this.at = [within(this.at[0] + layers, this.data.layers.length), within(this.at[1] + cells, this.sheet.cells[0].length)];
    if (this.control("layer")) {
      this.control("layer").value = this.at[0];
      this.setLayer();
    } else this.show();
  }

  show() {
    const [layer, i] = this.at, tips = this.sheet.tips[layer];
    const name = this.sheet.x.length ? this.word(this.sheet.x[i]) : `patch ${i + 1}`;
    const value = this.sheet.cells[layer][i];
    const lines = tips ? this.word(tips[i]).split("\n") : [`${this.text(layer, i)}  ${value ?? "-"}`];
    this.tip.replaceChildren(
      element("b", `${this.data.layers[layer]}, ${this.data.xLabel} ${name}`.replace(",  ", ", ")),
      ...lines.map((line) => element("div", line)),
    );
    for (const each of this.view.querySelectorAll(".at")) each.classList.remove("at");
    const key = this.data.kind === "lens" ? `${layer} ${i}` : String(i);
    this.view.querySelector(`[data-at="${key}"]`)?.classList.add("at");
  }
}

WIRING.push((root, pictures) => {
  for (const figure of root.querySelectorAll("figure.lens, figure.patches")) {
    const data = dataOf(figure, "sheets-data");
    if (data) new Sheets(figure, data, pictures);
  }
});
