// The weights of one page of features as strips, on one canvas. The highlight is an element above the canvas, so that
// selecting never paints the strips again.

let listCount = 0;

class HeatmapPane {
  constructor({ model, el, signal }, selection) {
    this.model = model;
    this.selection = selection;
    this.pane = makePane({ model, el, signal }, "heatmap", "Feature weights");
    this.head = makeHead(model);
    this.foot = makeFoot(model);
    this.canvas = h("canvas", { "aria-hidden": "true" });
    this.columns = h("div", { class: "saew-columns" });
    this.labels = h("div", { class: "saew-rows", "aria-hidden": "true" });
    this.markName = h("span", { class: "saew-markname" });
    const id = `saew-mark-${++listCount}-${Date.now()}`;
    this.marked = h("div", { class: "saew-mark", role: "option", "aria-selected": "true", id, hidden: true }, this.markName);
    this.hovered = h("div", { class: "saew-mark is-hover", "aria-hidden": "true", hidden: true });
    this.sheet = h("div", { class: "saew-sheet", role: "presentation" },
      this.columns, this.canvas, this.labels, this.hovered, this.marked);
    this.list = h("div", {
      class: "saew-list", role: "listbox", tabindex: "0", "aria-label": "Features on this page, arrow keys move",
    }, this.sheet);
    this.empty = h("div", { class: "saew-empty" });
    this.content = h("div", {}, this.list, this.foot.node);
    this.pane.body.append(this.head.node, this.empty, this.content);
    this.page = null; // what the traits say
    this.plan = null; // where it went when it was painted
    this.colours = null;
    this.coloursFor = "";
    this.tall = 0; // of the list, and how far it is scrolled: known, since asking the page for them at a click costs a layout
    this.scrolled = 0;
    this.goingTo = null; // the page that a key is going to, and which end of it is to be selected
    this.repaint = inNextFrame(() => this.paint());
    this.listen(signal);
  }

  listen(signal) {
    const { model, selection, sheet, list } = this;
    const update = inNextFrame(() => this.update());
    model.on("change:data change:ids change:facts change:flags change:scores change:names change:hints change:empty", update);
    model.on("change:weights change:arrangement change:sort change:rows", () => this.head.showControls());
    model.on("change:place change:page", () => this.page && this.showFoot());
    selection.on(["selected"], () => {
      this.showSelection();
      this.reveal();
      this.showHover();
    });
    selection.on(["hovered"], () => this.showHover());
    this.pane.onTheme(this.repaint);
    onPress(sheet, (event) => this.pick(event));
    sheet.addEventListener("pointermove", (event) => event.pointerType !== "touch" && this.point(event));
    sheet.addEventListener("pointerleave", () => selection.hover(null));
    list.addEventListener("keydown", (event) => this.key(event));
    list.addEventListener("scroll", () => { this.scrolled = list.scrollTop; }, { passive: true });
    const resized = new ResizeObserver(() => {
      this.tall = list.clientHeight;
      if (!this.plan || list.clientWidth !== this.canvas.clientWidth) this.repaint();
    });
    resized.observe(list);
    signal.addEventListener("abort", () => resized.disconnect());
    this.head.showControls();
    update();
  }

  /** Take what the traits say and draw it. */
  update() {
    const before = this.page?.facts;
    const page = readPage(this.model);
    this.page = page;
    this.empty.textContent = this.model.get("empty");
    this.empty.hidden = page !== null;
    this.content.hidden = page === null;
    this.head.showControls();
    this.head.under.forEach((node) => { node.hidden = page === null; });
    if (!page) {
      this.plan = null;
      this.pane.drawn();
      return;
    }
    const turned = before && ["page", "size", "arrangement", "d_sae"].some((key) => before[key] !== page.facts[key]);
    if (turned) this.list.scrollTop = this.scrolled = 0;
    if (this.goingTo?.page === page.facts.page) {
      this.selection.select(this.goingTo.sign > 0 ? page.ids[0] : page.ids[page.ids.length - 1]);
      this.goingTo = null;
    }
    this.paint();
    if (turned || !before) this.reveal();
  }

  /** Draw strips, labels and everything that depends on them; waits for a width while the pane is not laid out. */
  paint() {
    const { page, pane, list, sheet } = this;
    const ratio = window.devicePixelRatio || 1;
    const width = list.clientWidth;
    if (!page || width < 60) return;
    this.plan = arrange(page, width);
    const key = `${page.facts.limit} ${pane.theme}`;
    if (this.coloursFor !== key) {
      this.colours = halfColours(page.facts.limit, pane.theme);
      this.coloursFor = key;
    }
    const pixels = Math.max(1, Math.round(this.plan.strips[0].w * ratio));
    paintSheet(this.canvas, page, this.plan, { width, ratio, pixels, colours: this.colours, theme: pane.theme });
    sheet.style.height = `${this.plan.height}px`;
    sheet.dataset.arrangement = page.facts.arrangement;
    drawLabels(page, this.plan, this.labels, this.columns);
    this.head.show(page, pane.theme, Math.ceil(page.facts.d_in / pixels));
    this.showFoot();
    this.showSelection();
    this.showHover();
    pane.drawn();
  }

