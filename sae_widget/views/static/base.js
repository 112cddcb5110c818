// What every pane shares: building DOM without HTML, the theme, the palette as tables, and the shared selection.
// Stands behind `const PALETTE = {...}` (made by palette.py) and before the code of one pane, as one module.

/** An element with attributes, listeners (`onclick: fn`) and children; strings become text, never HTML. */
function h(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(props)) {
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (value === true) node.setAttribute(key, "");
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(key, value);
  }
  node.append(...children);
  return node;
}

/** Whether the page around the element is dark: JupyterLab, VS Code, Colab, any page with --jp-* colours, the system. */
function isDark(el) {
  const { body, documentElement: html } = document;
  if (body.dataset.jpThemeLight) return body.dataset.jpThemeLight === "false";
  if (body.classList.contains("vscode-light")) return false;
  if (body.classList.contains("vscode-dark") || body.classList.contains("vscode-high-contrast")) return true;
  const named = html.getAttribute("theme") ?? html.dataset.theme;
  if (named === "dark" || named === "light") return named === "dark";
  const style = getComputedStyle(el);
  if (style.getPropertyValue("--jp-ui-font-color1").trim()) {
    const text = style.color.match(/[\d.]+/g);
    if (text) return text.slice(0, 3).reduce((sum, part) => sum + Number(part), 0) > 382;
  }
  return matchMedia("(prefers-color-scheme: dark)").matches;
}

/** Call `fn("light" | "dark")` now and whenever the page's theme changes. */
function watchTheme(el, signal, fn) {
  let shown = null;
  const look = () => {
    const theme = isDark(el) ? "dark" : "light";
    if (theme !== shown) fn((shown = theme));
  };
  const observer = new MutationObserver(look);
  observer.observe(document.body, { attributes: true, attributeFilter: ["class", "data-jp-theme-light"] });
  observer.observe(document.documentElement, { attributes: true, attributeFilter: ["class", "theme", "data-theme"] });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", look, { signal });
  signal.addEventListener("abort", () => observer.disconnect());
  look();
}

/** Run `fn` once in the next frame, however often it is asked for. */
function inNextFrame(fn) {
  let asked = false;
  return () => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => {
      asked = false;
      fn();
    });
  };
}

/** The colour at `place` (0 to 1) between control points, as [r, g, b]. */
function mixColour(points, place) {
  const at = Math.min(1, Math.max(0, place)) * (points.length - 1);
  const low = Math.min(points.length - 2, Math.floor(at));
  const channel = (point, i) => parseInt(point.slice(1 + 2 * i, 3 + 2 * i), 16);
  return [0, 1, 2].map((i) =>
    Math.round(channel(points[low], i) * (low + 1 - at) + channel(points[low + 1], i) * (at - low)));
}

const cssColour = ([r, g, b]) => `rgb(${r}, ${g}, ${b})`;

/** The colour as the little-endian number that a canvas wants. */
const packColour = ([r, g, b]) => ((255 << 24) | (b << 16) | (g << 8) | r) >>> 0;

/** Black or white, whichever is easier to read on the colour. */
function inkOn([r, g, b]) {
  const [x, y, z] = [r, g, b].map((v) => (v <= 10 ? v / 3295 : ((v / 255 + 0.055) / 1.055) ** 2.4));
  return 0.2126 * x + 0.7152 * y + 0.0722 * z > 0.18 ? "#111111" : "#ffffff";
}

/** A CSS gradient through the control points. */
const gradient = (points) => `linear-gradient(to right, ${points.join(", ")})`;

/** A number for a person: three digits, a real minus sign. */
function nice(value) {
  if (!Number.isFinite(value)) return Number.isNaN(value) ? "not a number" : value > 0 ? "∞" : "−∞";
  const size = Math.abs(value);
  const text = size === 0 ? "0" : size >= 1000 ? Math.round(size).toLocaleString("en")
    : size >= 0.001 ? String(Number(size.toPrecision(3))) : size.toExponential(1).replace("-", "−");
  return value < 0 ? `−${text}` : text;
}

const whole = (value) => value.toLocaleString("en");

/** The typed array behind a binary trait, copied so that it is aligned; empty when there is none. */
function typed(Type, view) {
  if (!view || !view.byteLength) return new Type(0);
  return new Type(view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength));
}

/**
 * The root of a pane: `data-pane`, the theme, the line for faults, and a polite line for screen readers.
 * `drawn()` is to be called after each drawing from data; `onTheme` handlers run when the theme changes.
 */
function makePane({ model, el, signal }, name, label) {
  const fault = h("div", { class: "saew-fault", role: "alert", hidden: true });
  const live = h("div", { class: "saew-live", "aria-live": "polite" });
  const body = h("div", { class: "saew-body" });
  const root = h("section", {
    class: `saew saew-${name}`, "data-pane": name, "data-draws": "0", "data-lm-suppress-shortcuts": "true", "aria-label": label,
  }, fault, body, live);
  el.append(root);
  const themeHandlers = [];
  const pane = {
    root, body, theme: "light",
    drawn() { root.dataset.draws = String(Number(root.dataset.draws) + 1); },
    say(text) { if (live.textContent !== text) live.textContent = text; },
    onTheme(fn) { themeHandlers.push(fn); },
  };
  watchTheme(root, signal, (theme) => {
    root.dataset.theme = pane.theme = theme;
    themeHandlers.forEach((fn) => fn(theme));
  });
  const showFault = () => {
    fault.textContent = model.get("fault") ?? "";
    fault.hidden = !fault.textContent;
  };
  model.on("change:fault", showFault);
  model.on("change:refused", () => pane.say("That entry was refused; nothing was changed."));
  showFault();
  return pane;
}

