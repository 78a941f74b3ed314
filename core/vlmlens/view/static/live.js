"use strict";

const MOST_WAIT = 20;
const PAUSE = 350;
const EVEN = [8, 8];

async function asked(path, options = {}) {
  const answer = await fetch(path, { credentials: "same-origin", ...options }).catch(() => {
    throw new Error("The viewer does not answer. Is `vlmlens view` still running?");
  });
  const told = await answer.json().catch(() => ({ message: `The app answered with ${answer.status}.` }));
  if (!answer.ok) throw new Error([told.message, told.hint].filter(Boolean).join(" "));
  return told;
}

// Patches of a picture that is divided evenly: [left, top, right, bottom] as fractions, row by row.
function evenly(rows, columns) {
  return Array.from({ length: rows * columns }, (_, i) => {
    const row = Math.floor(i / columns), column = i % columns;
    return [column / columns, row / rows, (column + 1) / columns, (row + 1) / rows];
  });
}

// The rectangles that covered patches make: neighbours in a row join, then equal rows that follow.
function rectangles(covered, [rows, columns], patches) {
  const open = new Map(), made = [];
  for (let row = 0; row <= rows; row += 1) {
    const runs = new Set();
    for (let from = 0; row < rows && from < columns; from += 1) {
      if (!covered.has(row * columns + from)) continue;
      let to = from;
      while (to + 1 < columns && covered.has(row * columns + to + 1)) to += 1;
      runs.add(`${from} ${to}`);
      from = to;
    }
    for (const [key, top] of open) {
      if (runs.has(key)) continue;
      const [from, to] = key.split(" ").map(Number);
      const first = patches[top * columns + from], last = patches[(row - 1) * columns + to];
      made.push([first[0], first[1], last[2], last[3]]);
      open.delete(key);
    }
    for (const key of runs) if (!open.has(key)) open.set(key, row);
  }
  return made;
}

// One job at a time for each purpose: a newer one cancels the older.
class Job {
  constructor(say) {
    Object.assign(this, { say, id: null, turn: 0 });
  }

  async run(kind, question = null) {
    this.cancel();
    const turn = (this.turn += 1);
    this.say("asking");
    const body = JSON.stringify(question ? { kind, question } : { kind });
    const headers = { "content-type": "application/json" };
    const { job } = await asked("/live/jobs", { method: "POST", headers, body });
    if (turn !== this.turn) {
      this.drop(job);
      return null;
    }
    this.id = job;
    this.say("asking");
    for (;;) {
      const told = await asked(`/live/jobs/${job}?wait=${MOST_WAIT}`).catch((error) => {
        if (turn !== this.turn) return null;
        this.id = null;
        throw error;
      });
      if (turn !== this.turn) return null;
      if (told.state === "done") {
        this.id = null;
        this.say("");
        return told.result;
      }
      if (told.state === "failed" || told.state === "cancelled") {
        this.id = null;
        const { message, hint } = told.error ?? { message: "Cancelled." };
        throw new Error([message, hint].filter(Boolean).join(" "));
      }
      this.say(Job.words(told));
    }
  }

  static words({ state, ahead, done, total }) {
    if (state === "waiting") return ahead ? `waiting, ${ahead} before it` : "waiting";
    if (state === "loading") return "loading the model";
    return total ? `running, ${done} of ${total}` : "running";
  }

  cancel() {
    this.turn += 1;
    if (this.id) this.drop(this.id);
    this.id = null;
    this.say("");
  }

  drop(job) {
    fetch(`/live/jobs/${job}`, { method: "DELETE", credentials: "same-origin" }).catch(() => {});
  }
}

