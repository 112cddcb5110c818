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
    const under = make("div", "sae-column sae-column-hovered");
    const empty = make("div", "sae-empty");
    const gone = make("div");
    const ticks = make("div", "sae-ticks");
    shade.append(gone, under, chosen, ticks, empty);
    plot.append(shade);
    const margin = model.get("margin");
    for (const side of ["top", "bottom", "left", "right"]) shade.style[side] = `${margin[side]}px`;
    plot.tabIndex = 0;
    plot.setAttribute("role", "listbox");
    plot.setAttribute("aria-label", "Feature bars: arrows choose, Escape frees, Page Up and Page Down turn pages");

    const ids = () => model.get("ids");
    const indexOf = (feature) => (feature === null || feature === undefined ? -1 : ids().indexOf(feature));

    // Left edge and width of each bar, in the pixels of the overlay; bqplot moves the groups, so it is asked.
    const columns = () => {
      const groups = [...plot.querySelectorAll(".bargroup")];
      return groups.map((group) => {
        const move = group.transform.baseVal;
        const rect = group.querySelector("rect");
        return [move.numberOfItems ? move.getItem(0).matrix.e : 0, rect ? Number(rect.getAttribute("width")) : 0];
      });
    };
    const cover = (column, place) => {
      column.hidden = !place;
      if (!place) return;
      column.style.left = `${place[0] - 2}px`;
      column.style.width = `${place[1] + 4}px`;
    };
    const place = () => {
      const at = columns();
      cover(chosen, at[indexOf(selection.get("selected"))]);
      cover(under, at[indexOf(selection.get("hovered"))]);
      const dead = model.get("dead").map((feature) => at[indexOf(feature)]).filter(Boolean);
      gone.replaceChildren(...dead.map(([left, width]) => {
        const mark = make("div", "sae-column sae-column-dead", "✕");
        mark.style.left = `${left}px`;
        mark.style.width = `${width}px`;
        mark.title = "dead: never fired on the corpus";
        return mark;
      }));
      label(at);
    };
    // Numbers below the bars: as many as there is room for, that of the selected one always.
    const label = (at) => {
      const selected = indexOf(selection.get("selected"));
      const taken = [];
      const nodes = [];
      for (const i of [selected, ...ids().keys()]) {
        if (i < 0 || !at[i] || (i === selected && nodes.length)) continue;
        const text = String(ids()[i]);
        const middle = at[i][0] + at[i][1] / 2;
        const half = (text.length * 7 + 8) / 2;
        if (taken.some(([from, to]) => middle - half < to && middle + half > from)) continue;
        taken.push([middle - half, middle + half]);
        const dead = model.get("dead").includes(ids()[i]);
        const node = make("span", `sae-tick${i === selected ? " sae-tick-selected" : ""}${dead ? " sae-tick-dead" : ""}`, text);
        node.style.left = `${middle}px`;
        nodes.push(node);
      }
      ticks.replaceChildren(...nodes);
    };
    const tell = () => {
      const hovered = selection.get("hovered");
      const feature = indexOf(hovered) >= 0 ? hovered : selection.get("selected");
      const at = indexOf(feature);
      if (feature === null || feature === undefined) {
        told.textContent = ids().length ? "Point at a bar to preview a feature, click to select it." : "";
        return;
      }
      const name = model.get("names")[String(feature)];
      const height = at >= 0 ? `, ${model.get("measure")} ${Number((bars.get("y") || [])[at] || 0).toPrecision(3)}` : "";
      const state = model.get("dead").includes(feature) ? ", dead" : "";
      told.textContent = `Feature ${feature.toLocaleString("en")}${name ? ` “${name}”` : ""}${height}${state}`;
    };
    const highlight = () => {
      const at = indexOf(selection.get("selected"));
      const now = bars.get("selected");
      const held = now && now.length ? now[0] : -1;
      if (held !== at) bars.set("selected", at < 0 ? null : new Uint32Array([at]));
      place();
      tell();
      root.dataset.selected = selection.get("selected") ?? "";
    };
    const choose = (feature) => {
      selection.set("selected", feature);
      selection.save_changes();
    };
    const under_pointer = (event) => {
      const x = event.clientX - shade.getBoundingClientRect().left;
      const at = columns();
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
      const at = under_pointer(event);
      if (event.button === 0 && at >= 0) choose(ids()[at]);
    }, { signal });
    plot.addEventListener("pointermove", (event) => {
      const at = under_pointer(event);
      hover(at >= 0 ? ids()[at] : null);
    }, { signal });
    plot.addEventListener("pointerleave", () => hover(null), { signal });
    plot.addEventListener("keydown", key, { signal });
    let frame = 0;
    const soon = () => {
      cancelAnimationFrame(frame);
      frame = requestAnimationFrame(place);
    };
    const moved = new MutationObserver(soon);
    const svg = plot.querySelector("svg.svg-figure") || plot;
    moved.observe(svg, { subtree: true, childList: true, attributes: true, attributeFilter: ["transform", "width"] });
    signal.addEventListener("abort", () => {
      moved.disconnect();
      shade.remove();
    });
    drawOn(selection, ["selected", "hovered"], highlight, signal);
    drawOn(bars, ["selected"], highlight, signal);
    drawOn(bars, ["y"], soon, signal);
    drawOn(model, ["ids", "dead", "names", "measure", "empty"], () => {
      empty.textContent = model.get("empty");
      empty.hidden = !model.get("empty");
      highlight();
      report(root, { bars: ids().length });
    }, signal);
  },
};
