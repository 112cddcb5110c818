// The feature card. Labels, names and tokens come from texts of anybody: they are set as text.
export default {
  async render({ model, el, host, signal }) {
    el.classList.add("sae-card-body");
    const selection = await host.getModel(model.get("selection"));
    const empty = make("div", "sae-nothing");
    const head = make("div", "sae-card-head");
    const title = make("span", "sae-feature");
    const name = make("input", "sae-name");
    const facts = make("div", "sae-facts");
    const rest = make("div", "sae-card-rest");
    name.type = "text";
    name.placeholder = "give it a name";
    name.setAttribute("aria-label", "name of this feature");
    head.append(title, name);
    el.append(empty, head, facts, rest);
    let root = null;
    let shown = null; // the feature on the card

    const save = () => {
      if (shown === null || name.value.trim() === (model.get("data").name || "")) return;
      model.set("named", { feature: shown, name: name.value, n: (model.get("named").n || 0) + 1 });
      model.save_changes();
    };
    name.addEventListener("change", save);
    name.addEventListener("keydown", (event) => {
      event.stopPropagation();
      if (event.key === "Enter") name.blur();
      if (event.key === "Escape") {
        name.value = model.get("data").name || "";
        name.blur();
      }
    });
    const choose = (trait, value) => {
      selection.set(trait, value);
      selection.save_changes();
    };
    const token = (label, act, top, peak) => {
      const node = make("span", peak ? "sae-token sae-token-peak" : "sae-token", label);
      const share = top > 0 ? Math.min(1, Math.max(0, act / top)) : 0;
      node.style.setProperty("--sae-share", `${act > 0 ? Math.max(4, share * 50) : 0}%`);
      node.title = `${label}: ${Number(act).toPrecision(3)}${top > 0 ? `, ${Math.round(share * 100)}% of its maximum` : ""}`;
      return node;
    };
    const section = (words, ...nodes) => {
      const node = make("div", "sae-section");
      node.append(make("h4", "", words), ...nodes);
      return node;
    };
    const draw = () => {
      const data = model.get("data");
      const nothing = Boolean(data.empty) || data.feature === undefined;
      empty.textContent = data.empty || "";
      empty.hidden = !nothing;
      for (const part of [head, facts, rest]) part.hidden = nothing;
      if (nothing) {
        shown = null;
        report(root, { selected: "" });
        return;
      }
      title.textContent = `Feature ${data.feature}`;
      if (shown !== data.feature || document.activeElement !== name) name.value = data.name;
      name.maxLength = data.max_name;
      shown = data.feature;
      facts.replaceChildren(...data.facts.map(([label, value, means]) => {
        const node = make("span", "sae-fact", value ? `${label} ` : label);
        if (value) node.append(make("b", "", value));
        node.title = means;
        return node;
      }));
      const sections = [];
      if (data.tokens.length) {
        const row = make("div", "sae-chips");
        row.append(...data.tokens.map(([index, label, act]) => {
          const chip = makeButton("sae-chip-button", "", () => choose("token", index));
          chip.append(token(label, act, data.top, false), make("span", "sae-soft", ` ${Number(act).toPrecision(3)}`));
          chip.setAttribute("aria-label", `token ${label}, activation ${Number(act).toPrecision(3)}`);
          return chip;
        }));
        sections.push(section("Strongest tokens of this text", row));
      } else sections.push(section("Strongest tokens of this text", make("div", "sae-soft", "It is silent here.")));
      if (data.waiting) sections.push(make("div", "sae-soft", data.waiting));
      if (data.contexts.length) sections.push(section("Where it fires most in the corpus", ...data.contexts.map((context) => {
        const line = make("div", "sae-context");
        line.append(...context.labels.map((label, i) => token(label, context.acts[i], data.top, i === context.centre)));
        const row = make("div", "sae-context-row");
        row.append(make("span", "sae-context-act", Number(context.acts[context.centre]).toPrecision(3)), line);
        return row;
      })));
      if (data.older) sections.push(make("div", "sae-soft", data.older));
      if (data.nothing) sections.push(make("div", "sae-soft", data.nothing));
      if (data.neighbours.length) {
        const row = make("div", "sae-chips");
        row.append(...data.neighbours.map(([feature, cosine, known]) => {
          const words = `${feature}${known ? ` “${known}”` : ""}`;
          const chip = makeButton("sae-chip-button", words, () => choose("selected", feature));
          chip.append(make("span", "sae-soft", ` ${cosine.toFixed(2)}`));
          chip.title = "cosine of the decoder directions; click to select";
          return chip;
        }));
        sections.push(section("Nearest features", row));
      }
      rest.replaceChildren(...sections);
      centrePeaks(rest);
      report(root, { selected: data.feature });
    };
    drawOn(model, ["data"], draw, signal);
    root = await paneRoot(el, signal);
    draw();
  },
};

// Scroll each context so that its peak stands in the middle.
function centrePeaks(rest) {
  requestAnimationFrame(() => {
    for (const line of rest.querySelectorAll(".sae-context")) {
      const peak = line.querySelector(".sae-token-peak");
      if (peak) line.scrollLeft = peak.offsetLeft - line.offsetLeft - (line.clientWidth - peak.offsetWidth) / 2;
    }
  });
}
