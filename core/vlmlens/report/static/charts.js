
const SVG = "http://www.w3.org/2000/svg";

function say(figure, lines) {
  figure.querySelector(".readout").textContent = lines.join("\n");
}

function readChart(svg, index) {
  const { left, slot, count } = svg.dataset;
  const i = Math.min(Math.max(index, 0), Number(count) - 1);
  svg.dataset.at = i;
  const x = Number(left) + (i + 0.5) * Number(slot);
  const cross = svg.querySelector(".cross");
  cross.setAttribute("x1", x);
  cross.setAttribute("x2", x);
  cross.classList.add("on");
  const titles = svg.querySelectorAll(`title[data-i="${i}"]`);
  say(svg.closest("figure"), Array.from(titles, (title) => title.textContent));
}

function slotAt(svg, event) {
  const place = svg.getBoundingClientRect();
  const scale = svg.viewBox.baseVal.width / place.width;
  const x = (event.clientX - place.left) * scale - Number(svg.dataset.left);
  return Math.floor(x / Number(svg.dataset.slot));
}

WIRING.push((root) => {
  for (const svg of root.querySelectorAll("svg[data-slot]")) {
    svg.setAttribute("tabindex", "0");
    svg.addEventListener("pointermove", (event) => readChart(svg, slotAt(svg, event)));
    svg.addEventListener("pointerdown", (event) => readChart(svg, slotAt(svg, event)));
    svg.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!step) return;
      event.preventDefault();
      readChart(svg, Number(svg.dataset.at ?? -1) + step);
    });
  }

  for (const figure of root.querySelectorAll("figure.heatmap")) {
    const read = (event) => {
      const title = event.target.closest("rect")?.querySelector("title");
      if (title) say(figure, [title.textContent]);
    };
    figure.addEventListener("pointerover", read);
    figure.addEventListener("pointerdown", read);
  }

  for (const figure of root.querySelectorAll("figure.graph")) {
    const nodes = Array.from(figure.querySelectorAll(".node"));
    const edges = Array.from(figure.querySelectorAll(".edge[data-from]"));
    let marked = null;
    const show = (node) => {
      for (const other of nodes) other.classList.toggle("at", other === node);
      const its = (edge) => node && [edge.dataset.from, edge.dataset.to].includes(node.dataset.node);
      for (const edge of edges) {
        edge.classList.toggle("faded", Boolean(node) && !its(edge));
        edge.classList.toggle("own", Boolean(node) && its(edge));
      }
      const told = node ? [node, ...edges.filter(its)] : [];
      say(figure, told.map((each) => each.querySelector("title").textContent));
    };
    const read = (event) => {
      const edge = event.target.closest(".edge[data-from]");
      const node = event.target.closest(".node");
      if (edge && !marked) say(figure, [edge.querySelector("title").textContent]);
      else if (node || !marked) show(node);
    };
    const mark = (node) => {
      marked = node === marked ? null : node;
      show(marked);
    };
    figure.addEventListener("pointerover", read);
    figure.addEventListener("pointerleave", () => show(marked));
    figure.addEventListener("click", (event) => mark(event.target.closest(".node")));
    figure.addEventListener("focusin", (event) => show(event.target.closest(".node") ?? marked));
    for (const node of nodes) {
      node.setAttribute("tabindex", "0");
      node.addEventListener("keydown", (event) => {
        if (event.key === "Enter") mark(node);
      });
    }
  }
});
