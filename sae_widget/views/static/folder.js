// The folder of a saved SAE: Enter or the button asks for it to be shown; leaving the field asks for nothing.
export default {
  render({ model, el, signal }) {
    el.classList.add("sae-folder");
    const field = make("input", "sae-folder-field");
    const words = make("div", "sae-soft");
    const button = makeButton("sae-button", "Show", () => ask());
    field.type = "text";
    field.spellcheck = false;
    field.autocomplete = "off";
    field.maxLength = model.get("limit");
    field.placeholder = "folder where it is saved";
    field.setAttribute("aria-label", "folder of a saved SAE");
    words.setAttribute("aria-live", "polite");
    el.append(field, button, words);

    const draw = () => {
      const [shown, trouble, locked] = ["shown", "trouble", "locked"].map((name) => model.get(name));
      field.disabled = Boolean(locked);
      field.title = locked || model.get("help");
      button.disabled = Boolean(locked) || !field.value.trim();
      button.title = locked || "Show this SAE on the text (Enter)";
      el.classList.toggle("sae-refused", Boolean(trouble));
      field.setAttribute("aria-invalid", String(Boolean(trouble)));
      words.textContent = trouble ? `⚠ ${trouble}` : shown && `Now: ${shown}`;
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
      field.value = model.get("folder");
      draw();
    };
    drawOn(model, ["folder"], take, signal);
    drawOn(model, ["shown", "trouble", "locked"], draw, signal);
  },
};
