// The text as a strip of tokens. The spans are built once a text; a change of focus touches the tokens that fire.

let stripCount = 0;

class TokensPane {
  constructor({ model, el, signal }, selection) {
    this.model = model;
    this.selection = selection;
    this.pane = makePane({ model, el, signal }, "tokens", "Tokens of the text");
    this.parts = makeTokenParts(model, this.pane.body);
    this.prefix = `saew-token-${++stripCount}-${Date.now()}`;
    this.text = null;
    this.spans = []; // of the tokens of the chunk in the page
    this.first = 0; // the first token of the chunk
    this.lit = []; // spans that have a colour now
    this.shown = new Map(); // token -> activation of the feature in focus
    this.largest = 0; // of those that count
    this.full = 1; // the activation at the end of the scale
    this.pointed = null; // the token under the mouse
    this.coloured = undefined; // the feature whose colours are shown
    this.listen();
  }

  listen() {
    const { model, selection, parts: { strip } } = this;
    const update = inNextFrame(() => this.update());
    model.on("change:labels change:marks change:indptr change:ids change:acts change:fired change:maxima change:hidden change:empty", update);
    model.on("change:stale change:notes change:facts", () => this.showSentences());
    model.on("change:scale_to_text change:names", () => {
      this.showSentences();
      this.colour();
      this.showBest();
    });
    // Of what is hovered the colours often stand already when it is clicked.
    const focus = () => this.coloured !== selection.focus && this.colour();
    selection.on(["selected"], () => {
      focus();
      this.pressBest();
      markSelected(this.pane.root, selection);
      requestAnimationFrame(() => setTimeout(() => this.reveal())); // behind the painting of the highlight
    });
    selection.on(["hovered"], inNextFrame(focus));
    selection.on(["token"], () => {
      this.showToken();
      this.showBest();
    });
    this.pane.onTheme(() => this.colour());
    onPress(strip, (event) => {
      const token = this.tokenUnder(event);
      if (token === null || event.button !== 0) return;
      this.choose(token, event);
      strip.focus({ preventScroll: true });
    });
    strip.addEventListener("pointermove", (event) => event.pointerType !== "touch" && this.point(this.tokenUnder(event)));
    strip.addEventListener("pointerleave", () => this.point(null));
    strip.addEventListener("keydown", (event) => this.key(event));
    update();
  }

  /** Take what the traits say and draw it; the spans are made again only for another text. */
  update() {
    const before = this.text;
    const text = readTokens(this.model);
    this.text = text;
    this.showSentences();
    if (!text) {
      this.parts.chunks.hidden = true;
      this.parts.strip.replaceChildren();
      this.spans = this.lit = [];
    } else {
      if (!sameTokens(before, text)) {
        this.point(null);
        this.build(0);
      }
      this.colour();
      this.showToken();
      this.showBest();
    }
    markSelected(this.pane.root, this.selection);
    this.pane.drawn();
  }

  spanOf(token) {
    return this.spans[token - this.first];
  }

  isOut(token) {
    return Boolean(this.text.marks[token] & LEFT_OUT);
  }

  /** Make the spans of one chunk of the text. */
  build(first) {
    const { text, prefix } = this;
    const last = Math.min(text.labels.length, first + CHUNK);
    const nodes = [];
    this.first = first;
    this.spans = [];
    this.lit = [];
    for (let token = first; token < last; token++) {
      const mark = text.marks[token];
      if (mark & NEW_WINDOW && token > first) {
        nodes.push(h("span", { class: "saew-window", title: "A new window: the model reads from here afresh" }));
      }
      const span = h("span", {
        class: mark & LEFT_OUT ? "saew-token is-out" : "saew-token", role: "option", id: `${prefix}-${token}`, "aria-selected": "false",
      }, text.labels[token]);
      span.dataset.token = token;
      this.spans.push(span);
      nodes.push(span);
      if (mark & LINE_END) nodes.push(h("span", { class: "saew-line" }));
    }
    this.parts.strip.replaceChildren(...nodes);
    showChunks(this.parts.chunks, text.labels.length, first, last, (to) => this.goTo(to));
  }

  goTo(first) {
    this.build(first);
    this.colour();
    this.showToken();
  }

  /** What a screen reader and the browser's own tooltip say about a token. */
  describe(token) {
    const name = `token “${this.text.labels[token]}”`;
    const { focus } = this.selection;
    if (this.isOut(token)) return `${name}: left out (the first position of a window is not counted)`;
    if (focus === null) return name;
    const act = this.shown.get(token);
    if (act === undefined) return `${name}, feature ${focus} does not fire here`;
    return `${name}, activation ${nice(act)}, ${percent(act / this.full)} of the maximum`;
  }

