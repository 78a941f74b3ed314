
const PAGE = 12;

class Browser {
  constructor(root, data, pictures) {
    Object.assign(this, { root, data, pictures, room: PAGE, among: null, choosers: [] });
    this.addChooser("task", (i) => this.word(data.samples[i][2]));
    this.addChooser("label", (i) => this.word(data.samples[i][3]));
    for (const table of data.tables) {
      for (const column of table.chosen) {
        const value = (i) => (table.rows[i] ? this.word(table.rows[i][column]) : "");
        this.addChooser(table.columns[column], value);
      }
    }
    this.search = root.querySelector('[data-role="search"]');
    this.search.addEventListener("input", () => this.update());
    root.querySelector(".more").addEventListener("click", () => this.update(this.room + PAGE));
    for (const link of document.querySelectorAll("a.behind")) {
      link.addEventListener("click", () => this.behind(link.dataset));
    }
    this.update();
  }

  word(number) {
    return this.data.words[number];
  }

  addChooser(name, value) {
    const values = [...new Set(this.data.samples.map((_, i) => value(i)))].filter((text) => text !== "");
    if (values.length < 2 || values.length > 40) return;
    const [label, select] = chooser(name, values.sort(), () => this.update());
    this.root.querySelector(".facets").append(label);
    this.choosers.push({ name, select, value });
  }

  behind({ task, among }) {
    this.search.value = "";
    for (const { name, select } of this.choosers) select.value = name === "task" && task ? task : "";
    this.among = among === undefined ? null : new Set(among.split(" ").map(Number));
    this.update(PAGE, true);
  }

  fits(i) {
    if (this.among && !this.among.has(i)) return false;
    if (this.choosers.some(({ select, value }) => select.value && value(i) !== select.value)) return false;
    const said = this.data.samples[i].slice(0, 4).map((number) => this.word(number)).join("\n");
    return said.toLowerCase().includes(this.search.value.toLowerCase());
  }

  update(room = PAGE, keepAmong = false) {
    if (!keepAmong && room === PAGE) this.among = null;
    this.room = room;
    const found = this.data.samples.map((_, i) => i).filter((i) => this.fits(i));
    const count = found.length.toLocaleString("en"), total = this.data.samples.length.toLocaleString("en");
    this.root.querySelector(".count").textContent = `${count} of ${total} samples.`;
    const cards = this.byPicture(found);
    this.root.querySelector(".samples").replaceChildren(...cards.slice(0, room).map((card) => this.card(card)));
    this.root.querySelector(".more").hidden = cards.length <= room;
  }

  byPicture(found) {
    const cards = new Map();
    for (const i of found) {
      const group = this.data.groups[i];
      cards.set(group, [...(cards.get(group) ?? []), i]);
    }
    return [...cards.values()];
  }

  card(members) {
    const card = element("article"), pictures = element("div", undefined, "pictures"), list = element("ul");
    const [id, , , , numbers] = this.data.samples[members[0]];
    for (const number of numbers) {
      const [source, wide, high] = this.pictures[number], picture = element("img");
      picture.setAttribute("src", source);
      picture.alt = `image of sample ${this.word(id)}`;
      picture.className = Math.max(wide, high) <= 96 ? "pixels" : "";
      pictures.append(picture);
    }
    list.append(...members.map((i) => this.question(i)));
    card.append(pictures, list);
    return card;
  }

  question(i) {
    const [id, prompt, task, label] = this.data.samples[i], said = element("li");
    said.append(element("span", this.word(prompt), "prompt"), " ", element("b", this.word(label)), " ");
    said.append(element("small", this.word(task)), element("small", this.word(id), "name"));
    const known = this.data.tables.filter((table) => table.rows[i]);
    if (known.length) {
      const more = element("details");
      more.append(element("summary", "what the analyses say"), ...known.flatMap((table) => this.values(table, table.rows[i])));
      said.append(more);
    }
    return said;
  }

  values(table, row) {
    const list = element("dl");
    table.columns.forEach((name, column) => {
      const value = this.word(row[column]), pair = element("div");
      pair.append(element("dt", name), element("dd", value));
      if (value) list.append(pair);
    });
    return [element("small", table.title), list];
  }
}

WIRING.push((root, pictures) => {
  for (const browser of root.querySelectorAll("div.browser")) {
    new Browser(browser, dataOf(browser, "browser-data"), pictures);
  }
});