/**
 * The selection that all panes of one explorer share. It lives in the browser: handlers of `on` run at once, with or
 * without a kernel, and Python is told afterwards. `focus` is what is hovered, else what is selected.
 */
async function useSelection({ model, host, signal }) {
  const shared = await host.getModel(model.get("selection"));
  const read = (name) => shared.get(name) ?? null;
  const write = (values, event) => {
    shared.set({ at: event?.timeStamp ?? null, ...values });
    shared.set("at", null);
    shared.save_changes();
  };
  signal.addEventListener("abort", () => shared.set("hovered", null));
  return {
    get selected() { return read("selected"); },
    get hovered() { return read("hovered"); },
    get token() { return read("token"); },
    get focus() { return read("hovered") ?? read("selected"); },
    get at() { return read("at"); },
    select(feature, event) { write({ selected: feature, hovered: null }, event); },
    selectToken(token, feature, event) {
      write(feature === null ? { token } : { token, selected: feature, hovered: null }, event);
    },
    free(event) { write({ selected: null, hovered: null, token: null }, event); },
    hover(feature) { shared.set("hovered", feature); },
    on(names, fn) { names.forEach((name) => shared.on(`change:${name}`, () => signal.aborted || fn())); },
  };
}

/**
 * Say on the root what is selected, and, when an event of this page was the cause, how many milliseconds passed from
 * the event to the frame that shows it (`data-paint-ms`). To be called when the highlight has been put in place.
 */
function markSelected(root, selection) {
  const { selected, at } = selection;
  root.dataset.selected = selected ?? "";
  if (at === null) return;
  delete root.dataset.paintMs;
  requestAnimationFrame(() => {
    const afterPaint = new MessageChannel();
    afterPaint.port1.onmessage = () => { root.dataset.paintMs = (performance.now() - at).toFixed(1); };
    afterPaint.port2.postMessage(0);
  });
}

/** Call `fn` as soon as a mouse button or pen goes down; for a finger, which may be scrolling, when it was a tap. */
function onPress(node, fn) {
  node.addEventListener("pointerdown", (event) => event.pointerType !== "touch" && fn(event));
  node.addEventListener("click", (event) => event.pointerType === "touch" && fn(event));
}

/**
 * Keys that move through features: arrows, Page, Home, End, `[` and `]`; Escape frees. `features` are the numbers in
 * the order shown, `pageStep` how many a Page key moves. True when the key was one of them (and was stopped).
 */
function selectionKeys(event, selection, features, { pageStep = 10, columns = 1, past = null } = {}) {
  const by = {
    ArrowDown: columns, ArrowUp: -columns, ArrowRight: 1, ArrowLeft: -1, "]": 1, "[": -1,
    PageDown: pageStep, PageUp: -pageStep, Home: -Infinity, End: Infinity,
  }[event.key];
  if (event.ctrlKey || event.metaKey || event.altKey || (by === undefined && event.key !== "Escape")) return false;
  event.preventDefault();
  event.stopPropagation();
  if (by === undefined) {
    selection.free(event);
    return true;
  }
  if (!features.length) return true;
  const at = features.indexOf(selection.selected);
  const to = at < 0 ? (by > 0 && by !== Infinity ? 0 : features.length - 1) : at + by;
  if (past && at >= 0 && Number.isFinite(to) && (to < 0 || to >= features.length) && past(Math.sign(by))) return true;
  selection.select(features[Math.min(features.length - 1, Math.max(0, to))], event);
  return true;
}

/** A row of buttons of which one is pressed. `choices` is [value, label, title][]; returns {node, show(value)}. */
function choiceButtons(label, choices, onChoose) {
  const buttons = choices.map(([value, text, title]) =>
    h("button", { type: "button", class: "saew-choice", title, onclick: () => onChoose(value) }, text));
  const node = h("span", { class: "saew-choices", role: "group", "aria-label": label }, ...buttons);
  return {
    node,
    show(value) {
      choices.forEach(([own], i) => buttons[i].setAttribute("aria-pressed", String(own === value)));
    },
  };
}

/** A native drop-down. `choices` is [value, label][]; returns {node, show(value)}. */
function dropDown(label, choices, onChoose) {
  const select = h("select", { class: "saew-select", "aria-label": label, onchange: () => onChoose(choices[select.selectedIndex][0]) },
    ...choices.map(([, text]) => h("option", {}, text)));
  select.addEventListener("keydown", (event) => event.stopPropagation());
  return {
    node: h("label", { class: "saew-label" }, `${label} `, select),
    show(value) { select.selectedIndex = choices.findIndex(([own]) => own === value); },
  };
}

/** Set a trait from a control and tell Python. */
function tell(model, values) {
  model.set(values);
  model.save_changes();
}
