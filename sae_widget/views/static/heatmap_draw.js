// The pure part of the heatmap: half-precision numbers, where everything goes, and pixels.

const DEAD = 1;
const QUIET = 2;
const SCORE = 76; // width of the column of what the rows are sorted by
const GRID_SCORE = 40; // the same above a cell of the grid
const HEAD = 18; // height of the line of column names above the strips
const ROW_HEIGHT = { 16: 24, 64: 17, 256: 7, 1024: 3 };

/** The value of a half-precision number, given its bits. */
function halfValue(bits) {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return exponent ? sign * 2 ** (exponent - 25) * (1024 + fraction) : (sign * fraction) / 2 ** 24;
}

/** The colour of every half-precision number, for one limit and theme. */
function halfColours(limit, theme) {
  const points = PALETTE.diverging[theme];
  const steps = Uint32Array.from({ length: 511 }, (_, i) => packColour(mixColour(points, i / 510)));
  const missing = packColour(mixColour([PALETTE.missing[theme], PALETTE.missing[theme]], 0));
  return Uint32Array.from({ length: 65536 }, (_, bits) => {
    const value = halfValue(bits);
    if (Number.isNaN(value)) return missing;
    return steps[Math.round(255 + 255 * Math.min(1, Math.max(-1, value / limit)))];
  });
}

/** What the traits of the model say, as one record; null while there is nothing to draw. */
function readPage(model) {
  const facts = model.get("facts");
  const ids = Array.from(typed(Uint32Array, model.get("ids")));
  const data = typed(Uint16Array, model.get("data"));
  if (!ids.length || data.length !== ids.length * facts.d_in) return null;
  return {
    facts, ids, data,
    flags: typed(Uint8Array, model.get("flags")),
    scores: typed(Float32Array, model.get("scores")),
    names: model.get("names"),
    hints: model.get("hints"),
  };
}

/** Where everything goes: `strips[i]` the strip of row i, `boxes[i]` what is highlighted, in px of the sheet. */
function arrange(page, width) {
  const n = page.ids.length;
  if (page.facts.arrangement === "grid") {
    const columns = width < 400 ? 2 : 4;
    const gap = 16;
    const cell = (width - (columns - 1) * gap - 8) / columns;
    const boxes = page.ids.map((_, i) =>
      ({ x: 4 + (i % columns) * (cell + gap), y: 4 + Math.floor(i / columns) * 84, w: cell, h: 76 }));
    const strips = boxes.map(({ x, y, w }) => ({ x, y: y + 24, w, h: 52 }));
    return { columns, boxes, strips, head: 0, height: Math.ceil(n / columns) * 84, labelEvery: 1 };
  }
  const row = ROW_HEIGHT[page.facts.size] ?? 17;
  const left = width < 640 ? 112 : 168;
  const right = SCORE;
  const boxes = page.ids.map((_, i) => ({ x: 0, y: HEAD + i * row, w: width, h: row }));
  const gap = row > 10 ? 1 : 0;
  const strips = boxes.map(({ y }) => ({ x: left, y, w: Math.max(40, width - left - right), h: row - gap }));
  return { columns: 1, boxes, strips, head: HEAD, height: HEAD + n * row, labelEvery: Math.ceil(15 / row), row };
}

/** One line of pixels a feature; where several dimensions share a pixel, the one with the largest weight is shown. */
function paintRows(page, colours, pixels) {
  const { data, ids, facts: { d_in: width } } = page;
  const image = new ImageData(pixels, ids.length);
  const out = new Uint32Array(image.data.buffer);
  for (let x = 0; x < pixels; x++) {
    const from = Math.floor((x * width) / pixels);
    const to = Math.max(from + 1, Math.floor(((x + 1) * width) / pixels));
    for (let row = 0; row < ids.length; row++) {
      let best = data[row * width + from];
      for (let i = from + 1; i < to; i++) {
        const bits = data[row * width + i];
        if ((bits & 0x7fff) > (best & 0x7fff)) best = bits;
      }
      out[row * pixels + x] = colours[best];
    }
  }
  const canvas = new OffscreenCanvas(pixels, ids.length);
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

/** Diagonal lines over a strip: the mark of a dead feature. */
function hatch(context, { x, y, w, h }, theme) {
  context.save();
  context.beginPath();
  context.rect(x, y, w, h);
  context.clip();
  context.fillStyle = theme === "dark" ? "rgba(29, 31, 35, 0.62)" : "rgba(255, 255, 255, 0.66)";
  context.fill();
  context.beginPath();
  for (let at = x - h; at < x + w; at += 7) {
    context.moveTo(at, y + h);
    context.lineTo(at + h, y);
  }
  context.strokeStyle = theme === "dark" ? "rgba(255, 255, 255, 0.42)" : "rgba(0, 0, 0, 0.42)";
  context.lineWidth = 1;
  context.stroke();
  context.restore();
}

/** Paint all strips of a page; `pixels` is the width of a strip on the screen. */
function paintSheet(canvas, page, plan, { width, ratio, pixels, colours, theme }) {
  const lines = paintRows(page, colours, pixels);
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(plan.height * ratio);
  Object.assign(canvas.style, { width: `${width}px`, height: `${plan.height}px` });
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = false;
  plan.strips.forEach((strip, i) => {
    const top = Math.round(strip.y * ratio);
    const bottom = Math.round((strip.y + strip.h) * ratio);
    context.drawImage(lines, 0, i, pixels, 1, Math.round(strip.x * ratio), top, pixels, Math.max(1, bottom - top));
  });
  context.scale(ratio, ratio);
  plan.strips.forEach((strip, i) => page.flags[i] === DEAD && hatch(context, strip, theme));
}
