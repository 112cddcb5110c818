// The legend of the loss chart. It reads the lines' own data, so that hovering needs no kernel.
export default {
  async render({ model, el, host, signal }) {
    el.classList.add("sae-readout");
    const lines = await host.getModel(model.get("lines"));
    const values = make("div", "sae-readout-values");
    const note = make("div", "sae-readout-note");
    el.append(values, note);
    const step = make("span", "sae-readout-step");
    let cells = [];
    const legend = () => {
      cells = model.get("series").map(([words, colour, dash]) => {
        const cell = make("span", "sae-readout-cell");
        const number = make("b");
        cell.append(swatch(colour, dash), make("span", "", `${words} `), number);
        return [cell, number];
      });
      values.replaceChildren(step, ...cells.map(([cell]) => cell));
      draw();
    };
    const shade = make("div", "sae-overlay");
    const cursor = make("div", "sae-cursor");
    const empty = make("div", "sae-empty");
    shade.append(cursor, empty);
    let root = null;
    let at = null; // index of the step under the mouse

    const steps = () => (model.get("series").length ? lines.get("x") || [] : []);
    const rows = () => {
      const y = lines.get("y");
      const n = steps().length;
      if (!y || !n) return [];
      return typeof y[0] === "number" ? split(y, n) : y;
    };
    const draw = () => {
      const x = steps();
      const shown = at !== null && at < x.length ? at : x.length - 1;
      const hovering = shown === at;
      step.textContent = x.length ? `${hovering ? "at step" : "step"} ${Math.round(x[shown]).toLocaleString("en")}` : "";
      rows().forEach((row, i) => {
        if (cells[i]) cells[i][1].textContent = brief(Number(row[shown]));
      });
      values.hidden = !x.length;
      empty.textContent = model.get("empty");
      empty.hidden = !model.get("empty");
      root?.querySelector(".sae-plot").classList.toggle("sae-plot-empty", Boolean(model.get("empty")));
      note.textContent = model.get("note");
      note.hidden = !model.get("note");
      mark();
      place();
    };
    const mark = () => {
      const x = steps();
      const inside = model.get("gaps").filter((step) => x.length > 1 && step >= x[0] && step <= x[x.length - 1]);
      shade.querySelectorAll(".sae-gap").forEach((node) => node.remove());
      shade.append(...inside.map((step) => {
        const node = make("div", "sae-gap");
        node.style.left = `${((step - x[0]) / (x[x.length - 1] - x[0] || 1)) * 100}%`;
        return node;
      }));
    };
    const place = () => {
      const x = steps();
      cursor.hidden = at === null || at >= x.length;
      if (cursor.hidden) return;
      const share = (x[at] - x[0]) / (x[x.length - 1] - x[0] || 1);
      cursor.style.left = `${share * 100}%`;
    };
    const point = (event) => {
      const x = steps();
      const box = shade.getBoundingClientRect();
      const share = (event.clientX - box.left) / box.width;
      if (!x.length || share < -0.02 || share > 1.02) return leave();
      at = nearest(x, x[0] + share * (x[x.length - 1] - x[0]));
      draw();
    };
    const leave = () => {
      at = null;
      draw();
    };
    const key = (event) => {
      const by = { ArrowLeft: -1, ArrowRight: 1, PageUp: -20, PageDown: 20 }[event.key];
      const last = steps().length - 1;
      if (event.key === "Escape") at = null;
      else if (by) at = Math.min(last, Math.max(0, (at === null ? last : at) + by));
      else return;
      event.preventDefault();
      event.stopPropagation();
      draw();
    };

    root = await paneRoot(el, signal);
    if (!root) return;
    const plot = root.querySelector(".sae-plot");
    const margin = model.get("margin");
    for (const side of ["top", "bottom", "left", "right"]) shade.style[side] = `${margin[side]}px`;
    plot.append(shade);
    plot.tabIndex = 0;
    plot.setAttribute("role", "img");
    plot.setAttribute("aria-label", "Loss chart; left and right arrows read the values");
    plot.addEventListener("pointermove", point, { signal });
    plot.addEventListener("pointerleave", leave, { signal });
    plot.addEventListener("keydown", key, { signal });
    signal.addEventListener("abort", () => shade.remove());
    let frame = 0;
    const drawn = () => {
      cancelAnimationFrame(frame);
      frame = requestAnimationFrame(() => {
        const x = steps();
        report(root, { points: x.length, step: x.length ? Math.round(x[x.length - 1]) : 0 });
      });
    };
    drawOn(model, ["series"], () => { // may come after the lines: a short run ends with its first drawing
      legend();
      drawn();
    }, signal);
    drawOn(model, ["empty", "gaps", "note"], draw, signal);
    drawOn(lines, ["y"], () => {
      draw();
      drawn();
    }, signal);
  },
};

function split(flat, n) {
  const rows = [];
  for (let i = 0; i + n <= flat.length; i += n) rows.push(flat.slice(i, i + n));
  return rows;
}

function nearest(x, wanted) {
  let low = 0;
  let high = x.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (x[middle] < wanted) low = middle;
    else high = middle;
  }
  return wanted - x[low] <= x[high] - wanted ? low : high;
}

function brief(value) {
  if (!Number.isFinite(value)) return "–";
  return value !== 0 && (Math.abs(value) < 0.001 || Math.abs(value) >= 1e5) ? value.toExponential(2) : value.toPrecision(4);
}
