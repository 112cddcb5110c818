// The text as a strip of tokens. The spans are built once a text; a change of focus touches the tokens that fire.

const LEFT_OUT = 1;
const LINE_END = 2;
const NEW_WINDOW = 4;
const CHUNK = 2000; // tokens in the page at a time
const FAINTEST = 0.12; // place on the scale of anything above zero: tiny is not off
const STRONGEST = 5;

/** What the traits of the model say, as one record; null while there is nothing to draw. */
function readTokens(model) {
  const labels = model.get("labels");
  const indptr = typed(Uint32Array, model.get("indptr"));
  const ids = typed(Uint32Array, model.get("ids"));
  const acts = typed(Float32Array, model.get("acts"));
  if (!labels.length || indptr.length !== labels.length + 1 || ids.length !== acts.length) return null;
  const fired = typed(Uint32Array, model.get("fired"));
  const maxima = typed(Float32Array, model.get("maxima"));
  return {
    labels, indptr, ids, acts,
    marks: typed(Uint8Array, model.get("marks")),
    corpusMax: new Map(Array.from(maxima, (max, i) => [fired[i], max])),
    facts: model.get("facts"),
  };
}

/** Where a feature fires: [token, activation][] in the order of the text, and its largest value on tokens that count. */
function firings(text, feature) {
  const found = [];
  let largest = 0;
  if (feature === null) return { found, largest };
  for (let token = 0; token < text.labels.length; token++) {
    for (let i = text.indptr[token]; i < text.indptr[token + 1]; i++) {
      if (text.ids[i] !== feature) continue;
      found.push([token, text.acts[i]]);
      if (!(text.marks[token] & LEFT_OUT)) largest = Math.max(largest, text.acts[i]);
      break;
    }
  }
  return { found, largest };
}

/** The strongest features of a token: [feature, activation][]. */
function strongestOf(text, token) {
  if (token === null || token < 0 || token >= text.labels.length) return [];
  const from = text.indptr[token];
  const to = Math.min(text.indptr[token + 1], from + STRONGEST);
  return Array.from({ length: to - from }, (_, i) => [text.ids[from + i], text.acts[from + i]]);
}

const percent = (share) => (share > 0 && share < 0.01 ? "under 1%" : `${Math.round(100 * share)}%`);

let stripCount = 0;

