// Joins bqplot's bars to the shared selection. Everything here happens in the browser, so that a click is
// answered while the kernel is busy. The whole column over a bar answers, not only the bar itself.
export default {
  async render({ model, el, host, signal }) {
    el.classList.add("sae-readout");
    const selection = await host.getModel(model.get("selection"));
    const bars = await host.getModel(model.get("bars"));
    const told = make("div", "sae-readout-values");
    told.setAttribute("aria-live", "polite");
    el.append(told);
    const root = await paneRoot(el, signal);
    if (!root) return;
    const plot = root.querySelector(".sae-plot");
    const shade = make("div", "sae-overlay");
    const chosen = make("div", "sae-column sae-column-selected");
    chosen.id = `sae-bar-${Math.random().toString(36).slice(2)}`;
    chosen.setAttribute("role", "option");
    chosen.setAttribute("aria-selected", "true");
    const under = make("div", "sae-column sae-column-hovered");
    const empty = make("div", "sae-empty");
    const gone = make("div");
    const ticks = make("div", "sae-ticks");
    const chosenTick = make("span");
    shade.append(gone, under, chosen, ticks, empty);
    plot.append(shade);
    const margin = model.get("margin");
    for (const side of ["top", "bottom", "left", "right"]) shade.style[side] = `${margin[side]}px`;
    plot.tabIndex = 0;
    plot.setAttribute("role", "listbox");
    plot.setAttribute("aria-label", "Feature bars: arrows choose, Escape frees, Page Up and Page Down turn pages");

    const ids = () => model.get("ids");
    const indexOf = (feature) => (feature === null || feature === undefined ? -1 : ids().indexOf(feature));

    // Left edge and width of each bar, in the pixels of the overlay; bqplot moves the groups, so it is asked, but only
    // after it has drawn: a click must not wait for that.
    let at = [];
    let numbers = []; // below the bars: {node, from, to}
    const measure = () => {
      at = [...plot.querySelectorAll(".bargroup")].map((group) => {
        const move = group.transform.baseVal;
        const rect = group.querySelector("rect");
        return [move.numberOfItems ? move.getItem(0).matrix.e : 0, rect ? Number(rect.getAttribute("width")) : 0];
      });
    };
    const cover = (column, place) => {
      column.hidden = !place;
      if (!place) return;
      column.style.transform = `translateX(${place[0] - 2}px)`;
      column.style.width = `${place[1] + 4}px`;
    };
    const span = (i) => {
      const middle = at[i][0] + at[i][1] / 2;
      const half = (String(ids()[i]).length * 7 + 8) / 2;
      return { middle, from: middle - half, to: middle + half };
    };
    const tick = (node, i, middle) => {
      const dead = model.get("dead").includes(ids()[i]);
      node.className = `sae-tick${node === chosenTick ? " sae-tick-selected" : ""}${dead ? " sae-tick-dead" : ""}`;
      node.textContent = String(ids()[i]);
      node.style.left = `${middle}px`;
    };
    // Everything that depends on where the bars are: marks of dead features, and as many numbers as there is room for.
    const place = () => {
      measure();
      const dead = model.get("dead").map((feature) => at[indexOf(feature)]).filter(Boolean);
      gone.replaceChildren(...dead.map(([left, width]) => {
        const mark = make("div", "sae-column sae-column-dead", "✕");
        mark.style.left = `${left}px`;
        mark.style.width = `${width}px`;
        mark.title = "dead: never fired on the corpus";
        return mark;
      }));
      numbers = [];
      for (const i of ids().keys()) {
        if (!at[i]) continue;
        const { middle, from, to } = span(i);
        if (numbers.length && from < numbers[numbers.length - 1].to) continue;
        const node = make("span");
        tick(node, i, middle);
        numbers.push({ node, from, to });
      }
      ticks.replaceChildren(...numbers.map(({ node }) => node), chosenTick);
      cover(under, at[indexOf(selection.get("hovered"))]);
      showSelected();
    };
    // The selected one has its number always; those that stand in its way make room.
    const showSelected = () => {
      const i = indexOf(selection.get("selected"));
      const there = i >= 0 && at[i];
      cover(chosen, at[i]);
      chosenTick.hidden = !there;
      const own = there ? span(i) : { from: Infinity, to: -Infinity };
      if (there) tick(chosenTick, i, own.middle);
      for (const { node, from, to } of numbers) {
        const away = from < own.to && to > own.from;
        if (node.hidden !== away) node.hidden = away;
      }
    };
    const words = (feature) => {
      const i = indexOf(feature);
      const name = model.get("names")[String(feature)];
      const height = i >= 0 ? `, ${model.get("measure")} ${Number((bars.get("y") || [])[i] || 0).toPrecision(3)}` : "";
      const state = model.get("dead").includes(feature) ? ", dead" : "";
      return `Feature ${feature}${name ? ` “${name}”` : ""}${height}${state}`;
    };
    const tell = () => {
      const [selected, hovered] = [selection.get("selected"), selection.get("hovered")];
      if (chosen.hidden) plot.removeAttribute("aria-activedescendant");
      else {
        plot.setAttribute("aria-activedescendant", chosen.id);
        chosen.setAttribute("aria-label", words(selected));
      }
      const feature = indexOf(hovered) >= 0 ? hovered : selected;
      const invitation = ids().length ? "Point at a bar to preview a feature, click to select it." : "";
      const said = feature === null || feature === undefined ? invitation : words(feature);
      if (told.textContent !== said) told.textContent = said;
    };
    // bqplot's own selection follows the shared one: it may have been made for another page of bars.
    const follow = () => {
      const i = indexOf(selection.get("selected"));
      const now = bars.get("selected");
      if ((now && now.length ? now[0] : -1) !== i) bars.set("selected", i < 0 ? null : new Uint32Array([i]));
    };
    const highlight = () => {
      root.dataset.selected = selection.get("selected") ?? "";
      showSelected();
      follow();
      tell();
    };
    const preview = () => {
      cover(under, at[indexOf(selection.get("hovered"))]);
      tell();
    };
    const choose = (feature) => {
      selection.set("selected", feature);
      selection.save_changes();
    };
    const under_pointer = (event) => {
      const x = event.clientX - shade.getBoundingClientRect().left;
      if (!at.length) return -1;
      const reach = at.length > 1 ? Math.abs(at[1][0] - at[0][0]) / 2 : at[0][1];
      const found = at.findIndex(([left, width]) => Math.abs(left + width / 2 - x) <= reach);
      return found < ids().length ? found : -1;
    };
    const hover = (feature) => {
      if ((selection.get("hovered") ?? null) !== feature) selection.set("hovered", feature);
    };
    const key = (event) => {
      const n = ids().length;
      const now = indexOf(selection.get("selected"));
      let next = null;
      if (event.key === "ArrowRight") next = Math.min(n - 1, now + 1);
      else if (event.key === "ArrowLeft") next = now < 0 ? n - 1 : Math.max(0, now - 1);
      else if (event.key === "Home") next = 0;
      else if (event.key === "End") next = n - 1;
      else if (event.key === "Escape") { hover(null); choose(null); }
      else if (event.key === "PageDown" || event.key === "PageUp") {
        model.set("turned", model.get("turned") + (event.key === "PageDown" ? 1 : -1));
        model.save_changes();
      } else return;
      event.preventDefault();
      event.stopPropagation();
      if (next !== null && n) choose(ids()[next]);
    };

    plot.addEventListener("pointerdown", (event) => {
      const i = under_pointer(event);
      if (event.button === 0 && i >= 0) choose(ids()[i]);
    }, { signal });
    plot.addEventListener("pointermove", (event) => {
      const i = under_pointer(event);
      hover(i >= 0 ? ids()[i] : null);
    }, { signal });
    plot.addEventListener("pointerleave", () => hover(null), { signal });
    plot.addEventListener("keydown", key, { signal });
    let frame = 0;
    const soon = () => {
      cancelAnimationFrame(frame);
      frame = requestAnimationFrame(place);
    };
    // bqplot may draw its figure only later, so all of the plot is watched; what stands over it is our own doing, and to
    // answer that would never end.
    const moved = new MutationObserver((changes) => {
      if (changes.some(({ target }) => !shade.contains(target))) soon();
    });
    moved.observe(plot, { subtree: true, childList: true, attributes: true, attributeFilter: ["transform", "width"] });
    signal.addEventListener("abort", () => {
      moved.disconnect();
      shade.remove();
    });
    drawOn(selection, ["selected"], highlight, signal);
    drawOn(selection, ["hovered"], preview, signal);
    // Not inside the change that it answers: a model that is set while it tells its changes loses those it has not told
    // yet, and bqplot would draw the bars of before.
    drawOn(bars, ["selected"], () => queueMicrotask(follow), signal);
    drawOn(bars, ["y"], soon, signal);
    drawOn(model, ["ids", "dead", "names", "measure", "empty"], () => {
      empty.textContent = model.get("empty");
      empty.hidden = !model.get("empty");
      plot.classList.toggle("sae-plot-empty", Boolean(model.get("empty")));
      place();
      highlight();
      report(root, { bars: ids().length });
    }, signal);
  },
};