  /** Bring the colours to the feature in focus: what was coloured and what fires now is touched, nothing else. */
  colour() {
    if (!this.text) return;
    const { text, pane, parts, selection: { focus } } = this;
    this.coloured = focus;
    [this.shown, this.largest] = firings(text, focus);
    const corpus = text.corpusMax.get(focus) ?? 0;
    const toText = this.model.get("scale_to_text") || !(corpus > 0);
    this.full = (toText ? this.largest : corpus) || 1;
    for (const span of this.lit) {
      span.style.background = span.style.color = "";
      span.removeAttribute("title");
      delete span.dataset.act;
    }
    this.lit = [];
    const points = PALETTE.sequential[pane.theme];
    for (const [token, act] of this.shown) {
      const span = this.spanOf(token);
      if (!span || this.isOut(token)) continue;
      const rgb = mixColour(points, FAINTEST + (1 - FAINTEST) * Math.min(1, act / this.full));
      span.style.background = cssColour(rgb);
      span.style.color = inkOn(rgb);
      span.dataset.act = nice(act);
      span.title = this.describe(token);
      this.lit.push(span);
    }
    parts.bar.style.background = gradient(points);
    this.summarise(focus, corpus, toText);
    if (this.pointed !== null) this.showTip();
    pane.root.dataset.focus = focus ?? "";
    pane.root.dataset.lit = String(this.lit.length);
  }

  summarise(focus, corpus, toText) {
    const { text, largest, parts: { summary, badge, top } } = this;
    const known = focus !== null && focus < text.facts.d_sae;
    const label = this.nameOf(focus);
    badge.hidden = !toText || !known || !largest;
    badge.textContent = this.model.get("scale_to_text") ? "scaled to this text" : "scaled to this text: no corpus maximum";
    top.textContent = known && largest ? nice(this.full) : "max";
    const counted = [...this.shown.keys()].filter((token) => !this.isOut(token)).length;
    const share = !(corpus > 0) ? "" : largest > corpus
      ? `, above its maximum in the corpus, ${nice(corpus)}` : ` = ${percent(largest / corpus)} of its maximum ${nice(corpus)}`;
    if (!text.facts.d_sae) summary.textContent = "There are no features yet that could fire on them: press Train.";
    else if (!known) summary.textContent = "Hover or click a feature or a token to see where it fires.";
    else if (counted) summary.textContent = `${label}: on ${whole(counted)} of ${whole(text.counted)} tokens, at most ${nice(largest)}${share}`;
    else summary.textContent = `${label}: quiet in this text${text.facts.kept ? ", or among the weak ones that are left out" : ""}`;
    summary.title = summary.textContent;
  }

  /** Scroll to where the feature in focus fires most when none of its tokens is in sight. */
  reveal() {
    const { lit, shown, parts: { strip } } = this;
    if (!lit.length || strip.scrollHeight <= strip.clientHeight) return;
    const [first, last] = [strip.scrollTop, strip.scrollTop + strip.clientHeight];
    if (lit.some(({ offsetTop, offsetHeight }) => offsetTop >= first && offsetTop + offsetHeight <= last)) return;
    const act = (span) => shown.get(Number(span.dataset.token)) ?? 0;
    const best = lit.reduce((a, b) => (act(b) > act(a) ? b : a));
    strip.scrollTop = best.offsetTop - strip.clientHeight / 2;
  }

  nameOf(feature) {
    const name = this.model.get("names")[String(feature)];
    return `feature ${feature}${name ? ` (${name})` : ""}`;
  }

  /** The strongest features of the token under the mouse, else of the selected one. */
  showBest() {
    const { text, parts: { best } } = this;
    if (!text) return;
    const token = this.pointed ?? this.selection.token;
    if (token === null || token >= text.labels.length) {
      best.replaceChildren(h("span", { class: "saew-sub" }, "Click a token for its strongest features."));
      return;
    }
    const list = this.isOut(token) ? [] : strongestOf(text, token);
    const hidden = list.length && !text.hidden.has(list[0][0]) ? hiddenOn(text, token) : 0;
    const says = list.length ? "Strongest on " : this.isOut(token) ? "Not counted: " : "Nothing fires on ";
    best.replaceChildren(h("span", { class: "saew-sub" }, says), h("span", { class: "saew-token" }, text.labels[token]),
      ...list.map(([feature, act]) => this.featureButton(feature, act)),
      ...(hidden ? [h("span", { class: "saew-sub", title: "Show them at the bars below" }, `+ ${hidden} dense hidden`)] : []));
    this.pressBest();
  }

  /** Of the strongest features the selected one is pressed. */
  pressBest() {
    for (const button of this.parts.best.querySelectorAll("button")) {
      button.setAttribute("aria-pressed", String(Number(button.dataset.feature) === this.selection.selected));
    }
  }

