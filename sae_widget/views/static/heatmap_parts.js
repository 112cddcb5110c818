// The parts around the canvas: labels and scores of the rows, the head with its controls, the foot with its pager.

/** How the scores of a page are written, all with the same digits; null when there are none. */
function scoreText(page) {
  const unit = page.facts.score === "of tokens" ? 100 : 1;
  const places = page.facts.arrangement === "grid" ? 1 : 2; // behind the first digit of the largest
  const largest = unit * page.scores.reduce((a, b) => Math.max(a, b), 0);
  if (!page.scores.length) return null;
  const digits = largest > 0 ? Math.min(5, Math.max(0, places - Math.floor(Math.log10(largest)))) : 0;
  return (value) => (value === 0 ? "0" : (unit * value).toFixed(digits).replace(/^0(\.0*)?$/, `< ${10 ** -digits}`)) + (unit === 100 ? "%" : "");
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
  }, h("span", { class: "saew-number" }, grid && box.w > 150 ? `Feature ${page.ids[row]}` : String(page.ids[row])));
  if (flag === DEAD) label.append(h("span", { class: "saew-dead" }, "dead"));
  else if (flag === QUIET) label.append(h("span", { class: "saew-quietmark", "aria-hidden": "true" }, "○"));
  if (name) label.append(h("span", { class: "saew-name" }, name));
  else if (page.hints[row] && flag === 0) label.append(h("span", { class: "saew-hint" }, page.hints[row]));
  Object.assign(label.style, { left: `${box.x}px`, top: `${box.y}px`, width: `${box.w}px`, height: `${box.h}px` });
  return label;
}

/** The labels and scores of all rows that have room for one, and the names of the columns. */
function drawLabels(page, plan, labels, columns) {
  const grid = page.facts.arrangement === "grid";
  const left = plan.strips[0].x;
  const room = grid ? GRID_SCORE : SCORE;
  const score = scoreText(page);
  const nodes = [];
  for (let i = 0; i < page.ids.length; i += plan.labelEvery) {
    const { x, y, w, h: row } = plan.boxes[i];
    const tall = grid ? 22 : Math.max(row, 15);
    nodes.push(rowLabel(page, i, { x, y, w: grid ? w - GRID_SCORE : left - 8, h: tall }, page.facts.arrangement));
    if (!score) continue;
    const node = h("div", { class: "saew-score" }, score(page.scores[i]));
    Object.assign(node.style, { left: `${x + w - room}px`, top: `${y}px`, width: `${room - (grid ? 2 : 6)}px`, height: `${tall}px` });
    nodes.push(node);
  }
  labels.replaceChildren(...nodes);
  columns.hidden = grid;
  if (grid) return;
  const first = h("span", {}, "feature");
  first.style.width = `${left}px`;
  columns.replaceChildren(first,
    h("span", { class: "saew-dims" }, h("span", {}, "dimension 0"), h("span", {}, String(page.facts.d_in - 1))),
    h("span", { class: "saew-scorename" }, score ? page.facts.score : ""));
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
    h("div", { class: "saew-head" }, title, sub),
    h("div", { class: "saew-head saew-under" }, h("div", { class: "saew-tools" }, weights.node, arrangement.node, sort.node, rows.node),
      h("div", { class: "saew-key" }, legend, scale)));
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
    sub.textContent = `${facts.weights} rows, ${whole(facts.d_in)} dimensions`;
    sub.title = `${sub.textContent}${shared}` + ". One dimension has no meaning of its own: compare whole strips, not single cells.";
    legend.replaceChildren(...(facts.n_tokens ? [h("span", { class: "saew-hatched", "aria-hidden": "true" }), ` ${whole(facts.n_dead)} dead · `] : []), "○ quiet here",
      facts.n_hidden ? ` · ${whole(facts.n_hidden)} dense hidden` : "");
    legend.title = `${facts.n_tokens ? `Dead (hatched): ${whole(facts.n_dead)} of ${whole(facts.d_sae)} features never fired on ${whole(facts.n_tokens)} tokens. ` : ""}Quiet (○): not on the tokens of this text.${facts.n_hidden ? " Dense: fires on so many tokens that it says little; shown and hidden at the bars." : ""}`;
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
  chip.addEventListener("click", () => {
    const at = model.get("place")[1];
    tell(model, at < 0 ? { hide_dense: false } : { page: at });
  });
  const pager = h("span", { class: "saew-tools" }, back, where, next);
  const node = h("div", { class: "saew-head saew-foot" }, readout, chip, pager);
  const show = (page) => {
    const { facts, ids } = page;
    const first = facts.page * facts.size;
    const asked = model.get("page") === facts.page ? "" : `, going to ${whole(model.get("page") + 1)}`;
    where.textContent = `page ${whole(facts.page + 1)} of ${whole(facts.pages)}${asked}`;
    where.title = `Places ${whole(first + 1)} to ${whole(first + ids.length)} of ${whole(facts.n_shown)}${facts.n_hidden ? `; ${whole(facts.n_hidden)} are hidden as dense` : ""}`;
    back.disabled = model.get("page") <= 0;
    next.disabled = model.get("page") >= facts.pages - 1;
    pager.hidden = facts.pages === 1;
  };
  const showChip = (page, selected) => {
    const [feature, at] = model.get("place");
    const known = feature === selected && at !== page.facts.page;
    chip.hidden = selected === null || page.ids.includes(selected) || selected >= page.facts.d_sae;
    chip.disabled = !known;
    if (!known) chip.textContent = `Feature ${selected} is on another page`;
    else chip.textContent = at < 0 ? `Feature ${selected} is hidden: show it` : `Feature ${selected} is on page ${whole(at + 1)}: go there`;
  };
  const readOut = (page, row, dimension) => {
    let text = row < 0 ? "Click selects, arrow keys move, Escape frees." : rowName(page, row);
    if (row >= 0 && dimension >= 0) {
      const value = halfValue(page.data[row * page.facts.d_in + dimension]);
      text += ` · dimension ${dimension}: ${value > 0 ? "+" : ""}${nice(value)}`;
    }
    readout.textContent = text;
    readout.title = text;
  };
  return { node, show, showChip, readOut };
}
