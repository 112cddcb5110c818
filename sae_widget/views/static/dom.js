// Small helpers of the panes that are built from ready-made widgets. Text is only ever set as text.

function make(tag, className = "", text = "") {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text) node.textContent = text;
  return node;
}

function makeButton(className, text, onPress) {
  const node = make("button", className, text);
  node.type = "button";
  node.addEventListener("click", onPress);
  return node;
}

// The root of the pane; a view is rendered before it is put into the page, so this may have to wait.
async function paneRoot(el, signal) {
  while (!signal.aborted) {
    const root = el.closest(".sae-pane");
    if (root && root.isConnected) return root;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  return null;
}

// Ready-made widgets leave some of their parts without a name or a state for screen readers: sliders, the field beside
// a slider, buttons whose word is a sign, and the button of a group that is pressed. They come some time after the head.
async function nameParts(root, signal) {
  const label = (node) => node?.querySelector(".widget-label")?.textContent.trim() ?? "";
  for (let tries = 0; tries < 25 && !signal.aborted; tries++) {
    for (const handle of root.querySelectorAll("[role=slider]:not([aria-label])")) {
      const words = label(handle.closest(".widget-slider"));
      if (words) handle.setAttribute("aria-label", words);
      handle.closest(".widget-hbox")?.querySelector("input")?.setAttribute("aria-label", words);
    }
    for (const button of root.querySelectorAll("button.jupyter-button[title]:not([aria-label])")) {
      if (button.title && !/[a-z0-9]/i.test(button.textContent)) button.setAttribute("aria-label", button.title);
    }
    for (const group of root.querySelectorAll(".widget-toggle-buttons:not([role=group])")) {
      const buttons = () => [...group.querySelectorAll("button")];
      const say = () => buttons().forEach((button) => button.setAttribute("aria-pressed", String(button.classList.contains("mod-active"))));
      if (!buttons().length) continue;
      group.setAttribute("role", "group");
      group.setAttribute("aria-label", label(group));
      const pressed = new MutationObserver(say);
      pressed.observe(group, { subtree: true, attributes: true, attributeFilter: ["class"] });
      signal.addEventListener("abort", () => pressed.disconnect());
      say();
    }
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
}

// A lone surrogate (half of an emoji) cannot travel; the character for "unknown" takes its place.
function wellFormed(text) {
  if (text.toWellFormed) return text.toWellFormed();
  return text.replace(/[\uD800-\uDBFF](?![\uDC00-\uDFFF])|(?<![\uD800-\uDBFF])[\uDC00-\uDFFF]/g, "\uFFFD");
}

// Draw now and whenever one of the traits changes.
function drawOn(model, names, draw, signal) {
  for (const name of names) model.on(`change:${name}`, draw);
  signal.addEventListener("abort", () => {
    for (const name of names) model.off(`change:${name}`, draw);
  });
  draw();
}

// Tell browser tests what was drawn, and how often.
function report(root, values) {
  if (!root) return;
  root.dataset.draws = String(Number(root.dataset.draws || 0) + 1);
  for (const [name, value] of Object.entries(values)) root.dataset[name] = String(value);
}

function swatch(colour, dash) {
  const node = make("span", `sae-swatch${dash ? ` sae-swatch-${dash}` : ""}`);
  node.style.setProperty("--sae-swatch", colour);
  return node;
}