  featureButton(feature, act) {
    const { selection } = this;
    const name = this.model.get("names")[String(feature)];
    const button = h("button", {
      type: "button", class: "saew-chip", title: `Select ${this.nameOf(feature)}`, "data-feature": feature,
    }, h("b", {}, String(feature)), name ? ` ${name}` : "", ` ${nice(act)}`);
    onPress(button, (event) => selection.select(feature, event));
    button.addEventListener("click", (event) => event.detail === 0 && selection.select(feature, event)); // Enter, Space
    button.addEventListener("pointerenter", () => selection.hover(feature));
    button.addEventListener("pointerleave", () => selection.hover(null));
    return button;
  }

  showToken() {
    const { text, pane, selection: { token }, parts: { strip } } = this;
    const before = strip.querySelector(".is-chosen");
    before?.setAttribute("aria-selected", "false");
    before?.classList.remove("is-chosen");
    strip.removeAttribute("aria-activedescendant");
    pane.root.dataset.token = token ?? "";
    const span = text && token !== null ? this.spanOf(token) : null;
    if (!span) return;
    span.classList.add("is-chosen");
    span.setAttribute("aria-selected", "true");
    strip.setAttribute("aria-activedescendant", span.id);
  }

  /** Select a token and the feature that is strongest on it. */
  choose(token, event) {
    const list = this.isOut(token) ? [] : strongestOf(this.text, token);
    this.selection.selectToken(token, list.length ? list[0][0] : null, event);
    this.pane.say(`${this.describe(token)}${list.length ? `, strongest feature ${list[0][0]}` : ", nothing fires here"}`);
  }

  tokenUnder(event) {
    const span = event.target.closest?.(".saew-token");
    return span && this.parts.strip.contains(span) ? Number(span.dataset.token) : null;
  }

  point(token) {
    if (this.pointed === token) return;
    this.pointed = token;
    this.showTip();
    this.showBest();
  }

  /** The number of the token under the mouse. */
  showTip() {
    const { pointed: token, parts: { strip, tip } } = this;
    const span = token === null ? null : this.spanOf(token);
    const out = span && this.isOut(token);
    tip.hidden = !span || !(out || this.selection.focus !== null);
    if (!span) return;
    span.title = this.describe(token);
    tip.textContent = out ? "left out" : span.dataset.act ?? "0";
    const left = Math.min(span.offsetLeft, strip.clientWidth - tip.offsetWidth - 4);
    const top = Math.max(-14, span.offsetTop - strip.scrollTop - tip.offsetHeight - 1);
    Object.assign(tip.style, { left: `${Math.max(0, left)}px`, top: `${top}px` });
  }

  key(event) {
    if (!this.text || event.ctrlKey || event.metaKey || event.altKey) return;
    const { text, selection } = this;
    const by = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: 10, ArrowUp: -10, Home: -Infinity, End: Infinity, PageDown: 50, PageUp: -50 }[event.key];
    if (by === undefined) { // `[` and `]` go through the strongest features of the token, Escape frees
      selectionKeys(event, selection, strongestOf(text, selection.token).map(([feature]) => feature));
      return;
    }
    event.preventDefault();
    event.stopPropagation();
    const from = selection.token ?? this.first + (by > 0 ? -1 : this.spans.length);
    const token = Math.min(text.labels.length - 1, Math.max(0, from + by));
    if (!this.spanOf(token)) this.goTo(Math.floor(token / CHUNK) * CHUNK);
    this.choose(token, event);
    this.spanOf(token)?.scrollIntoView({ block: "nearest" });
  }

  showSentences() {
    const { text, model, parts } = this;
    parts.empty.textContent = model.get("empty");
    parts.empty.hidden = text !== null;
    for (const node of [parts.field, parts.summary]) node.hidden = text === null;
    for (const node of [parts.best, parts.tools]) node.hidden = !text?.facts.d_sae;
    parts.scale.show(model.get("scale_to_text"));
    const stale = model.get("stale");
    parts.stale.textContent = stale && `These are the tokens of the last text that was read. ${stale}`;
    parts.stale.hidden = !stale;
    this.pane.root.classList.toggle("is-stale", Boolean(stale));
    const lines = text ? [...model.get("notes")] : [];
    if (text?.facts.kept) lines.push(`The text is long: of each token only the ${text.facts.kept} strongest features are known here.`);
    parts.notes.textContent = lines.join(" ");
    parts.notes.hidden = !lines.length;
  }
}

export default {
  async render({ model, el, host, signal }) {
    const selection = await useSelection({ model, host, signal });
    if (!signal.aborted) new TokensPane({ model, el, signal }, selection);
  },
};