  showFoot() {
    this.foot.show(this.page);
    this.foot.showChip(this.page, this.selection.selected);
  }

  rowOf(feature) {
    return feature === null || !this.page ? -1 : this.page.ids.indexOf(feature);
  }

  /** Put a mark around a row, or take it away. */
  place(mark, row) {
    mark.hidden = row < 0;
    if (row < 0) return;
    const { x, y, w, h: tall } = this.plan.boxes[row];
    const least = Math.max(tall, 7);
    Object.assign(mark.style, { transform: `translate(${x}px, ${y - (least - tall) / 2}px)`, width: `${w}px`, height: `${least}px` });
  }

  showSelection() {
    const { page, plan, marked, selection } = this;
    if (!page || !plan) return;
    const row = this.rowOf(selection.selected);
    this.place(marked, row);
    if (row >= 0) {
      this.markName.hidden = plan.labelEvery === 1; // thin rows have no label of their own
      this.markName.textContent = `${page.ids[row]} ${page.names[row] || page.hints[row] || ""}`;
      marked.setAttribute("aria-label", rowName(page, row));
      marked.setAttribute("aria-posinset", String(page.facts.page * page.facts.size + row + 1));
      marked.setAttribute("aria-setsize", String(page.facts.n_shown));
      this.list.setAttribute("aria-activedescendant", marked.id);
    } else this.list.removeAttribute("aria-activedescendant");
    this.foot.showChip(page, selection.selected);
    if (selection.hovered === null) this.foot.readOut(page, row, -1);
    markSelected(this.pane.root, selection);
  }

  showHover() {
    const { selected, hovered } = this.selection;
    if (this.page && this.plan) this.place(this.hovered, hovered === selected ? -1 : this.rowOf(hovered));
  }

  /** Scroll to the selected row when it is out of sight. */
  reveal() {
    const row = this.plan ? this.rowOf(this.selection.selected) : -1;
    if (row < 0) return;
    const { list, plan, scrolled } = this;
    const height = this.tall || list.clientHeight;
    const { y, h: tall } = plan.boxes[row];
    const first = scrolled + plan.head;
    const last = scrolled + height - tall - 2;
    if (y >= first && y <= last) return;
    if (y < first - 3 * tall || y > last + 3 * tall) list.scrollTop = y - height / 2;
    else list.scrollTop = y < first ? y - plan.head : y + tall - height + 2;
    this.scrolled = list.scrollTop;
  }

  /** The row and the dimension under the mouse; -1 where there is none. */
  under(event) {
    const frame = this.sheet.getBoundingClientRect();
    const [x, y] = [event.clientX - frame.left, event.clientY - frame.top];
    const row = this.plan.boxes.findIndex((box) => x >= box.x && x <= box.x + box.w && y >= box.y && y < box.y + box.h);
    if (row < 0) return { row, dimension: -1 };
    const strip = this.plan.strips[row];
    const width = this.page.facts.d_in;
    const dimension = Math.floor(((x - strip.x) / strip.w) * width);
    return { row, dimension: dimension >= 0 && dimension < width && y >= strip.y ? dimension : -1 };
  }

  pick(event) {
    if (!this.page || !this.plan || event.button !== 0) return;
    const { row } = this.under(event);
    if (row >= 0) this.selection.select(this.page.ids[row], event);
    this.list.focus({ preventScroll: true });
  }

  point(event) {
    if (!this.page || !this.plan) return;
    const { row, dimension } = this.under(event);
    this.selection.hover(row < 0 ? null : this.page.ids[row]);
    this.foot.readOut(this.page, row < 0 ? this.rowOf(this.selection.selected) : row, dimension);
  }

  key(event) {
    const { page, plan, selection } = this;
    if (!page || !plan) return;
    const past = (sign) => {
      const to = page.facts.page + sign;
      if (to < 0 || to >= page.facts.pages) return false;
      this.goingTo = { page: to, sign };
      tell(this.model, { page: to });
      return true;
    };
    const pageStep = page.facts.arrangement === "grid" ? page.facts.size : 10;
    if (!selectionKeys(event, selection, page.ids, { pageStep, columns: plan.columns, past })) return;
    const row = this.rowOf(selection.selected);
    this.pane.say(row < 0 ? "no feature selected" : rowName(page, row));
  }
}

export default {
  async render({ model, el, host, signal }) {
    const selection = await useSelection({ model, host, signal });
    if (!signal.aborted) new HeatmapPane({ model, el, signal }, selection);
  },
};