class Live {
  constructor(root) {
    this.root = root;
    this.covered = new Set();
    this.edits = [];
    this.shown = {};
    this.grid = EVEN;
    this.rectangles = evenly(...EVEN);
    this.at = 0;
    this.view = null;
    this.picture = this.pictureOf(root.dataset);
    this.answering = new Job((text) => this.state("state", text));
    this.viewing = new Job((text) => this.state("view-state", text));
    this.part("text").form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.ask();
    });
    for (const role of ["text", "choices"]) {
      this.on(role, "input", () => this.outdate());
      this.on(role, "keydown", (event) => {
        if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
        event.preventDefault();
        this.ask();
      });
    }
    this.on("cancel", "click", () => {
      this.answering.cancel();
      this.viewing.cancel();
    });
    this.on("uncover", "click", () => this.cover([...this.covered], false));
    this.on("file", "change", (event) => this.upload(event.target.files[0]));
    for (const [field, button] of [["edit", "add"], ["blocks", "cut"]]) {
      this.on(field, "keydown", (event) => {
        if (event.key !== "Enter" || event.isComposing) return;
        event.preventDefault();
        this.part(button).click();
      });
    }
    this.on("add", "click", () => this.add(this.part("edit").value.trim()));
    this.on("cut", "click", () => this.add(
      `llm.block.${this.part("blocks").value.trim() || "*"}.attn / ${this.part("rows").value} <- ${this.part("read").value} = cut`,
    ));
    this.steered = new Map();
    this.on("strength", "input", (event) => {
      this.part("strength-is").value = event.target.value;
      if (this.steered.has(this.direction)) this.steer();
    });
    this.on("steer", "click", () => this.steer());
    for (const button of document.querySelectorAll("[data-view]")) {
      button.addEventListener("click", () => this.look(button));
    }
    this.stage = root.querySelector(".stage");
    this.image = root.querySelector("[data-picture]");
    this.patches = root.querySelector(".cover-grid");
    this.listenToPatches();
    this.listenToDrops();
    this.drawPatches();
    root.querySelector(".changes").addEventListener("toggle", () => this.listDirections(), { once: true });
    if (this.part("text").value && this.picture) this.ask();
  }

  part(role) {
    return document.querySelector(`[data-role="${role}"]`);
  }

  on(role, kind, done) {
    this.part(role).addEventListener(kind, done);
  }

  pictureOf({ run, sample, upload }) {
    if (upload) return { upload };
    return run === undefined ? null : { sample: [Number(run), Number(sample)] };
  }

  state(role, text) {
    this.part(role).textContent = text;
    this.part("cancel").hidden = !this.answering?.id && !this.viewing?.id;
  }

  question() {
    const written = this.part("choices").value.trim(), sign = written.includes("\n") ? "\n" : ",";
    const choices = written.split(sign).map((each) => each.trim()).filter(Boolean);
    return {
      text: this.part("text").value,
      ...this.picture,
      choices,
      covers: rectangles(this.covered, this.grid, this.rectangles),
      edits: this.edits,
    };
  }

  // What is shown is about another question than the one that is written now.
  outdate() {
    const now = JSON.stringify(this.question());
    for (const [id, asked] of Object.entries(this.shown)) {
      document.getElementById(id).classList.toggle("outdated", Boolean(asked) && asked !== now);
    }
  }

  async ask() {
    clearTimeout(this.soon);
    this.outdate();
    if (!this.part("text").value.trim()) {
      this.state("state", "Write a question first.");
      return;
    }
    try {
      const asked = this.question();
      const found = await this.answering.run("answer", asked);
      if (!found) return;
      this.shown.answer = JSON.stringify(asked);
      this.show(found);
      this.outdate();
    } catch (error) {
      this.state("state", error.message);
    }
  }

  askSoon() {
    clearTimeout(this.soon);
    this.soon = setTimeout(() => this.ask(), PAUSE);
  }

  show({ unedited, edited, grid, patches, commands }) {
    if (grid && String(patches) !== String(this.rectangles) && !this.covered.size) {
      this.grid = grid;
      this.rectangles = patches;
      this.drawPatches();
    }
    this.drawAnswer("unedited", unedited);
    this.drawAnswer("edited", edited);
    this.part("difference").textContent = this.difference(unedited, edited);
    this.showCommands(commands);
    for (const id of ["answer", "views", "commands"]) document.getElementById(id).hidden = false;
  }

  difference(unedited, edited) {
    if (!edited) return "Cover patches or change the model to see what changes.";
    if (unedited.text !== edited.text) return `The answer changed: “${unedited.text}” became “${edited.text}”.`;
    return `The answer stays “${unedited.text}”.`;
  }

  drawAnswer(role, answer) {
    const place = this.part(role);
    place.replaceChildren();
    if (!answer) {
      place.append(element("p", "Nothing is changed yet.", "muted"));
      return;
    }
    place.append(element("p", answer.text, "said"));
    const listed = element("ol", undefined, "bars");
    for (const { text, probability } of answer.choices) {
      const line = element("li"), fill = element("span", undefined, "fill");
      fill.style.setProperty("--share", probability);
      line.append(fill, element("span", text || "(nothing)", "choice"), element("span", percent(probability), "share"));
      listed.append(line);
    }
    place.append(listed);
  }

  showCommands(commands) {
    for (const [kind, text] of Object.entries(commands)) {
      const place = document.querySelector(`[data-command="${kind}"]`);
      place.querySelector("code").textContent = text ?? "There is none for this question.";
      place.querySelector("button").hidden = text === null;
    }
  }

  async look(button) {
    for (const other of document.querySelectorAll("[data-view]")) {
      other.setAttribute("aria-pressed", String(other === button));
    }
    const place = this.part("view");
    place.replaceChildren();
    this.shown.views = null;
    try {
      const asked = this.question();
      const found = await this.viewing.run(button.dataset.view, asked);
      if (!found) return;
      this.shown.views = JSON.stringify(asked);
      this.outdate();
      place.innerHTML = found.html; // drawn and escaped by the report's components
      place.prepend(...found.said.map((line) => element("p", line)));
      wire(place);
      this.showCommands(found.commands);
    } catch (error) {
      this.state("view-state", error.message);
    }
  }

  // Patches

  drawPatches() {
    const [rows, columns] = this.grid;
    this.covered.clear();
    this.at = 0;
    const made = [];
    for (let i = 0; i < rows * columns; i += 1) {
      const patch = element("button");
      patch.type = "button";
      patch.tabIndex = i ? -1 : 0;
      patch.dataset.patch = i;
      const [left, top, right, bottom] = this.rectangles[i].map((share) => 100 * share);
      Object.assign(patch.style, {
        left: `${left}%`, top: `${top}%`, width: `${right - left}%`, height: `${bottom - top}%`,
      });
      patch.setAttribute("aria-label", `row ${Math.floor(i / columns) + 1}, column ${(i % columns) + 1}`);
      patch.setAttribute("aria-pressed", "false");
      made.push(patch);
    }
    this.patches.replaceChildren(...made);
    this.part("uncover").disabled = true;
    this.patches.hidden = this.image.hidden;
  }

  cover(which, on) {
    for (const i of which) {
      if (on) this.covered.add(i);
      else this.covered.delete(i);
      this.patches.children[i].setAttribute("aria-pressed", String(on));
    }
    this.part("uncover").disabled = !this.covered.size;
    this.outdate();
    this.askSoon();
  }

  listenToPatches() {
    let painting = null;
    const under = (event) => {
      const found = document.elementFromPoint(event.clientX, event.clientY)?.closest("[data-patch]");
      return found && this.patches.contains(found) ? Number(found.dataset.patch) : null;
    };
    this.patches.addEventListener("pointerdown", (event) => {
      const i = under(event);
      if (i === null || event.button) return;
      painting = !this.covered.has(i);
      this.cover([i], painting);
    });
    this.patches.addEventListener("pointermove", (event) => {
      const i = painting === null ? null : under(event);
      if (i !== null && this.covered.has(i) !== painting) this.cover([i], painting);
    });
    for (const kind of ["pointerup", "pointercancel"]) {
      document.addEventListener(kind, () => { painting = null; });
    }
    this.patches.addEventListener("click", (event) => {
      if (event.detail === 0) this.toggle(Number(event.target.closest("[data-patch]").dataset.patch));
    });
    this.patches.addEventListener("keydown", (event) => this.step(event));
  }

  toggle(i) {
    this.cover([i], !this.covered.has(i));
  }

  step(event) {
    const [rows, columns] = this.grid, at = Number(event.target.dataset.patch);
    const [down, right] = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key] ?? [];
    if (down === undefined) return;
    event.preventDefault();
    const row = Math.min(Math.max(Math.floor(at / columns) + down, 0), rows - 1);
    const column = Math.min(Math.max((at % columns) + right, 0), columns - 1);
    event.target.tabIndex = -1;
    const next = this.patches.children[row * columns + column];
    next.tabIndex = 0;
    next.focus();
  }

  // Pictures

  listenToDrops() {
    this.stage.addEventListener("dragover", (event) => {
      event.preventDefault();
      this.stage.classList.add("over");
    });
    this.stage.addEventListener("dragleave", () => this.stage.classList.remove("over"));
    this.stage.addEventListener("drop", (event) => {
      event.preventDefault();
      this.stage.classList.remove("over");
      this.upload(event.dataTransfer.files[0]);
    });
  }

  async upload(file) {
    if (!file) return;
    try {
      this.state("state", "reading the picture");
      const { upload } = await asked(`/live/pictures?file=${encodeURIComponent(file.name)}`, { method: "POST", body: file });
      this.picture = { upload };
      this.image.src = `/live/pictures/${upload}`;
      this.image.alt = file.name;
      this.image.hidden = false;
      this.grid = EVEN;
      this.rectangles = evenly(...EVEN);
      this.drawPatches();
      this.state("state", "");
      this.outdate();
      if (this.part("text").value.trim()) this.ask();
    } catch (error) {
      this.state("state", error.message);
    }
  }

  // Edits

  async listDirections() {
    this.directions = [];
    try {
      const found = await new Job(() => {}).run("directions");
      this.directions = found?.directions ?? [];
    } catch (error) {
      this.state("state", error.message);
    }
    this.part("direction").replaceChildren(...this.directions.map(({ name }, i) => option(i, name)));
    this.part("steering").hidden = !this.directions.length;
  }

  add(edit) {
    if (!edit) return;
    if (!this.edits.includes(edit)) this.edits.push(edit);
    this.part("edit").value = "";
    this.drawEdits();
    this.ask();
  }

  get direction() {
    return this.directions[Number(this.part("direction").value)].edit;
  }

  // One edit for each direction: the slider changes the one that is there.
  steer() {
    const made = this.direction.replace("{strength}", this.part("strength").value);
    const at = this.edits.indexOf(this.steered.get(this.direction));
    this.steered.set(this.direction, made);
    if (at < 0) {
      this.add(made);
      return;
    }
    this.edits[at] = made;
    this.drawEdits();
    this.askSoon();
  }

  drawEdits() {
    const lines = this.edits.map((edit, i) => {
      const line = element("li"), remove = element("button", "Remove");
      remove.type = "button";
      remove.setAttribute("aria-label", `Remove ${edit}`);
      remove.addEventListener("click", () => {
        this.edits.splice(i, 1);
        for (const [direction, made] of this.steered) if (made === edit) this.steered.delete(direction);
        this.drawEdits();
        this.ask();
      });
      line.append(element("code", edit), remove);
      return line;
    });
    this.part("edits").replaceChildren(...lines);
  }
}

for (const root of document.querySelectorAll("[data-live]")) new Live(root);
