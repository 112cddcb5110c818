// The head of a pane: the question that it answers, what went wrong in it, and its name for tests.
export default {
  render({ model, el, signal }) {
    const bar = make("div", "sae-head-bar");
    const question = make("h3", "sae-question");
    const note = make("span", "sae-note");
    const fault = make("div", "sae-fault");
    const spoken = make("div", "sae-spoken");
    bar.append(question, note);
    el.classList.add("sae-head");
    el.append(bar, fault, spoken);
    fault.setAttribute("role", "alert");
    spoken.setAttribute("aria-live", "off");
    let root = null;

    const draw = () => {
      question.textContent = model.get("question");
      note.textContent = model.get("note");
      const message = model.get("fault");
      fault.textContent = message ? `⚠ ${message}` : "";
      fault.hidden = !message;
      spoken.textContent = model.get("summary");
      bar.hidden = !model.get("question") && !model.get("note");
      if (!root) return;
      root.dataset.pane = model.get("pane");
      root.dataset.fault = message;
      root.setAttribute("role", "group");
      root.setAttribute("aria-label", model.get("question") || model.get("pane"));
      if (model.get("draws") >= 0) root.dataset.draws = String(model.get("draws"));
    };
    drawOn(model, ["question", "note", "fault", "summary", "pane", "draws"], draw, signal);
    paneRoot(el, signal).then((found) => {
      root = found;
      draw();
      if (root) nameParts(root, signal);
    });
  },
};
