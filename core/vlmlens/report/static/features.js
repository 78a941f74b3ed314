
const MOST_DRAWN = 3000;

function drawn(name, attributes, parent) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  parent?.append(made);
  return made;
}

function short(value) {
  if (value === null || value === undefined) return "-";
  const size = Math.abs(value);
  return size !== 0 && (size < 0.001 || size >= 10000) ? value.toExponential(1) : String(Number(value.toPrecision(3)));
}

function percent(share) {
  return `${Number((100 * share).toPrecision(2))} %`;
}

/* Pages of single features: a list to search, and all about the chosen one. */
class Features {
  constructor(figure, data, pictures) {
    Object.assign(this, { figure, data, pictures, at: 0, shown: null, patch: null });
    this.search = figure.querySelector('[data-role="feature-search"]');
    this.found = figure.querySelector(".found");
    this.clear = figure.querySelector(".clear");
    this.addChoosers();
    this.search.addEventListener("input", () => this.filter());
    this.clear.addEventListener("click", () => this.reset());
    figure.querySelector(".list").addEventListener("keydown", (event) => this.step(event));
    this.filter();
  }

  word(number) {
    return this.data.words[number];
  }

  addChoosers() {
    const { features, scenes, clear } = this.data;
    const kept = features.flatMap((page) => page.labels.filter((label) => label[4] < clear));
    const labels = [...new Set(kept.map((label) => this.labelled(label)))].sort();
    const samples = scenes.map((scene) => this.word(scene.sample));
    const facets = this.figure.querySelector(".facets");
    for (const [name, role, values] of [["separates", "label", labels], ["fires in", "sample", samples]]) {
      const [label, select] = chooser(name, values, () => this.filter());
      select.dataset.role = `feature-${role}`;
      this[role] = select;
      if (values.length) facets.append(label);
    }
  }

  labelled([target, label]) {
    return `${this.word(target)}: ${this.word(label)}`;
  }

  title(place) {
    const { number, name } = this.data.features[place];
    return this.word(name) ? `${number}  ${this.word(name)}` : String(number);
  }

  reset() {
    this.search.value = this.label.value = this.sample.value = "";
    this.patch?.mark.remove();
    this.patch = null;
    this.filter();
  }

  /* Places of the features that fit all that was asked for, and what to say of each. */
  fitting() {
    let found = this.data.features.map((_, place) => [place, ""]);
    const wanted = this.search.value.trim().toLowerCase();
    if (wanted) found = found.filter(([place]) => this.said(place).includes(wanted));
    if (/^\d+$/.test(wanted)) found.sort(([a], [b]) => this.exact(b, wanted) - this.exact(a, wanted));
    if (this.label.value) found = this.byLabel(found);
    const scene = this.data.scenes[this.sample.selectedIndex - 1];
    if (this.sample.value && scene) found = this.by(found, scene.fires);
    if (this.patch) found = this.by(found, this.patch.fires);
    return found;
  }

  exact(place, wanted) {
    return Number(String(this.data.features[place].number) === wanted);
  }

  said(place) {
    const page = this.data.features[place];
    const words = [page.name, page.told, ...page.samples.map((each) => each.sample), ...page.raised.map(([token]) => token)];
    const tokens = page.samples.flatMap((each) => each.tokens.filter((_, i) => each.values[i]));
    const labels = page.labels.filter((label) => label[4] < this.data.clear).map((label) => this.labelled(label));
    return [page.number, ...labels, ...[...words, ...tokens].map((number) => this.word(number))].join("\n").toLowerCase();
  }

  byLabel(found) {
    const kept = [];
    for (const [place] of found) {
      const label = this.data.features[place].labels.find((each) => each[4] < this.data.clear && this.labelled(each) === this.label.value);
      if (label) kept.push([place, `AUC ${label[2].toFixed(2)}`, label[2]]);
    }
    return kept.sort((a, b) => b[2] - a[2]);
  }

  by(found, fires) {
    const asked = new Map(found.map(([place]) => [place, true]));
    return fires.filter(([place]) => asked.has(place)).map(([place, value]) => [place, short(value)]);
  }

  filter() {
    const found = this.fitting(), list = this.figure.querySelector(".list"), { features } = this.data;
    this.figure.querySelector(".count").textContent = `${found.length} of ${features.length} features`;
    this.clear.hidden = found.length === features.length && !this.patch;
    this.found.textContent = this.patch ? `Fires in ${this.patch.name}:` : "";
    if (!found.length) this.found.textContent += this.patch ? " none of these features." : "No feature fits.";
    list.replaceChildren(...found.map(([place, beside]) => this.button(place, beside)));
    if (!this.patch && found.length && !found.some(([place]) => place === this.at)) this.at = found[0][0];
    this.draw();
  }