async function render({ model, el, host, signal }) {
  const pane = makePane({ model, el, signal }, "tokens", "Tokens of the text");
  const selection = await useSelection({ model, host, signal });
  const prefix = `saew-token-${++stripCount}-${Date.now()}`;

  const scale = choiceButtons("Scale", [
    [false, "feature", "100% is the feature's maximum over the corpus: a weak firing looks weak"],
    [true, "this text", "100% is the feature's maximum in this text"],
  ], (value) => tell(model, { scale_to_text: value }));
  const summary = h("span", { class: "saew-sub saew-summary" });
  const badge = h("span", { class: "saew-badge", hidden: true }, "scaled to this text");
  const bar = h("span", { class: "saew-bar saew-bar-short" });
  const top = h("span", {});
  const tools = h("div", { class: "saew-tools" },
    badge, h("span", { class: "saew-scale", title: "Colour of a token: activation of the feature in focus" }, h("span", {}, "0"), bar, top),
    h("span", { class: "saew-label" }, "scale"), scale.node);
  const head = h("div", { class: "saew-head" }, h("h3", { class: "saew-title" }, "Which tokens?"), summary, h("span", { class: "saew-spring" }), tools);
  const stale = h("div", { class: "saew-fault", role: "status", hidden: true });
  const strip = h("div", { class: "saew-strip", role: "listbox", tabindex: "0", "aria-label": "Tokens, arrow keys move" });
  const tip = h("div", { class: "saew-tip", "aria-hidden": "true", hidden: true });
  const field = h("div", { class: "saew-field" }, strip, tip);
  const chunks = h("div", { class: "saew-head", hidden: true });
  const best = h("div", { class: "saew-best" });
  const notes = h("div", { class: "saew-note" });
  const empty = h("div", { class: "saew-empty" });
  pane.body.append(head, stale, empty, field, chunks, best, notes);

  let text = null;
  let spans = []; // of the tokens of the chunk in the page
  let first = 0; // the first token of the chunk
  let lit = []; // tokens that have a colour now
  let shown = { found: [], largest: 0 };
  let full = 1; // the activation at the end of the scale
  let pointed = null; // the token under the mouse

  const spanOf = (token) => spans[token - first];

  /** What a screen reader and the browser's own tooltip say about a token. */
  const describe = (token) => {
    const name = `token “${text.labels[token]}”`;
    if (text.marks[token] & LEFT_OUT) return `${name}: left out (the first position of a window is not counted)`;
    if (selection.focus === null) return name;
    const firing = shown.found.find(([own]) => own === token);
    return firing ? `${name}, activation ${nice(firing[1])}, ${percent(firing[1] / full)} of the maximum` : `${name}, feature ${selection.focus} does not fire here`;
  };

  const build = () => {
    const nodes = [];
    spans = [];
    const last = Math.min(text.labels.length, first + CHUNK);
    for (let token = first; token < last; token++) {
      const mark = text.marks[token];
      if (mark & NEW_WINDOW && token > first) nodes.push(h("span", { class: "saew-window", title: "A new window: the model reads from here afresh" }));
      const span = h("span", { class: `saew-token${mark & LEFT_OUT ? " is-out" : ""}`, role: "option", id: `${prefix}-${token}`, "aria-selected": "false" }, text.labels[token]);
      span.dataset.token = token;
      spans.push(span);
      nodes.push(span);
      if (mark & LINE_END) nodes.push(h("span", { class: "saew-line" }));
    }
    strip.replaceChildren(...nodes);
    lit = [];
    showChunks(last);
  };

  const showChunks = (last) => {
    const n = text.labels.length;
    chunks.hidden = n <= CHUNK;
    if (n <= CHUNK) return;
    const move = (to) => () => { first = to; build(); colour(); showToken(); };
    chunks.replaceChildren(
      h("button", { type: "button", disabled: first === 0, "aria-label": "Earlier tokens", onclick: move(Math.max(0, first - CHUNK)) }, "‹"),
      h("span", { class: "saew-where" }, `tokens ${whole(first + 1)} to ${whole(last)} of ${whole(n)}`),
      h("button", { type: "button", disabled: last >= n, "aria-label": "Later tokens", onclick: move(last) }, "›"));
  };

  /** Bring the colours to the feature in focus: tokens that fired before and tokens that fire now are touched. */
  const colour = () => {
    if (!text) return;
    const { focus } = selection;
    shown = firings(text, focus);
    const corpus = text.corpusMax.get(focus) ?? 0;
    const toText = model.get("scale_to_text") || !(corpus > 0);
    full = (toText ? shown.largest : corpus) || 1;
    for (const token of lit) {
      const span = spanOf(token);
      if (!span) continue;
      span.style.background = "";
      span.style.color = "";
      span.removeAttribute("title");
      delete span.dataset.act;
    }
    lit = [];
    const points = PALETTE.sequential[pane.theme];
    for (const [token, act] of shown.found) {
      const span = spanOf(token);
      if (!span || text.marks[token] & LEFT_OUT) continue;
      const rgb = mixColour(points, FAINTEST + (1 - FAINTEST) * Math.min(1, act / full));
      span.style.background = cssColour(rgb);
      span.style.color = inkOn(rgb);
      span.dataset.act = nice(act);
      span.title = describe(token);
      lit.push(token);
    }
    summarise(focus, corpus, toText);
    bar.style.background = gradient(points);
    pane.root.dataset.focus = focus ?? "";
    pane.root.dataset.lit = String(lit.length);
  };

  const summarise = (focus, corpus, toText) => {
    const known = focus !== null && focus < text.facts.d_sae;
    const name = model.get("names")[String(focus)];
    badge.hidden = !toText || !known || !shown.largest;
    badge.textContent = model.get("scale_to_text") ? "scaled to this text" : "scaled to this text: no corpus maximum";
    top.textContent = known && shown.largest ? nice(full) : "max";
    if (!known) {
      summary.textContent = "Hover or click a feature or a token";
      return;
    }
    const label = `feature ${focus}${name ? ` (${name})` : ""}`;
    const counted = shown.found.filter(([token]) => !(text.marks[token] & LEFT_OUT)).length;
    const share = corpus > 0 ? ` = ${percent(shown.largest / corpus)} of its maximum ${nice(corpus)}` : "";
    summary.textContent = counted
      ? `${label}: max here ${nice(shown.largest)}${share}, on ${whole(counted)} of ${whole(text.labels.length)} tokens`
      : `${label}: quiet in this text${corpus > 0 ? ` (maximum elsewhere ${nice(corpus)})` : ""}`;
  };

  /** The line of strongest features of the token under the mouse, else of the selected one. */
  const showBest = () => {
    if (!text) return;
    const token = pointed ?? selection.token;
    const list = strongestOf(text, token);
    if (token === null || token >= text.labels.length) {
      best.replaceChildren(h("span", { class: "saew-sub" }, "Click a token for its strongest features."));
      return;
    }
    const buttons = list.map(([feature, act]) => {
      const name = model.get("names")[String(feature)];
      const button = h("button", { type: "button", class: "saew-chip", title: `Select feature ${feature}`, "aria-pressed": String(feature === selection.selected) },
        h("b", {}, String(feature)), name ? ` ${name}` : "", ` ${nice(act)}`);
      onPress(button, (event) => selection.select(feature, event));
      button.addEventListener("click", (event) => event.detail === 0 && selection.select(feature, event));
      button.addEventListener("pointerenter", () => selection.hover(feature));
      button.addEventListener("pointerleave", () => selection.hover(null));
      return button;
    });
    best.replaceChildren(h("span", { class: "saew-sub" }, list.length ? "Strongest on " : "Nothing fires on "),
      h("span", { class: "saew-token" }, text.labels[token]), ...buttons);
  };

  const showToken = () => {
    strip.querySelector(".is-chosen")?.setAttribute("aria-selected", "false");
    strip.querySelector(".is-chosen")?.classList.remove("is-chosen");
    strip.removeAttribute("aria-activedescendant");
    pane.root.dataset.token = selection.token ?? "";
    const span = text && selection.token !== null ? spanOf(selection.token) : null;
    if (!span) return;
    span.classList.add("is-chosen");
    span.setAttribute("aria-selected", "true");
    strip.setAttribute("aria-activedescendant", span.id);
  };

  const choose = (token, event) => {
    const list = strongestOf(text, token);
    selection.selectToken(token, list.length ? list[0][0] : null, event);
    pane.say(`${describe(token)}${list.length ? `, strongest feature ${list[0][0]}` : ", nothing fires here"}`);
  };

  const point = (token) => {
    if (pointed === token) return;
    pointed = token;
    const span = token === null ? null : spanOf(token);
    const out = span && text.marks[token] & LEFT_OUT;
    tip.hidden = !span || !(out || selection.focus !== null);
    if (span) {
      tip.textContent = out ? "left out" : span.dataset.act ?? "0";
      span.title = describe(token);
      const left = Math.min(span.offsetLeft, strip.clientWidth - tip.offsetWidth - 4);
      Object.assign(tip.style, { left: `${Math.max(0, left)}px`, top: `${Math.max(-4, span.offsetTop - strip.scrollTop - tip.offsetHeight - 1)}px` });
    }
    showBest();
  };

  const tokenUnder = (event) => {
    const span = event.target.closest?.(".saew-token");
    return span && strip.contains(span) ? Number(span.dataset.token) : null;
  };
  onPress(strip, (event) => {
    const token = tokenUnder(event);
    if (token === null || event.button !== 0) return;
    choose(token, event);
    strip.focus({ preventScroll: true });
  });
  strip.addEventListener("pointermove", (event) => event.pointerType !== "touch" && point(tokenUnder(event)));
  strip.addEventListener("pointerleave", () => point(null));
  strip.addEventListener("keydown", (event) => {
    if (!text || event.ctrlKey || event.metaKey || event.altKey) return;
    const by = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: 10, ArrowUp: -10, Home: -Infinity, End: Infinity, PageDown: 50, PageUp: -50 }[event.key];
    if (by === undefined) {
      selectionKeys(event, selection, Array.from(new Set(shown.found.length ? strongestOf(text, selection.token).map(([id]) => id) : [])));
      return;
    }
    event.preventDefault();
    event.stopPropagation();
    const from = selection.token ?? (by > 0 ? first - 1 : first + spans.length);
    const token = Math.min(text.labels.length - 1, Math.max(0, by === -Infinity ? 0 : by === Infinity ? text.labels.length - 1 : from + by));
    if (token < first || token >= first + spans.length) {
      first = Math.floor(token / CHUNK) * CHUNK;
      build();
      colour();
    }
    choose(token, event);
    spanOf(token)?.scrollIntoView({ block: "nearest" });
  });

  const showTexts = () => {
    empty.textContent = model.get("empty");
    empty.hidden = text !== null;
    for (const node of [field, best, tools]) node.hidden = text === null;
    summary.hidden = text === null;
    scale.show(model.get("scale_to_text"));
    stale.textContent = model.get("stale") && `These are the tokens of the last text that was read. ${model.get("stale")}`;
    stale.hidden = !stale.textContent;
    pane.root.classList.toggle("is-stale", !stale.hidden);
    const lines = [...(text ? model.get("notes") : [])];
    if (text?.facts.kept) lines.push(`Of each token only the ${text.facts.kept} strongest features are shown: the text is long.`);
    notes.textContent = lines.join(" ");
    notes.hidden = !lines.length;
  };

  const update = inNextFrame(() => {
    const before = text;
    text = readTokens(model);
    showTexts();
    if (text) {
      const same = before && before.labels.length === text.labels.length
        && before.labels.every((label, i) => label === text.labels[i]) && before.marks.every((mark, i) => mark === text.marks[i]);
      if (!same) {
        first = 0;
        pointed = null;
        tip.hidden = true;
        build();
      }
      colour();
      showToken();
      showBest();
    } else {
      chunks.hidden = true;
      strip.replaceChildren();
      spans = lit = [];
    }
    markSelected(pane.root, selection);
    pane.drawn();
  });
  model.on("change:labels change:marks change:indptr change:ids change:acts change:fired change:maxima change:empty", update);
  model.on("change:stale change:notes change:facts", showTexts);
  model.on("change:scale_to_text change:names", () => { showTexts(); colour(); showBest(); });
  selection.on(["selected"], () => { colour(); showBest(); markSelected(pane.root, selection); });
  selection.on(["hovered"], inNextFrame(colour));
  selection.on(["token"], () => { showToken(); showBest(); });
  pane.onTheme(() => colour());
  update();
}

export default { render };
