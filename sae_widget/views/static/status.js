// The status line. Messages may hold what a person typed: they are set as text.
const PHASE_MARKS = {
  starting: "◔", loading: "◔", reading: "◔", ready: "●", training: "▶", paused: "⏸", stopping: "◼", failed: "⚠", closed: "○",
};

export default {
  render({ model, el, signal }) {
    el.classList.add("sae-status-text");
    const chip = make("span", "sae-phase");
    const message = make("span", "sae-message");
    const progress = make("span", "sae-progress-words");
    const bar = make("div", "sae-bar");
    const done = make("div", "sae-bar-done");
    const notice = make("div", "sae-gone", "⚠ Not connected to a running kernel: run the cell again.");
    const line = make("div", "sae-status-line");
    const words = make("span", "sae-status-words");
    notice.setAttribute("role", "alert");
    words.setAttribute("role", "status");
    words.setAttribute("aria-live", "polite");
    bar.setAttribute("role", "progressbar");
    bar.setAttribute("aria-valuemin", "0");
    bar.setAttribute("aria-valuemax", "100");
    bar.setAttribute("aria-label", "progress");
    words.append(chip, message);
    line.append(words, progress);
    bar.append(done);
    el.append(line, bar, notice);
    let root = null;
    const draw = () => {
      const phase = model.get("phase");
      const trouble = model.get("trouble");
      const share = model.get("share");
      chip.textContent = `${trouble ? "⚠" : PHASE_MARKS[phase] || "●"} ${model.get("words")}`;
      if (message.textContent !== model.get("message")) message.textContent = model.get("message");
      message.hidden = model.get("message") === model.get("words"); // "Training" once is enough
      message.title = model.get("message");
      progress.textContent = model.get("progress");
      bar.style.visibility = share < 0 ? "hidden" : "visible";
      done.style.width = `${Math.max(0, share) * 100}%`;
      bar.setAttribute("aria-valuenow", String(Math.round(Math.max(0, share) * 100)));
      el.classList.toggle("sae-trouble", trouble);
      el.dataset.phase = phase;
      report(root, { phase, trouble, beat: model.get("beat") });
    };
    watchBeat(model, notice, signal);
    drawOn(model, ["phase", "words", "message", "trouble", "share", "progress", "beat"], draw, signal);
    paneRoot(el, signal).then((found) => {
      root = found;
      draw();
    });
  },
};