  button(place, beside) {
    const { number, name } = this.data.features[place], made = element("button");
    made.type = "button";
    made.dataset.feature = place;
    made.append(element("b", String(number)), element("span", this.word(name) || "no name", this.word(name) ? "" : "muted"));
    if (beside) made.append(element("i", beside));
    made.addEventListener("click", () => this.go(place));
    return made;
  }

  go(place) {
    this.at = place;
    this.draw();
  }

  step(event) {
    const by = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 }[event.key];
    const buttons = [...this.figure.querySelectorAll(".list button")];
    const next = buttons[buttons.indexOf(document.activeElement) + (by ?? 0)];
    if (!by || !next) return;
    event.preventDefault();
    next.focus();
    next.click();
  }

  draw() {
    for (const each of this.figure.querySelectorAll(".list button")) {
      each.setAttribute("aria-pressed", String(Number(each.dataset.feature) === this.at));
    }
    if (this.shown === this.at) return;
    this.shown = this.at;
    const room = this.figure.querySelector(".feature-page"), page = this.data.features[this.at];
    room.replaceChildren();
    const top = element("h4", `Feature ${page.number}`);
    top.append(" ", this.word(page.name) ? element("span", this.word(page.name)) : element("small", "no name: nothing that was tested is clear enough"));
    room.append(top, element("p", this.word(page.why), "muted"), this.facts(page));
    if (this.word(page.told)) room.append(this.told(page));
    const numbers = element("div", undefined, "numbers");
    numbers.append(...[this.histogram(page), this.labels(page), this.tokens(page), this.nearest(page)].filter(Boolean));
    room.append(numbers, ...this.samples(page));
  }

  facts(page) {
    const list = element("dl", undefined, "inline");
    const modality = page.modality.map(([name, share]) => [`of its codes in ${this.word(name)} rows`, percent(share)]);
    for (const [name, value] of [["fires in", `${percent(page.density)} of ${page.rows.toLocaleString("en")} rows`], ...modality]) {
      const pair = element("div");
      pair.append(element("dt", name), element("dd", value));
      list.append(pair);
    }
    return list;
  }

  told(page) {
    const said = element("blockquote");
    said.append(element("small", `The explainer ${this.word(page.explainer)} says, which nothing here tests:`), element("p", this.word(page.told)));
    return said;
  }

  part(title, ...content) {
    const made = element("section");
    made.append(element("h5", title), ...content);
    return made;
  }

  histogram(page) {
    const { counts, edges } = page;
    if (!counts.length) return null;
    const wide = 300, high = 90, slot = wide / counts.length, most = Math.max(...counts, 1);
    const svg = drawn("svg", { viewBox: `0 0 ${wide} ${high + 18}`, role: "img", "aria-label": `codes of feature ${page.number} where it fires` });
    counts.forEach((count, i) => {
      const tall = (high * count) / most;
      const bar = drawn("rect", { class: "bar c0", x: i * slot + 0.5, y: high - tall, width: Math.max(slot - 1, 0.5), height: tall }, svg);
      drawn("title", {}, bar).textContent = `${short(edges[i])} to ${short(edges[i + 1])}: ${count.toLocaleString("en")} rows`;
    });
    drawn("line", { class: "base", x1: 0, x2: wide, y1: high, y2: high }, svg);
    const step = Math.max(1, Math.ceil(edges.length / 5));
    edges.forEach((edge, i) => {
      if (i % step) return;
      const anchor = i === 0 ? "start" : i === edges.length - 1 ? "end" : "middle";
      drawn("text", { x: i * slot, y: high + 13, "text-anchor": anchor }, svg).textContent = short(Number(edge.toPrecision(2)));
    });
    return this.part("Codes where it fires", svg, element("p", `up to ${most.toLocaleString("en")} rows per bar${page.counted ? `, of ${page.counted.toLocaleString("en")} rows` : ""}`, "muted"));
  }

  labels(page) {
    if (!page.labels.length) return this.part("What it separates", element("p", "Nothing could be tested.", "muted"));
    const table = element("table"), head = element("tr"), body = element("tbody"), top = element("thead");
    head.append(...["", "AUC", "shuffled", "p (Holm)"].map((name) => element("th", name)));
    for (const label of page.labels) {
      const row = element("tr", undefined, label[4] < this.data.clear ? "" : "muted");
      row.append(element("td", this.labelled(label)), ...[label[2].toFixed(2), label[3].toFixed(2), short(label[4])].map((text) => element("td", text, "number")));
      row.title = `${label[5]} independent units`;
      body.append(row);
    }
    top.append(head);
    table.append(top, body);
    const view = element("div", undefined, "scroll");
    view.append(table);
    return this.part("What it separates", view);
  }

  tokens(page) {
    const content = [["raised", "raises"], ["lowered", "lowers"]].filter(([key]) => page[key].length).map(([key, verb]) => {
      const line = element("p", undefined, "tokens");
      line.append(element("small", `${verb} `), ...page[key].flatMap(([token, value]) => {
        const made = element("code", this.word(token));
        made.title = short(value);
        return [made, " "];
      }));
      return line;
    });
    if (this.word(page.written)) content.push(element("p", this.word(page.written), "muted"));
    return content.length ? this.part("Output tokens", ...content) : null;
  }

  nearest(page) {
    if (!page.nearest.length) return null;
    const line = element("p", undefined, "tokens");
    for (const [number, cosine] of page.nearest) {
      const place = this.data.features.findIndex((other) => other.number === number);
      const text = `${place < 0 ? number : this.title(place)} (${cosine.toFixed(2)})`;
      const made = element(place < 0 ? "span" : "button", text, "near");
      if (place >= 0) {
        made.type = "button";
        made.addEventListener("click", () => this.go(place));
      }
      line.append(made, " ");
    }
    return this.part("Features with the nearest directions (cosine)", line);
  }

  samples(page) {
    if (!page.samples.length) return [element("p", "It fires in none of the samples that are looked at.", "muted")];
    const high = Math.max(...page.samples.map((each) => each.value));
    const tops = page.samples.filter((each) => this.word(each.why).startsWith("top"));
    const others = page.samples.filter((each) => !this.word(each.why).startsWith("top"));
    return [["Samples where it is strongest", tops], ["Other samples where it fires", others]]
      .filter(([, members]) => members.length)
      .map(([title, members], i) => {
        const grid = element("div", undefined, "cards"), pictured = members.some((each) => each.panels.length);
        grid.append(...members.map((each) => this.card(each, { low: 0, high })));
        const scale = element("p", `Bright patches fire, the brightest with ${short(high)}. Choose a patch to see which features fire there.`, "muted");
        return this.part(title, ...(pictured && i === 0 ? [scale] : []), grid);
      });
  }

  card(each, scale) {
    const card = element("div", undefined, "card"), tip = element("p", undefined, "tip");
    const name = this.word(each.sample);
    each.panels.forEach((panel, i) => {
      const places = this.data.scenes[each.scene]?.panels[i];
      card.append(new Picture(this, { panel, places, name, scale, tip }).svg);
      if (this.word(panel.view)) card.append(element("small", this.word(panel.view)));
    });
    const said = element("p");
    said.append(element("b", short(each.value)), " ", element("small", this.word(each.why)));
    card.append(tip, said);
    if (each.tokens.length) card.append(this.context(each, scale));
    const facts = each.facts.map(([key, value]) => `${this.word(key)}: ${this.word(value)}`).join(", ");
    if (facts) card.append(element("p", facts));
    card.append(element("small", name, "name"));
    return card;
  }

  context(each, scale) {
    const line = element("p", undefined, "context");
    each.tokens.forEach((token, i) => {
      const value = each.values[i], made = element("span", this.word(token), value > 0 ? `lit ${lookOf(value, scale)}` : "");
      if (value !== null) made.title = short(value);
      line.append(made, " ");
    });
    return line;
  }

  choosePatch(patch) {
    this.patch?.mark.remove();
    this.patch = patch;
    this.filter();
  }
}

