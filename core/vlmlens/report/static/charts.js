
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

for (const svg of document.querySelectorAll("svg[data-slot]")) {
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

for (const figure of document.querySelectorAll("figure.heatmap")) {
  const read = (event) => {
    const title = event.target.closest("rect")?.querySelector("title");
    if (title) say(figure, [title.textContent]);
  };
  figure.addEventListener("pointerover", read);
  figure.addEventListener("pointerdown", read);
}
