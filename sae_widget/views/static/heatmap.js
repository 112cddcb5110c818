// The weights of one page of features as strips, on one canvas. The highlight is an element above the canvas, so that
// selecting never paints the strips again.

const DEAD = 1;
const QUIET = 2;
const SCORE = 76; // width of the column of what the rows are sorted by
const GRID_SCORE = 40; // the same above a cell of the grid
const HEAD = 18; // height of the line of column names above the strips
const ROW_HEIGHT = { 16: 24, 64: 17, 256: 7, 1024: 3 };

/** The value of a half-precision number, given its bits. */
function halfValue(bits) {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return exponent ? sign * 2 ** (exponent - 25) * (1024 + fraction) : (sign * fraction) / 2 ** 24;
}

/** The colour of every half-precision number, for one limit and theme. */
function halfColours(limit, theme) {
  const points = PALETTE.diverging[theme];
  const steps = Uint32Array.from({ length: 511 }, (_, i) => packColour(mixColour(points, i / 510)));
  const missing = packColour(mixColour([PALETTE.missing[theme], PALETTE.missing[theme]], 0));
  return Uint32Array.from({ length: 65536 }, (_, bits) => {
    const value = halfValue(bits);
    if (Number.isNaN(value)) return missing;
    return steps[Math.round(255 + 255 * Math.min(1, Math.max(-1, value / limit)))];
  });
}

/** What the traits of the model say, as one record; null while there is nothing to draw. */
function readPage(model) {
  const facts = model.get("facts");
  const ids = Array.from(typed(Uint32Array, model.get("ids")));
  const data = typed(Uint16Array, model.get("data"));
  if (!ids.length || data.length !== ids.length * facts.d_in) return null;
  return {
    facts, ids, data,
    flags: typed(Uint8Array, model.get("flags")),
    scores: typed(Float32Array, model.get("scores")),
    names: model.get("names"),
    hints: model.get("hints"),
  };
}

/** Where everything goes: `strips[i]` the strip of row i, `boxes[i]` what is highlighted, in px of the sheet. */
function arrange(page, width) {
  const n = page.ids.length;
  if (page.facts.arrangement === "grid") {
    const columns = width < 520 ? 2 : 4;
    const gap = 16;
    const cell = (width - (columns - 1) * gap - 8) / columns;
    const boxes = page.ids.map((_, i) =>
      ({ x: 4 + (i % columns) * (cell + gap), y: 4 + Math.floor(i / columns) * 84, w: cell, h: 76 }));
    const strips = boxes.map(({ x, y, w }) => ({ x, y: y + 24, w, h: 52 }));
    return { columns, boxes, strips, head: 0, height: Math.ceil(n / columns) * 84, labelEvery: 1 };
  }
  const row = ROW_HEIGHT[page.facts.size] ?? 17;
  const left = width < 640 ? 112 : 168;
  const right = SCORE;
  const boxes = page.ids.map((_, i) => ({ x: 0, y: HEAD + i * row, w: width, h: row }));
  const gap = row > 10 ? 1 : 0;
  const strips = boxes.map(({ y }) => ({ x: left, y, w: Math.max(40, width - left - right), h: row - gap }));
  return { columns: 1, boxes, strips, head: HEAD, height: HEAD + n * row, labelEvery: Math.ceil(15 / row), row };
}