/* A sample's picture with the patches where a feature fires; each patch can be asked about. */
class Picture {
  constructor(features, { panel, places, name, scale, tip }) {
    Object.assign(this, { features, panel, places, name, tip, at: null });
    const [source, wide, high] = features.pictures[panel.picture] ?? ["", 1, 1];
    this.size = [1000, (1000 * high) / wide];
    const [width, height] = this.size;
    this.svg = drawn("svg", { viewBox: `0 0 ${width} ${height}`, class: "seen", role: "img", tabindex: 0 });
    this.svg.style.width = `min(100%, ${(14 * width) / height}rem)`;
    this.svg.setAttribute("aria-label", `picture of ${name}: arrow keys choose a patch, Enter shows which features fire there`);
    if (source) {
      const picture = drawn("image", { href: source, width, height }, this.svg);
      picture.classList.toggle("pixels", Math.max(wide, high) <= 96);
    } else drawn("rect", { class: "hn", width, height }, this.svg);
    this.addPatches(scale);
    this.mark = drawn("rect", { class: "mark-patch", visibility: "hidden" }, this.svg);
    this.svg.addEventListener("pointermove", (event) => this.point(this.under(event)));
    this.svg.addEventListener("click", (event) => this.choose(this.under(event)));
    this.svg.addEventListener("keydown", (event) => this.move(event));
  }

