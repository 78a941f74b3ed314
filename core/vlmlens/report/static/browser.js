
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
    this.root.querySelector(".samples").replaceChildren(...found.slice(0, room).map((i) => this.card(i)));
    this.root.querySelector(".more").hidden = found.length <= room;
  }

  card(i) {
    const [id, prompt, task, label, numbers] = this.data.samples[i];
    const card = element("article"), pictures = element("div", undefined, "pictures"), said = element("div");
    for (const number of numbers) {
      const [source, wide, high] = this.pictures[number], picture = element("img");
      picture.setAttribute("src", source);
      picture.alt = `image of sample ${this.word(id)}`;
      picture.className = Math.max(wide, high) <= 96 ? "pixels" : "";
      pictures.append(picture);
    }
    said.append(element("small", this.word(id)), element("div", this.word(prompt), "prompt"));
    said.append(element("b", this.word(label)), " ", element("small", this.word(task)));
    for (const table of this.data.tables) {
      if (table.rows[i]) said.append(this.values(table, table.rows[i]));
    }
    card.append(pictures, said);
    return card;
  }

  values(table, row) {
    const made = element("details"), list = element("dl");
    table.columns.forEach((name, column) => {
      const pair = element("div");
      pair.append(element("dt", name), element("dd", this.word(row[column])));
      list.append(pair);
    });
    made.append(element("summary", table.title), list);
    return made;
  }
}

for (const root of document.querySelectorAll("div.browser")) {
  new Browser(root, dataOf(root, "browser-data"), PICTURES);
}