/** One line of pixels a feature; where several dimensions share a pixel, the one with the largest weight is shown. */
function paintRows(page, colours, pixels) {
  const { data, ids, facts: { d_in: width } } = page;
  const image = new ImageData(pixels, ids.length);
  const out = new Uint32Array(image.data.buffer);
  for (let x = 0; x < pixels; x++) {
    const from = Math.floor((x * width) / pixels);
    const to = Math.max(from + 1, Math.floor(((x + 1) * width) / pixels));
    for (let row = 0; row < ids.length; row++) {
      let best = data[row * width + from];
      for (let i = from + 1; i < to; i++) {
        const bits = data[row * width + i];
        if ((bits & 0x7fff) > (best & 0x7fff)) best = bits;
      }
      out[row * pixels + x] = colours[best];
    }
  }
  const canvas = new OffscreenCanvas(pixels, ids.length);
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

/** Diagonal lines over a strip: the mark of a dead feature. */
function hatch(context, { x, y, w, h }, theme) {
  context.save();
  context.beginPath();
  context.rect(x, y, w, h);
  context.clip();
  context.fillStyle = theme === "dark" ? "rgba(29, 31, 35, 0.62)" : "rgba(255, 255, 255, 0.66)";
  context.fill();
  context.beginPath();
  for (let at = x - h; at < x + w; at += 7) {
    context.moveTo(at, y + h);
    context.lineTo(at + h, y);
  }
  context.strokeStyle = theme === "dark" ? "rgba(255, 255, 255, 0.42)" : "rgba(0, 0, 0, 0.42)";
  context.lineWidth = 1;
  context.stroke();
  context.restore();
}

/** How the scores of a page are written, all with the same digits; null when there are none. */
function scoreText(page) {
  const unit = page.facts.score === "of tokens" ? 100 : 1;
  const largest = unit * page.scores.reduce((a, b) => Math.max(a, b), 0);
  if (!page.scores.length) return null;
  const digits = largest > 0 ? Math.min(5, Math.max(0, 1 - Math.floor(Math.log10(largest)))) : 0;
  return (value) => (value === 0 ? "0" : (unit * value).toFixed(digits)) + (unit === 100 ? "%" : "");
}

/** The name of a row as it is spoken and read out. */
function rowName(page, row) {
  const name = page.names[row];
  const state = page.flags[row] === DEAD ? ", dead" : page.flags[row] === QUIET ? ", quiet in this text" : "";
  const hint = !name && page.hints[row] ? `, most on “${page.hints[row]}”` : "";
  return `feature ${page.ids[row]}${name ? ` (${name})` : ""}${hint}${state}`;
}

/** The number, the name and the marks of one row, at the left of a strip or above a cell. */
function rowLabel(page, row, box, arrangement) {
  const flag = page.flags[row];
  const name = page.names[row];
  const grid = arrangement === "grid";
  const label = h("div", {
    class: `saew-row${flag === DEAD ? " is-dead" : flag === QUIET ? " is-quiet" : ""}`,
    title: rowName(page, row),
  }, h("span", { class: "saew-number" }, grid ? `Feature ${page.ids[row]}` : String(page.ids[row])));
  if (flag === DEAD) label.append(h("span", { class: "saew-dead" }, "dead"));
  else if (flag === QUIET) label.append(h("span", { class: "saew-quietmark", "aria-hidden": "true" }, "○"));
  if (name) label.append(h("span", { class: "saew-name" }, name));
  else if (page.hints[row] && flag === 0) label.append(h("span", { class: "saew-hint" }, page.hints[row]));
  Object.assign(label.style, { left: `${box.x}px`, top: `${box.y}px`, width: `${box.w}px`, height: `${box.h}px` });
  return label;
}

/** The head of the pane: question, controls, legend and colour bar. `show(page)` brings them to what is drawn. */
function makeHead(model) {
  const title = h("h3", { class: "saew-title" });
  const sub = h("span", { class: "saew-sub" });
  const weights = choiceButtons("Weights", [
    ["decoder", "Decoder", "What each feature writes: the direction that it adds to the activations"],
    ["encoder", "Encoder", "What each feature looks for: the detector, bent away from its neighbours"],
  ], (value) => tell(model, { weights: value }));
  const arrangement = choiceButtons("Arrangement", [
    ["strips", "Strips", "One line a feature"], ["grid", "4 × 4", "Sixteen features a page, as in the first tutorial"],
  ], (value) => tell(model, { arrangement: value }));
  const sort = dropDown("Sort by", [["activation", "activation"], ["frequency", "frequency"], ["number", "number"]],
    (value) => tell(model, { sort: value }));
  const rows = dropDown("Rows", [[16, "16"], [64, "64"], [256, "256"], [1024, "1,024"]], (value) => tell(model, { rows: value }));
  const legend = h("span", { class: "saew-sub saew-legend" });
  const [low, high] = [h("span", {}), h("span", {})];
  const bar = h("span", { class: "saew-bar" });
  const scale = h("span", { class: "saew-scale", role: "img" }, low, bar, high);
  const node = h("div", {},
    h("div", { class: "saew-head" }, title, sub, scale),
    h("div", { class: "saew-head saew-under" }, h("div", { class: "saew-tools" }, weights.node, arrangement.node, sort.node, rows.node),
      h("span", { class: "saew-spring" }), legend));
  const showControls = () => {
    const reads = model.get("weights") === "encoder";
    title.textContent = reads ? "What does each feature look for?" : "What does each feature write?";
    weights.show(model.get("weights"));
    arrangement.show(model.get("arrangement"));
    sort.show(model.get("sort"));
    rows.show(model.get("rows"));
    rows.node.hidden = model.get("arrangement") === "grid";
  };
  const show = (page, theme, perPixel) => {
    const { facts } = page;
    const shared = perPixel > 1 ? `; a pixel shows the strongest of ${perPixel}` : "";
    sub.textContent = `${facts.weights} rows, ${whole(facts.d_in)} dimensions${shared}`;
    sub.title = sub.textContent + ". One dimension has no meaning of its own: compare whole strips, not single cells.";
    legend.replaceChildren(...(facts.n_tokens ? [h("span", { class: "saew-hatched", "aria-hidden": "true" }), ` ${whole(facts.n_dead)} dead · `] : []), "○ quiet here");
    legend.title = `${facts.n_tokens ? `Dead (hatched): ${whole(facts.n_dead)} of ${whole(facts.d_sae)} features never fired on ${whole(facts.n_tokens)} tokens. ` : ""}Quiet (○): not on the tokens of this text.`;
    low.textContent = nice(-facts.limit);
    high.textContent = `+${nice(facts.limit)}`;
    bar.style.background = gradient(PALETTE.diverging[theme]);
    scale.title = `One scale for every feature: at least ${facts.inside}% of all weights lie inside ±${nice(facts.limit)}; the rest get the colour of the end.`;
    scale.setAttribute("aria-label", scale.title);
  };
  return { node, showControls, show, under: [sub, legend, scale] };
}

/** The foot of the pane: what is under the mouse, the way to a feature on another page, and the pager. */
function makeFoot(model) {
  const readout = h("span", { class: "saew-readout" });
  const chip = h("button", { type: "button", class: "saew-chip", hidden: true });
  const go = (by) => tell(model, { page: Math.min(model.get("facts").pages - 1, Math.max(0, model.get("page") + by)) });
  const back = h("button", { type: "button", title: "Previous page", "aria-label": "Previous page", onclick: () => go(-1) }, "‹");
  const next = h("button", { type: "button", title: "Next page", "aria-label": "Next page", onclick: () => go(1) }, "›");
  const where = h("span", { class: "saew-where" });
  chip.addEventListener("click", () => tell(model, { page: model.get("place")[1] }));
  const pager = h("span", { class: "saew-tools" }, back, where, next);
  const node = h("div", { class: "saew-head saew-foot" }, readout, chip, pager);
  const show = (page) => {
    const { facts, ids } = page;
    const first = facts.page * facts.size;
    const asked = model.get("page") === facts.page ? "" : `, going to ${whole(model.get("page") + 1)}`;
    where.textContent = `page ${whole(facts.page + 1)} of ${whole(facts.pages)}${asked}`;
    where.title = `Places ${whole(first + 1)} to ${whole(first + ids.length)} of ${whole(facts.d_sae)}`;
    back.disabled = model.get("page") <= 0;
    next.disabled = model.get("page") >= facts.pages - 1;
    pager.hidden = facts.pages === 1;
  };
  const showChip = (page, selected) => {
    const [feature, at] = model.get("place");
    const known = feature === selected && at !== page.facts.page;
    chip.hidden = selected === null || page.ids.includes(selected) || selected >= page.facts.d_sae;
    chip.disabled = !known;
    chip.textContent = known ? `Feature ${selected} is on page ${whole(at + 1)}: go there` : `Feature ${selected} is on another page`;
  };
  return { node, readout, show, showChip, go };
}

let listCount = 0;

async function render({ model, el, host, signal }) {
  const pane = makePane({ model, el, signal }, "heatmap", "Feature weights");
  const selection = await useSelection({ model, host, signal });
  const head = makeHead(model);
  const foot = makeFoot(model);
  const canvas = h("canvas", { "aria-hidden": "true" });
  const columns = h("div", { class: "saew-columns" });
  const labels = h("div", { class: "saew-rows", "aria-hidden": "true" });
  const markName = h("span", { class: "saew-markname" });
  const marked = h("div", { class: "saew-mark", role: "option", "aria-selected": "true", id: `saew-mark-${++listCount}-${Date.now()}`, hidden: true }, markName);
  const hovered = h("div", { class: "saew-mark is-hover", "aria-hidden": "true", hidden: true });
  const sheet = h("div", { class: "saew-sheet", role: "presentation" }, columns, canvas, labels, hovered, marked);
  const list = h("div", { class: "saew-list", role: "listbox", tabindex: "0", "aria-label": "Features on this page, arrow keys move" }, sheet);
  const empty = h("div", { class: "saew-empty" });
  const content = h("div", {}, list, foot.node);
  pane.body.append(head.node, empty, content);

  let page = null;
  let plan = null;
  let colours = null;
  let coloursFor = "";
  let edge = 0; // which end of the next page a key is going to

  const paint = () => {
    const ratio = window.devicePixelRatio || 1;
    const width = list.clientWidth;
    if (!page || width < 60) return;
    plan = arrange(page, width);
    const key = `${page.facts.limit} ${pane.theme}`;
    if (coloursFor !== key) [colours, coloursFor] = [halfColours(page.facts.limit, pane.theme), key];
    const { w } = plan.strips[0];
    const pixels = Math.max(1, Math.round(w * ratio));
    const lines = paintRows(page, colours, pixels);
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(plan.height * ratio);
    Object.assign(canvas.style, { width: `${width}px`, height: `${plan.height}px` });
    const context = canvas.getContext("2d");
    context.imageSmoothingEnabled = false;
    plan.strips.forEach((strip, i) => {
      const top = Math.round(strip.y * ratio);
      const bottom = Math.round((strip.y + strip.h) * ratio);
      context.drawImage(lines, 0, i, pixels, 1, Math.round(strip.x * ratio), top, pixels, Math.max(1, bottom - top));
    });
    context.scale(ratio, ratio);
    plan.strips.forEach((strip, i) => page.flags[i] === DEAD && hatch(context, strip, pane.theme));
    sheet.style.height = `${plan.height}px`;
    sheet.dataset.arrangement = page.facts.arrangement;
    drawLabels();
    head.show(page, pane.theme, Math.ceil(page.facts.d_in / pixels));
    foot.show(page);
    showSelection();
    pane.drawn();
  };

  const drawLabels = () => {
    const grid = page.facts.arrangement === "grid";
    const left = plan.strips[0].x;
    const nodes = [];
    const score = scoreText(page);
    page.ids.forEach((_, i) => {
      if (i % plan.labelEvery) return;
      const { x, y, w, h: row } = plan.boxes[i];
      const tall = grid ? 22 : Math.max(row, 15);
      nodes.push(rowLabel(page, i, { x, y, w: grid ? w - GRID_SCORE : left - 8, h: tall }, page.facts.arrangement));
      if (!score) return;
      const node = h("div", { class: "saew-score" }, score(page.scores[i]));
      const room = grid ? GRID_SCORE : SCORE;
      Object.assign(node.style, { left: `${x + w - room}px`, top: `${y}px`, width: `${room - (grid ? 2 : 6)}px`, height: `${tall}px` });
      nodes.push(node);
    });
    labels.replaceChildren(...nodes);
    columns.hidden = grid;
    if (grid) return;
    columns.replaceChildren(
      h("span", { style: `width:${left}px` }, "feature"),
      h("span", { class: "saew-dims" }, h("span", {}, "dimension 0"), h("span", {}, String(page.facts.d_in - 1))),
      h("span", { class: "saew-scorename" }, page.scores.length ? page.facts.score : ""));
  };

  const place = (node, row) => {
    node.hidden = row < 0;
    if (row < 0) return;
    const { x, y, w, h: tall } = plan.boxes[row];
    const least = Math.max(tall, 7);
    Object.assign(node.style, { transform: `translate(${x}px, ${y - (least - tall) / 2}px)`, width: `${w}px`, height: `${least}px` });
  };

  const showSelection = () => {
    if (!page || !plan) return;
    const row = selection.selected === null ? -1 : page.ids.indexOf(selection.selected);
    place(marked, row);
    if (row >= 0) {
      markName.hidden = plan.labelEvery === 1; // thin rows have no label of their own
      markName.textContent = `${page.ids[row]} ${page.names[row] || page.hints[row]}`;
      marked.setAttribute("aria-label", rowName(page, row));
      marked.setAttribute("aria-posinset", String(page.facts.page * page.facts.size + row + 1));
      marked.setAttribute("aria-setsize", String(page.facts.d_sae));
      list.setAttribute("aria-activedescendant", marked.id);
    } else list.removeAttribute("aria-activedescendant");
    foot.showChip(page, selection.selected);
    if (selection.hovered === null) readOut(row, -1);
    markSelected(pane.root, selection);
  };

  const showHover = () => {
    if (page && plan) place(hovered, selection.hovered === null || selection.hovered === selection.selected ? -1 : page.ids.indexOf(selection.hovered));
  };

  const readOut = (row, dimension) => {
    let text = row < 0 ? "Hover for values. Click selects, arrow keys move, Escape frees." : rowName(page, row);
    if (row >= 0 && dimension >= 0) {
      const value = halfValue(page.data[row * page.facts.d_in + dimension]);
      text += ` · dimension ${dimension}: ${value > 0 ? "+" : ""}${nice(value)}`;
    }
    foot.readout.textContent = text;
    foot.readout.title = text;
  };

  const under = (event) => {
    const frame = sheet.getBoundingClientRect();
    const [x, y] = [event.clientX - frame.left, event.clientY - frame.top];
    const row = plan.boxes.findIndex((box) => x >= box.x && x <= box.x + box.w && y >= box.y && y < box.y + box.h);
    if (row < 0) return { row, dimension: -1 };
    const strip = plan.strips[row];
    const dimension = Math.floor(((x - strip.x) / strip.w) * page.facts.d_in);
    const inside = dimension >= 0 && dimension < page.facts.d_in && y >= strip.y;
    return { row, dimension: inside ? dimension : -1 };
  };

  const pick = (event) => {
    if (!page || !plan || event.button !== 0) return;
    const { row } = under(event);
    if (row >= 0) selection.select(page.ids[row], event);
    list.focus({ preventScroll: true });
  };
  onPress(sheet, pick);
  sheet.addEventListener("pointermove", (event) => {
    if (!page || !plan || event.pointerType === "touch") return;
    const { row, dimension } = under(event);
    selection.hover(row < 0 ? null : page.ids[row]);
    readOut(row < 0 ? page.ids.indexOf(selection.selected) : row, dimension);
  });
  sheet.addEventListener("pointerleave", () => selection.hover(null));
  list.addEventListener("keydown", (event) => {
    if (!page) return;
    const past = (sign) => {
      const to = model.get("page") + sign;
      if (to < 0 || to >= page.facts.pages) return false;
      edge = sign;
      foot.go(sign);
      return true;
    };
    const grid = page.facts.arrangement === "grid";
    if (!selectionKeys(event, selection, page.ids, { pageStep: grid ? 16 : 10, columns: plan?.columns ?? 1, past })) return;
    reveal();
    const row = page.ids.indexOf(selection.selected);
    pane.say(row < 0 ? "no feature selected" : rowName(page, row));
  });

  const reveal = () => {
    const row = page && plan ? page.ids.indexOf(selection.selected) : -1;
    if (row < 0) return;
    const { y, h: tall } = plan.boxes[row];
    const seen = [list.scrollTop + plan.head, list.scrollTop + list.clientHeight - tall - 2];
    const far = y < seen[0] - 3 * tall || y > seen[1] + 3 * tall;
    if (far) list.scrollTop = y - list.clientHeight / 2;
    else if (y < seen[0]) list.scrollTop = y - plan.head;
    else if (y > seen[1]) list.scrollTop = y + tall - list.clientHeight + 2;
  };

  const repaint = inNextFrame(paint);
  const update = inNextFrame(() => {
    const before = page?.facts;
    page = readPage(model);
    empty.textContent = model.get("empty");
    empty.hidden = page !== null;
    content.hidden = page === null;
    head.showControls();
    head.under.forEach((node) => { node.hidden = page === null; });
    if (!page) {
      plan = null;
      pane.drawn();
      return;
    }
    if (before && (before.page !== page.facts.page || before.size !== page.facts.size)) list.scrollTop = 0;
    if (edge && before && before.page !== page.facts.page) {
      selection.select(edge > 0 ? page.ids[0] : page.ids[page.ids.length - 1]);
      edge = 0;
    }
    paint();
    reveal();
  });
  model.on("change:data change:ids change:facts change:flags change:scores change:names change:hints change:empty", update);
  model.on("change:weights change:arrangement change:sort change:rows", head.showControls);
  model.on("change:place change:page", () => {
    if (!page) return;
    foot.show(page);
    foot.showChip(page, selection.selected);
  });
  selection.on(["selected"], () => { showSelection(); reveal(); showHover(); });
  selection.on(["hovered"], showHover);
  pane.onTheme(repaint);
  const resized = new ResizeObserver(() => { if (plan && list.clientWidth !== canvas.clientWidth) repaint(); else if (!plan) repaint(); });
  resized.observe(list);
  signal.addEventListener("abort", () => resized.disconnect());
  head.showControls();
  update();
}

export default { render };
