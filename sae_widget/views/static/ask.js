// A field with a button: Enter or the button asks for what is typed; leaving the field asks for nothing.
export default {
  render({ model, el, signal }) {
    el.classList.add("sae-ask");
    const field = make("input", "sae-ask-field");
    const words = make("div", "sae-soft");
    const button = makeButton("sae-button", model.get("action"), () => ask());
    field.type = "text";
    field.spellcheck = false;
    field.autocomplete = "off";
    field.maxLength = model.get("limit");
    field.placeholder = model.get("placeholder");
    field.setAttribute("aria-label", model.get("label"));
    words.setAttribute("aria-live", "polite");
    el.append(field, button, words);

    const draw = () => {
      const [told, locked] = [model.get("told"), model.get("locked")];
      const trouble = field.value === model.get("text") ? model.get("trouble") : ""; // it was about what stood there
      field.disabled = Boolean(locked);
      field.title = locked || model.get("help");
      button.disabled = Boolean(locked) || model.get("busy") || !field.value.trim();
      button.title = locked || `${model.get("hint")} (Enter)`;
      el.classList.toggle("sae-refused", Boolean(trouble));
      field.setAttribute("aria-invalid", String(Boolean(trouble)));
      words.textContent = trouble ? `⚠ ${trouble}` : told;
    };
    const ask = () => {
      if (button.disabled) return;
      model.set("draft", wellFormed(field.value));
      model.set("asks", model.get("asks") + 1);
      model.save_changes();
    };
    field.addEventListener("input", draw);
    field.addEventListener("keydown", (event) => {
      event.stopPropagation(); // JupyterLab would run the cell
      if (event.key === "Enter") ask();
    });
    // Another view of this box, or Python, has asked for one.
    const take = () => {
      if (document.activeElement !== field || field.value === model.get("draft")) field.value = model.get("text");
      draw();
    };
    drawOn(model, ["text"], take, signal);
    drawOn(model, ["told", "trouble", "locked", "busy"], draw, signal);
  },
};
