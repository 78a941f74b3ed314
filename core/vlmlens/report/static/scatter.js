
class Scatter {
  constructor(figure, data, pictures) {
    Object.assign(this, { figure, data, pictures, at: -1, space: 0, turn: 0, tilt: 0 });
    this.svg = figure.querySelector(".shown svg");
    this.marks = Array.from(this.svg.querySelectorAll("g.s"));
    this.tip = figure.querySelector(".tip");
    this.svg.setAttribute("tabindex", "0");
    for (const role of ["space", "turn", "tilt"]) {
      this.control(role)?.addEventListener("input", (event) => {
        this[role] = Number(event.target.value);
        this.draw();
      });
    }
    this.marks.forEach((mark, i) => mark.addEventListener("pointerover", () => this.show(i)));
    this.svg.addEventListener("keydown", (event) => this.step(event));
    this.svg.addEventListener("pointermove", (event) => this.drag(event));
    this.draw();
  }

  control(role) {
    return this.figure.querySelector(`[data-role="${role}"]`);
  }

  step(event) {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step) return;
    event.preventDefault();
    this.show(Math.min(Math.max(this.at + step, 0), this.marks.length - 1));
  }

  drag(event) {
    if (!event.buttons || !this.control("turn")) return;
    event.preventDefault();
    this.turn = ((this.turn + event.movementX / 2 + 540) % 360) - 180;
    this.tilt = Math.min(Math.max(this.tilt + event.movementY / 2, -90), 90);
    this.control("turn").value = this.turn;
    this.control("tilt").value = this.tilt;
    this.draw();
  }

  draw() {
    const { axes, places } = this.data.spaces[this.space], { middle, reach } = this.data;
    const turn = (this.turn * Math.PI) / 180, tilt = (this.tilt * Math.PI) / 180;
    places.forEach(([x, y, z = 0], i) => {
      const across = x * Math.cos(turn) + z * Math.sin(turn);
      const away = z * Math.cos(turn) - x * Math.sin(turn);
      const up = y * Math.cos(tilt) - away * Math.sin(tilt);
      const to = [middle + reach * across, middle - reach * up];
      this.marks[i].setAttribute("transform", `translate(${to.map((v) => v.toFixed(1)).join(" ")})`);
    });
    const turned = axes.length > 2 && (this.turn || this.tilt);
    this.svg.querySelector(".across").textContent = turned ? axes.join(", ") : axes[0];
    this.svg.querySelector(".up").textContent = turned ? "turned" : axes[1];
  }

  show(i) {
    this.marks[this.at]?.classList.remove("at");
    this.at = i;
    this.marks[i].classList.add("at");
    const [sample, tip, picture] = this.data.points[i], { words, kinds } = this.data;
    const kind = kinds[Number(this.marks[i].dataset.series)];
    this.tip.replaceChildren(element("b", words[sample]), element("div", kind), element("div", words[tip]));
    const [source, wide, high] = this.pictures[picture] ?? [];
    if (!source) return;
    const shown = element("img", undefined, Math.max(wide, high) <= 96 ? "pixels" : "");
    shown.setAttribute("src", source);
    shown.alt = `image of sample ${words[sample]}`;
    this.tip.append(shown);
  }
}

WIRING.push((root, pictures) => {
  for (const figure of root.querySelectorAll("figure.scatter")) {
    const data = dataOf(figure, "scatter-data");
    if (data) new Scatter(figure, data, pictures);
  }
});
