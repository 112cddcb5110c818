// The health row: one card a number, further facts, and how often features fire. The mark and the word say the same as
// the colour.
const MARKS = { fine: "✓", look: "!", broken: "✕", unknown: "?" };
const DECADES = ["0.001%", "0.01%", "0.1%", "1%", "10%", "100%"];

export default {
  render({ model, el, signal }) {
    el.classList.add("sae-health-parts");
    const row = make("div", "sae-health-row");
    row.setAttribute("role", "list");
    const facts = make("div", "sae-facts sae-health-facts");
    const histogram = make("div", "sae-frequency");
    el.append(row, facts, histogram);
    const empty = make("div", "sae-nothing");
    let root = null;
    const draw = () => {
      const cards = model.get("cards").map(makeCard);
      empty.textContent = model.get("empty");
      row.replaceChildren(...cards, ...(cards.length ? [] : [empty]));
      facts.replaceChildren(...model.get("facts").map(([label, value, means]) => {
        const node = make("span", "sae-fact", `${label} `);
        node.append(make("b", "", value));
        node.title = means;
        node.tabIndex = 0;
        return node;
      }));
      facts.hidden = !model.get("facts").length;
      drawHistogram(histogram, model.get("bars"));
      report(root, { words: model.get("cards").map((card) => card.word).join(" "), facts: model.get("facts").length });
    };
    drawOn(model, ["cards", "facts", "bars", "empty"], draw, signal);
    paneRoot(el, signal).then((found) => {
      root = found;
      draw();
    });
  },
};

function makeCard(card) {
  const node = make("div", `sae-card sae-is-${card.word}`);
  node.setAttribute("role", "listitem");
  node.tabIndex = 0;
  node.title = card.means;
  node.dataset.key = card.key;
  node.dataset.word = card.word;
  const said = card.small ? `${card.number} ${card.small}` : card.number;
  node.setAttribute("aria-label", `${card.title}: ${said}, ${card.word}. ${card.means}`);
  const word = make("span", "sae-card-word", `${MARKS[card.word] || "?"} ${card.word}`);
  const line = make("div", "sae-card-line");
  const number = make("span", "sae-card-number", card.number);
  if (card.small) number.append(make("small", "", ` ${card.small}`));
  line.append(number, word);
  node.append(make("div", "sae-card-title", card.title), line);
  return node;
}

// A bar for the features that never fire, then one for each half decade.
function drawHistogram(box, bars) {
  box.hidden = !bars.length;
  if (!bars.length) return box.replaceChildren();
  const most = Math.max(1, ...bars.map(([, count]) => count));
  const [never, ...others] = bars.map(([words, count]) => {
    const column = make("div", "sae-frequency-column");
    const bar = make("div", "sae-frequency-bar");
    bar.style.height = count ? `max(2px, ${(100 * count) / most}%)` : "0";
    column.title = `${count.toLocaleString("en")} feature${count === 1 ? " fires" : "s fire"} ${words}`;
    column.append(bar);
    return column;
  });
  const plot = make("div", "sae-frequency-bars");
  for (const columns of [[never], others]) {
    const part = make("div", "sae-frequency-columns");
    part.append(...columns);
    plot.append(part);
  }
  plot.setAttribute("role", "img");
  plot.setAttribute("aria-label", `How often features fire: ${bars.filter(([, count]) => count).map(([words, count]) => `${count} ${words}`).join(", ")}`);
  const axis = make("div", "sae-frequency-axis");
  const decades = make("div", "sae-frequency-decades");
  decades.append(...DECADES.map((words, i) => {
    const tick = make("span", "", words);
    tick.style.left = `${(100 * i) / (DECADES.length - 1)}%`;
    return tick;
  }));
  axis.append(make("span", "", "never"), decades);
  const title = make("div", "sae-soft", "Features by how often they fire (share of tokens, log scale)");
  title.title = "Most features of a good SAE fire on 0.01% to 10% of the tokens; those at the right say little about any one text.";
  box.replaceChildren(title, plot, axis);
}
