// The pure part of the token strip: the sparse activations of all features on the tokens of the text.

const LEFT_OUT = 1;
const LINE_END = 2;
const NEW_WINDOW = 4;
const CHUNK = 2000; // tokens in the page at a time
const FAINTEST = 0.12; // place on the scale of anything above zero: tiny is not off
const STRONGEST = 5;

/** What the traits of the model say, as one record; null while there is nothing to draw. */
function readTokens(model) {
  const labels = model.get("labels");
  const indptr = typed(Uint32Array, model.get("indptr"));
  const ids = typed(Uint32Array, model.get("ids"));
  const acts = typed(Float32Array, model.get("acts"));
  if (!labels.length || indptr.length !== labels.length + 1 || ids.length !== acts.length) return null;
  const fired = typed(Uint32Array, model.get("fired"));
  const maxima = typed(Float32Array, model.get("maxima"));
  const marks = typed(Uint8Array, model.get("marks"));
  return {
    labels, indptr, ids, acts, marks,
    counted: marks.reduce((sum, mark) => sum + (mark & LEFT_OUT ? 0 : 1), 0),
    corpusMax: new Map(Array.from(maxima, (max, i) => [fired[i], max])),
    facts: model.get("facts"),
    hidden: new Set(typed(Uint32Array, model.get("hidden"))),
  };
}

/** Whether two records are of the same tokens, so that the spans can stay. */
function sameTokens(a, b) {
  return a !== null && a.labels.length === b.labels.length
    && a.labels.every((label, i) => label === b.labels[i]) && a.marks.every((mark, i) => mark === b.marks[i]);
}

/** Where a feature fires, token -> activation in the order of the text, and its largest value on tokens that count. */
function firings(text, feature) {
  const found = new Map();
  let largest = 0;
  for (let token = 0; feature !== null && token < text.labels.length; token++) {
    for (let i = text.indptr[token]; i < text.indptr[token + 1]; i++) {
      if (text.ids[i] !== feature) continue;
      found.set(token, text.acts[i]);
      if (!(text.marks[token] & LEFT_OUT)) largest = Math.max(largest, text.acts[i]);
      break;
    }
  }
  return [found, largest];
}

/** The strongest features of a token, [feature, activation][]; hidden ones only when nothing else fires. */
function strongestOf(text, token) {
  if (token === null || token < 0 || token >= text.labels.length) return [];
  const [shown, hidden] = [[], []];
  for (let i = text.indptr[token]; i < text.indptr[token + 1] && shown.length < STRONGEST; i++) {
    (text.hidden.has(text.ids[i]) ? hidden : shown).push([text.ids[i], text.acts[i]]);
  }
  return shown.length ? shown : hidden.slice(0, STRONGEST);
}

/** How many of the features that fire on a token are hidden. */
function hiddenOn(text, token) {
  return text.ids.subarray(text.indptr[token], text.indptr[token + 1]).reduce((sum, id) => sum + (text.hidden.has(id) ? 1 : 0), 0);
}

const percent = (share) => (share > 0 && share < 0.01 ? "under 1%" : `${Math.round(100 * share)}%`);
