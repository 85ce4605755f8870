// Shows an SVG drawn in Python and lights up its tiles. A tile is an element with a data-key,
// which stands in a role="row" of a role="grid". It knows nothing of what the tiles mean.
// Where it stands in a panel, it also keeps the panel's keys from JupyterLab's commands.
const OFFSETS = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };

const FOCUSABLE = "button, input, select, textarea, a, summary, [tabindex]";

// With the focus on a button or a list, `b` would insert a cell. JupyterLab looks at the focused
// element alone, not at its ancestors, so each one is marked, now and when more come.
function shield(el) {
  let panel = el;
  for (let up = el; up; up = up.parentElement) if (up.classList.contains("distinfer-panel")) panel = up;
  const mark = () => {
    for (const node of panel.querySelectorAll(FOCUSABLE)) node.dataset.lmSuppressShortcuts = "true";
    // ipywidgets gives the handle of a slider no name; its label stands beside it.
    for (const handle of panel.querySelectorAll("[role=slider]:not([aria-label])")) {
      const label = handle.closest(".jupyter-widgets")?.querySelector("label");
      if (label) handle.setAttribute("aria-label", label.textContent);
    }
  };
  const observer = new MutationObserver(mark);
  observer.observe(panel, { childList: true, subtree: true });
  mark();
  return observer;
}

function render({ model, el }) {
  const stage = document.createElement("div");
  const line = document.createElement("p");
  el.classList.add("distinfer-picture");
  stage.className = "stage";
  line.setAttribute("aria-live", "polite");
  el.append(stage, line);
  let tiles = new Map();

  const keyOf = (event) => event.target.closest?.("[data-key]")?.dataset.key ?? "";
  const send = (name, value) => {
    if (model.get(name) === value) return;
    model.set(name, value);
    model.save_changes();
  };

  function draw() {
    const focused = stage.contains(document.activeElement) ? keyOf({ target: document.activeElement }) : "";
    stage.innerHTML = model.get("svg");
    tiles = new Map([...stage.querySelectorAll("[data-key]")].map((tile) => [tile.dataset.key, tile]));
    for (const [key, tile] of tiles) {
      tile.setAttribute("role", "gridcell");
      tile.setAttribute("tabindex", "-1");
      tile.dataset.lmSuppressShortcuts = "true";
    }
    // What else stands in a row, totals for example, is read but cannot be chosen.
    for (const words of stage.querySelectorAll("[role=row] > :not([data-key])")) words.setAttribute("role", "gridcell");
    for (const grid of stage.querySelectorAll("[role=grid]")) rove(grid.querySelector("[data-key]"));
    say();
    // Who went through the tiles by keyboard goes on where he was.
    if (tiles.has(focused)) tiles.get(focused).focus();
  }

  function say() {
    for (const [key, tile] of tiles) tile.setAttribute("aria-label", model.get("sentences")[key] ?? key);
    paint();
  }

  function paint() {
    const [hover, selected] = [model.get("hover"), model.get("selected")];
    const shown = hover || selected;
    const linked = new Set(model.get("partner_sets")[model.get("partner_set_of")[shown]] ?? []);
    // Where no tile has partners, there is nothing to tell apart from the others.
    stage.classList.toggle("has-shown", tiles.has(shown) && model.get("partner_sets").length > 0);
    for (const [key, tile] of tiles) {
      tile.classList.toggle("is-hover", key === hover);
      tile.classList.toggle("is-selected", key === selected);
      tile.classList.toggle("is-linked", linked.has(key));
      tile.setAttribute("aria-selected", String(key === selected));
    }
    line.textContent = model.get("sentences")[shown] ?? model.get("hint");
  }

  function rove(tile) {
    // One stop of the Tab key for each grid; the arrows move it.
    tile?.closest("[role=grid]").querySelector('[tabindex="0"]')?.setAttribute("tabindex", "-1");
    tile?.setAttribute("tabindex", "0");
  }

  function onKey(event) {
    const tile = event.target.closest("[data-key]");
    if (!tile || event.ctrlKey || event.altKey || event.metaKey) return;
    const key = tile.dataset.key;
    if (event.key === "Enter" || event.key === " ") send("selected", model.get("selected") === key ? "" : key);
    else if (event.key === "Escape") send("selected", "");
    else if (!(event.key in OFFSETS) && event.key !== "Home" && event.key !== "End") return;
    else target(tile, event.key).focus();
    event.preventDefault();
    event.stopPropagation();
  }

  function target(tile, key) {
    const rows = [...tile.closest("[role=grid]").querySelectorAll("[role=row]")];
    let row = rows.indexOf(tile.closest("[role=row]"));
    let column = [...rows[row].children].indexOf(tile);
    const tilesOfRow = [...rows[row].querySelectorAll("[data-key]")];
    if (key === "Home" || key === "End") return tilesOfRow.at(key === "Home" ? 0 : -1);
    const [down, right] = OFFSETS[key];
    for (;;) {
      row += down;
      column += right;
      const next = rows[row]?.children[column];
      if (!next || next.dataset.key) return next ?? tile;
    }
  }

  stage.addEventListener("pointerover", (event) => send("hover", keyOf(event)));
  stage.addEventListener("pointerleave", () => send("hover", ""));
  stage.addEventListener("focusin", (event) => {
    rove(event.target.closest("[data-key]"));
    send("hover", keyOf(event));
  });
  stage.addEventListener("focusout", () => send("hover", ""));
  stage.addEventListener("keydown", onKey);
  stage.addEventListener("click", (event) => {
    const key = keyOf(event);
    send("selected", key === model.get("selected") ? "" : key);
  });

  const painted = ["hover", "selected"].map((name) => `change:${name}`);
  model.on("change:svg", draw);
  model.on("change:sentences", say);
  for (const name of painted) model.on(name, paint);
  draw();
  let observer;
  let frame = requestAnimationFrame(function attached() {
    if (el.isConnected) observer = shield(el);
    else frame = requestAnimationFrame(attached);
  });
  return () => {
    cancelAnimationFrame(frame);
    observer?.disconnect();
    model.off("change:svg", draw);
    model.off("change:sentences", say);
    for (const name of painted) model.off(name, paint);
  };
}

export default { render };
