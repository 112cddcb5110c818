// A text area: Ctrl+Enter (or Command+Enter) reads it, typing is sent after a pause, too much is not sent at all.
const PAUSE = 250; // ms

export default {
  render({ model, el, signal }) {
    el.classList.add("sae-text");
    const label = make("label", "sae-text-label", "Text");
    const area = make("textarea", "sae-text-area");
    const foot = make("div", "sae-text-foot");
    const words = make("span", "sae-soft");
    const button = makeButton("sae-button", "Read", () => read());
    area.id = `sae-text-${Math.random().toString(36).slice(2)}`;
    area.rows = 3;
    area.spellcheck = false;
    area.setAttribute("aria-label", "text to read");
    area.placeholder = "Type or paste a text";
    label.htmlFor = area.id;
    button.title = "Read the text (Ctrl+Enter)";
    words.setAttribute("aria-live", "polite");
    foot.append(words, button);
    el.append(label, area, foot);
    let timer = 0;

    const typed = () => wellFormed(area.value);
    const fits = () => area.value.length <= model.get("limit");
    const tell = () => {
      const n = area.value.length;
      const limit = model.get("limit");
      const refusal = fits()
        ? model.get("refusal")
        : `${n.toLocaleString("en")} characters; the limit is ${limit.toLocaleString("en")}. The last text stays: shorten this one.`;
      el.classList.toggle("sae-refused", Boolean(refusal));
      area.setAttribute("aria-invalid", String(Boolean(refusal)));
      button.disabled = model.get("busy") || !fits();
      if (refusal) words.textContent = `⚠ ${refusal}`;
      else if (typed() !== model.get("text")) words.textContent = "Not read yet: Ctrl+Enter";
      else words.textContent = `${n.toLocaleString("en")} characters`;
    };
    const send = () => {
      clearTimeout(timer);
      timer = 0;
      if (!fits() || model.get("draft") === typed()) return;
      model.set("draft", typed());
      model.save_changes();
    };
    const read = () => {
      if (!fits()) return tell();
      send();
      model.set("reads", model.get("reads") + 1);
      model.save_changes();
    };
    area.addEventListener("input", () => {
      tell();
      clearTimeout(timer);
      timer = setTimeout(send, PAUSE);
    });
    area.addEventListener("blur", send);
    area.addEventListener("keydown", (event) => {
      event.stopPropagation(); // JupyterLab would run the cell
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
        event.preventDefault();
        read();
      }
    });
    // Another view of this box, or Python, has changed the text.
    const take = () => {
      if (!timer && area.value !== model.get("draft") && fits()) area.value = model.get("draft");
      tell();
    };
    const replace = () => {
      clearTimeout(timer);
      timer = 0;
      area.value = model.get("text");
      if (model.get("draft") !== area.value) area.value = model.get("draft");
      tell();
    };
    drawOn(model, ["draft"], take, signal);
    drawOn(model, ["text"], replace, signal);
    drawOn(model, ["refusal", "busy"], tell, signal);
    signal.addEventListener("abort", () => clearTimeout(timer));
  },
};
