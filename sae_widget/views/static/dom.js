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
