(() => {
  const controls = document.querySelector(".controls[data-address]");
  if (!controls) return;
  const rows = document.getElementById("rows"), chips = document.getElementById("chips");
  const said = document.getElementById("rows-said");
  const control = (role) => controls.querySelector(`[data-role="${role}"]`);
  const made = (name, text) => Object.assign(document.createElement(name), { textContent: text });
  let waiting = null, asking = null;

  async function ask(path, query) {
    const answer = await fetch(`${controls.dataset.address}/samples/${path}?${query}`, {
      headers: { accept: "application/json" },
      signal: asking?.signal,
    });
    const found = await answer.json();
    if (!answer.ok) throw new Error([found.message, found.hint].filter(Boolean).join(" "));
    return found;
  }

  function query() {
    const made = new URLSearchParams(location.search);
    made.delete("from");
    for (const role of ["q", "task", "label", "sort", "order"]) {
      const value = control(role)?.value;
      if (value === undefined || value === (made.get(role) ?? "")) continue;
      value ? made.set(role, value) : made.delete(role);
    }
    if (!made.has("sort")) made.delete("order");
    return made;
  }

  function withWhere(made, column, sign, value) {
    const others = made.getAll("where").filter((each) => sign !== "=" || !each.startsWith(`${column}=`));
    made.delete("where");
    for (const each of others) made.append("where", each);
    if (value) made.append("where", `${column}${sign}${value}`);
    return made;
  }

  async function update(asked = query()) {
    asking?.abort();
    asking = new AbortController();
    rows.setAttribute("aria-busy", "true");
    try {
      const found = await ask("rows", asked);
      rows.innerHTML = found.html;
      chips.innerHTML = found.chips;
      said.textContent = rows.querySelector(".count").textContent;
      const text = asked.toString();
      history.replaceState(null, "", text ? `?${text}` : location.pathname);
    } catch (error) {
      if (error.name === "AbortError") return;
      const told = made("p", error.message);
      told.className = "wrong-query";
      rows.replaceChildren(told);
      said.textContent = error.message;
    }
    rows.removeAttribute("aria-busy");
  }

  async function more(link) {
    const asked = new URLSearchParams(link.search);
    link.setAttribute("aria-busy", "true");
    try {
      const found = await ask("rows", asked), next = made("template", "");
      next.innerHTML = found.html;
      const added = [...next.content.querySelectorAll("li")];
      rows.querySelector("ol").append(...added);
      const after = next.content.querySelector("a.more");
      after ? link.replaceWith(after) : link.remove();
      added[0]?.querySelector("a").focus({ preventScroll: true });
      said.textContent = `${added.length} more`;
    } catch (error) {
      if (error.name !== "AbortError") said.textContent = error.message;
    }
  }

  let described = Promise.resolve(); // a condition waits until the sign fits the column

  async function describe(column) {
    const values = document.getElementById("values"), sign = control("sign").value;
    values.replaceChildren();
    if (!column) return;
    const known = await ask("column", new URLSearchParams({ name: column }));
    if (control("column").value !== column) return;
    values.append(...known.values.map((value) => Object.assign(made("option", value), { value })));
    const isNumber = known.kind === "number";
    if (control("sign").value === sign) control("sign").value = isNumber ? ">=" : "=";
    control("value").placeholder = isNumber && known.low !== null ? `${show(known.low)} to ${show(known.high)}` : "";
  }

  function show(number) {
    return Number(number.toPrecision(3)).toString();
  }

  async function add() {
    await described;
    const column = control("column").value, value = control("value").value;
    if (!column || value === "") return control(column ? "value" : "column").focus();
    control("value").value = "";
    update(withWhere(query(), column, control("sign").value, value));
  }

  function walk(step) {
    const links = [...rows.querySelectorAll("ol a, a.more")];
    const next = links[Math.max(links.indexOf(document.activeElement) + step, 0)];
    next?.focus();
    next?.scrollIntoView({ block: "nearest" });
    return next;
  }

  controls.addEventListener("input", (event) => {
    if (event.target.dataset.role !== "q") return;
    clearTimeout(waiting);
    waiting = setTimeout(update, 150);
  });
  controls.addEventListener("change", (event) => {
    const { role, column } = event.target.dataset;
    if (role === "column") {
      described = describe(event.target.value).catch((error) => { said.textContent = error.message; });
    } else if (role === "right") update(withWhere(query(), column, "=", event.target.value));
    else if (!["q", "sign", "value"].includes(role)) update();
  });
  controls.addEventListener("click", (event) => {
    if (event.target.dataset.role === "add") add();
  });
  controls.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && event.target.dataset.role === "value") add();
    if (event.key === "ArrowDown" && event.target.dataset.role === "q" && walk(0)) event.preventDefault();
  });
  rows.addEventListener("click", (event) => {
    const link = event.target.closest("a.more");
    if (!link || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    more(link);
  });
  document.addEventListener("keydown", (event) => {
    const typing = event.target.closest("input, select, textarea");
    if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
    const step = { ArrowDown: 1, ArrowUp: -1, j: 1, k: -1 }[event.key];
    if (step && rows.contains(event.target)) walk(step);
    else if (step === 1) walk(1);
    else if (event.key === "/") control("q").focus();
    else return;
    event.preventDefault();
  });
})();

(() => {
  if (!document.querySelector(".one-sample")) return;
  document.addEventListener("keydown", (event) => {
    if (event.target.closest("input, select, textarea, [tabindex], summary, button")) return;
    if (event.ctrlKey || event.metaKey || event.altKey || event.shiftKey) return;
    const side = { ArrowLeft: "prev", ArrowRight: "next" }[event.key];
    document.querySelector(`.one-sample a[rel="${side}"]`)?.click();
  });
})();
