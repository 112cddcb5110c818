// The health row: one card a number. The mark and the word say the same as the colour.
const MARKS = { fine: "✓", look: "!", broken: "✕", unknown: "?" };

export default {
  render({ model, el, signal }) {
    el.classList.add("sae-health-row");
    el.setAttribute("role", "list");
    const empty = make("div", "sae-nothing");
    let root = null;
    const draw = () => {
      const cards = model.get("cards").map((card) => {
        const node = make("div", `sae-card sae-is-${card.word}`);
        node.setAttribute("role", "listitem");
        node.tabIndex = 0;
        node.title = card.means;
        node.dataset.key = card.key;
        node.dataset.word = card.word;
        node.setAttribute("aria-label", `${card.title}: ${card.number}, ${card.word}. ${card.means}`);
        const word = make("span", "sae-card-word", `${MARKS[card.word] || "?"} ${card.word}`);
        const line = make("div", "sae-card-line");
        const [amount, whole] = card.number.split(" of ");
        const number = make("span", "sae-card-number", amount);
        if (whole) number.append(make("small", "", ` of ${whole}`));
        line.append(number, word);
        node.append(make("div", "sae-card-title", card.title), line);
        return node;
      });
      empty.textContent = model.get("empty");
      el.replaceChildren(...cards, ...(cards.length ? [] : [empty]));
      report(root, { words: model.get("cards").map((card) => card.word).join(" ") });
    };
    drawOn(model, ["cards", "empty"], draw, signal);
    paneRoot(el, signal).then((found) => {
      root = found;
      draw();
    });
  },
};