  box(number) {
    const [left, top, right, bottom] = this.features.data.boxes[number], [wide, high] = this.size;
    const inside = (value) => Math.min(Math.max(value ?? 0, 0), 1);
    return { x: inside(left) * wide, y: inside(top) * high, width: (inside(right) - inside(left)) * wide, height: (inside(bottom) - inside(top)) * high };
  }

  /* What does not fire is darkened, so that what fires keeps its own colours. */
  addPatches({ high }) {
    const [wide, tall] = this.size;
    const lit = this.panel.boxes.slice(0, MOST_DRAWN).map((number) => this.box(number));
    const holes = lit.map(({ x, y, width, height }) => `M${x} ${y}h${width}v${height}h${-width}z`);
    drawn("path", { class: "dim", "fill-rule": "evenodd", d: `M0 0H${wide}V${tall}H0z${holes.join("")}` }, this.svg);
    lit.forEach((box, i) => {
      const share = high > 0 ? Math.min(Math.max(this.panel.values[i] / high, 0), 1) : 0;
      drawn("rect", { ...box, class: "lit-patch", "fill-opacity": (0.62 * (1 - share)).toFixed(3), "stroke-opacity": (0.9 * share).toFixed(3) }, this.svg);
    });
  }

  get all() {
    return this.places ? this.places.boxes : this.panel.boxes;
  }

  under(event) {
    const place = this.svg.getBoundingClientRect();
    const x = ((event.clientX - place.left) / place.width) * this.size[0];
    const y = ((event.clientY - place.top) / place.height) * this.size[1];
    const found = this.all.findIndex((number) => {
      const box = this.box(number);
      return x >= box.x && x < box.x + box.width && y >= box.y && y < box.y + box.height;
    });
    return found < 0 ? null : found;
  }

  point(patch) {
    this.at = patch;
    this.mark.setAttribute("visibility", patch === null ? "hidden" : "visible");
    if (patch === null) return;
    for (const [key, value] of Object.entries(this.box(this.all[patch]))) this.mark.setAttribute(key, value);
    const value = this.panel.values[this.panel.boxes.indexOf(this.all[patch])];
    this.tip.textContent = `patch ${patch + 1}: ${value === undefined ? "does not fire" : short(value)}`;
  }

  choose(patch) {
    if (patch === null) return;
    this.point(patch);
    if (!this.places) {
      this.tip.textContent += "; what else fires here is not kept";
      return;
    }
    const mark = drawn("rect", { ...this.box(this.all[patch]), class: "mark-patch chosen" }, this.svg);
    this.features.choosePatch({ name: `patch ${patch + 1} of ${this.name}`, fires: this.places.fires[patch], mark });
  }

  move(event) {
    const by = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (event.key === "Enter") this.choose(this.at);
    if (!by || !this.all.length) return;
    event.preventDefault();
    this.point(this.at === null ? 0 : this.beside(by));
  }

  /* The nearest patch in a direction; the same one at the edge. */
  beside([across, down]) {
    const middle = (i) => {
      const box = this.box(this.all[i]);
      return [box.x + box.width / 2, box.y + box.height / 2];
    };
    const [x, y] = middle(this.at);
    let best = this.at, least = Infinity;
    this.all.forEach((_, i) => {
      const [a, b] = middle(i), along = (a - x) * across + (b - y) * down, aside = Math.abs((a - x) * down) + Math.abs((b - y) * across);
      const far = along + 4 * aside;
      if (along > 1 && far < least) [best, least] = [i, far];
    });
    return best;
  }
}

WIRING.push((root, pictures) => {
  for (const figure of root.querySelectorAll("figure.features")) {
    const data = dataOf(figure, "features-data");
    if (data?.features.length) new Features(figure, data, pictures);
  }
});
