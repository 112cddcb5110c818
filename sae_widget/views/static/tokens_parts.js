// What the pane of tokens is made of: head, strip, tooltip, the line of strongest features, sentences.

/** The elements of the pane, and the two that have behaviour of their own. */
function makeTokenParts(model, body) {
  const scale = choiceButtons("Scale", [
    [false, "the feature", "100% is the feature's maximum over the corpus: a weak firing looks weak"],
    [true, "this text", "100% is the feature's maximum in this text"],
  ], (value) => tell(model, { scale_to_text: value }));
  const parts = {
    scale,
    summary: h("span", { class: "saew-sub saew-summary" }),
    badge: h("span", { class: "saew-badge", hidden: true }),
    bar: h("span", { class: "saew-bar saew-bar-short" }),
    top: h("span", {}),
    stale: h("div", { class: "saew-fault", role: "status", hidden: true }),
    strip: h("div", { class: "saew-strip", role: "listbox", tabindex: "0", "aria-label": "Tokens, arrow keys move" }),
    tip: h("div", { class: "saew-tip", "aria-hidden": "true", hidden: true }),
    chunks: h("div", { class: "saew-head", hidden: true }),
    best: h("div", { class: "saew-best" }),
    notes: h("div", { class: "saew-note" }),
    empty: h("div", { class: "saew-empty" }),
  };
  const legend = h("span", { class: "saew-scale", title: "Colour of a token: activation of the feature in focus" },
    h("span", {}, "0"), parts.bar, parts.top);
  parts.tools = h("div", { class: "saew-tools" }, parts.badge, legend, h("span", { class: "saew-label" }, "scale of"), scale.node);
  parts.field = h("div", { class: "saew-field" }, parts.strip, parts.tip);
  const title = h("h3", { class: "saew-title" }, "Which tokens?");
  body.append(h("div", { class: "saew-head saew-tokens-head" }, title, parts.summary, parts.tools),
    parts.stale, parts.empty, parts.field, parts.chunks, parts.best, parts.notes);
  return parts;
}

/** The pager of a long text, of which tokens `first` to `last` are in the page; hidden for a short one. */
function showChunks(chunks, n, first, last, goTo) {
  chunks.hidden = n <= CHUNK;
  if (n <= CHUNK) return;
  const button = (label, text, to, disabled) => h("button", { type: "button", "aria-label": label, disabled, onclick: () => goTo(to) }, text);
  chunks.replaceChildren(
    button("Earlier tokens", "‹", Math.max(0, first - CHUNK), first === 0),
    h("span", { class: "saew-where" }, `tokens ${whole(first + 1)} to ${whole(last)} of ${whole(n)}`),
    button("Later tokens", "›", last, last >= n));
}
