"""What each feature writes, or looks for: the weights of one page of features as coloured strips."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from traitlets import Bool, Bytes, Dict, Enum, Int, List, Unicode

from sae_widget.state import ROWS, SORTS
from sae_widget.views.base import View
from sae_widget.views.selection import PaneWidget, pane_code, selection_for

if TYPE_CHECKING:
    from sae_widget.features import Features

GRID_FEATURES = 16
"""Features on one page of the 4x4 grid."""
DEAD, QUIET = 1, 2
"""Flags: never fired on the corpus; fires there, but not in this text."""
INSIDE = 99.5
"""Per cent of the weights inside the colour scale (at least: the limit is rounded up)."""
BYTES_PER_SECOND = 100_000
"""What this pane sends at most while training goes on."""
SHORTEST_WAIT = 0.4
"""Seconds between two pushes while training goes on."""
KEEP_ORDER = 5.0
"""Seconds for which rows keep their places while training goes on, so that the eye can follow them."""
_SAMPLE = 250_000
_NAME_CHARS = 60
_SCORE_NAMES = {"mean": "mean here", "max": "max here", "token": "at token"}


class HeatmapWidget(PaneWidget):
    """The canvas and its controls; ``facts`` and everything from ``data`` on belong together."""

    _esm = pane_code("heatmap_draw.js", "heatmap_parts.js", "heatmap.js")
    from_browser = ("page", "rows", "sort", "weights", "arrangement", "hide_dense")

    page = Int(0, min=0, max=10**6).tag(sync=True)
    rows = Enum(ROWS, 64).tag(sync=True)
    sort = Enum(SORTS, "activation").tag(sync=True)
    weights = Enum(("decoder", "encoder"), "decoder").tag(sync=True)
    arrangement = Enum(("strips", "grid"), "strips").tag(sync=True)
    hide_dense = Bool(True).tag(sync=True)

    data = Bytes(b"", help="float16 [n, d_in]").tag(sync=True)
    ids = Bytes(b"", help="uint32 [n]").tag(sync=True)
    flags = Bytes(b"", help="uint8 [n], DEAD | QUIET").tag(sync=True)
    scores = Bytes(b"", help="float32 [n], what the rows are sorted by").tag(sync=True)
    names = List(Unicode(), help="the person's name of each row, or nothing").tag(sync=True)
    hints = List(Unicode(), help="the token of the text on which each row fires most, or nothing").tag(sync=True)
    facts = Dict(help="page, pages, d_in, d_sae, limit and what else the data belongs to").tag(sync=True)
    place = List(Int(), help="[selected feature, its page; -1: hidden as dense], or nothing").tag(sync=True)
    empty = Unicode("", help="why there is nothing to draw").tag(sync=True)


class Shown(NamedTuple):
    """What decides which rows are on the page, besides the features."""

    d_sae: int
    sort: str
    measure: str
    token: int | None
    page: int
    size: int
    weights: str
    arrangement: str
    hide_dense: bool


class WeightHeatmap(View):
    """Decoder or encoder rows of the features on one page, on one shared colour scale."""

    name = "heatmap"
    reads = (
        "features",
        "status",
        "faults",
        "selected",
        "token",
        "sort",
        "hide_dense",
        "measure",
        "page",
        "rows",
        "weights",
        "layout",
        "feature_names",
    )

    def build(self) -> None:
        """Make the widget."""
        self.shared = [selection_for(self.state)]
        self.widget = HeatmapWidget(selection=self.shared[0], asked=self._asked, guard=self.state.lock)
        self._clock = time.monotonic
        self._order = np.zeros(0, dtype=np.int64)
        self._drawn: Features | None = None
        self._shown: Shown | None = None
        self._names: dict[int, str] | None = None
        self._pushed_at = self._ordered_at = -1e9
        self._bytes = 0

    def show_fault(self, message: str) -> None:
        """Show a sentence above the strips."""
        self.widget.fault = message

    def draw(self) -> None:
        """Send the page, unless nothing changed or training goes on and the last one was sent just now."""
        state, widget = self.state, self.widget
        with widget.hold_sync():
            widget.rows, widget.sort, widget.weights = state.rows, state.sort, state.weights
            widget.arrangement, widget.hide_dense = state.layout, state.hide_dense
            if state.features is None:
                self._clear()
                return
            widget.empty = ""
            shown = self._wanted(state.features)
            widget.page = shown.page
            if self._is_due(state.features, shown):
                self._push(state.features, shown)
            elif self._names != state.feature_names:
                self._send_names()
            self._send_place(state.features, shown.size)

    def _wanted(self, features: Features) -> Shown:
        state = self.state
        size = GRID_FEATURES if state.layout == "grid" else state.rows
        d_sae = features.sae.d_sae
        by_activation = state.sort == "activation"
        measure = state.measure if by_activation else ""
        token = state.token if measure == "token" else None
        page = min(state.page, (d_sae - self._n_hidden(features) - 1) // size)
        return Shown(d_sae, state.sort, measure, token, page, size, state.weights, state.layout, state.hide_dense)

    def _n_hidden(self, features: Features) -> int:
        return int(features.dense.sum()) if self.state.hide_dense else 0

    def _is_due(self, features: Features, shown: Shown) -> bool:
        if shown != self._shown:
            return True
        if features is self._drawn and self._ordered_at >= self._pushed_at:
            return False
        if self.state.status.phase != "training":
            return True
        wait = max(SHORTEST_WAIT, self._bytes / BYTES_PER_SECOND)
        return features is not self._drawn and self._clock() - self._pushed_at >= wait

    def _push(self, features: Features, shown: Shown) -> None:
        from sae_widget.features import measured, order_features

        now = self._clock()
        training = self.state.status.phase == "training"
        if not training or shown != self._shown or now - self._ordered_at >= KEEP_ORDER:
            self._order = order_features(
                features, shown.sort, shown.measure or "mean", shown.token, hide_dense=shown.hide_dense
            )
            self._ordered_at = now
        ids = self._order[shown.page * shown.size : (shown.page + 1) * shown.size]
        rows = weight_rows(features, ids, shown.weights)
        scores = None
        if shown.sort == "activation":
            scores = measured(features, shown.measure, shown.token)
        elif features.stats is not None:
            scores = features.stats.frequency
        widget = self.widget
        widget.data = rows.tobytes()
        widget.ids = ids.astype(np.uint32).tobytes()
        widget.flags = row_flags(features, ids).tobytes()
        widget.scores = b"" if scores is None else scores[ids].astype(np.float32).tobytes()
        widget.hints = row_hints(features, ids)
        widget.facts = self._facts(features, shown)
        self._drawn, self._shown, self._pushed_at, self._bytes = features, shown, now, rows.nbytes
        self._send_names()

    def _facts(self, features: Features, shown: Shown) -> dict[str, Any]:
        stats = features.stats
        return {
            "page": shown.page,
            "size": shown.size,
            "pages": (len(self._order) - 1) // shown.size + 1,
            "n_shown": len(self._order),
            "n_hidden": shown.d_sae - len(self._order),
            "d_in": features.sae.d_in,
            "d_sae": shown.d_sae,
            "weights": shown.weights,
            "arrangement": shown.arrangement,
            "limit": colour_limit(features, shown.weights),
            "inside": INSIDE,
            "score": _SCORE_NAMES[shown.measure] if shown.measure else "of tokens",
            "n_dead": 0 if stats is None else int(stats.dead.sum()),
            "n_tokens": 0 if stats is None else stats.n_tokens,
            "source": features.source,
        }

    def _send_names(self) -> None:
        self._names = dict(self.state.feature_names)
        ids = np.frombuffer(self.widget.ids, dtype=np.uint32)
        self.widget.names = [str(self._names.get(int(i), ""))[:_NAME_CHARS] for i in ids]

    def _send_place(self, features: Features, size: int) -> None:
        selected = self.state.selected
        found = [] if selected is None else np.flatnonzero(self._order == selected).tolist()
        hidden = selected is not None and not found and selected < features.sae.d_sae
        self.widget.place = [selected, found[0] // size if found else -1] if found or hidden else []

    def _clear(self) -> None:
        self._drawn = self._shown = None
        widget = self.widget
        widget.data = widget.ids = widget.flags = widget.scores = b""
        widget.names, widget.hints, widget.facts, widget.place = [], [], {}, []
        waiting = self.state.status.phase in ("starting", "loading", "reading")
        widget.empty = (
            "The features are drawn here as soon as the model is loaded."
            if waiting
            else ("There are no features yet. Press Train to learn some from the corpus.")
        )

    def _asked(self, name: str, value: Any) -> None:
        """Move what a control of the pane set into the state; the first feature stays on the page."""
        state = self.state
        with state.lock:
            first = self.widget.facts.get("page", 0) * self.widget.facts.get("size", 1)
            with state.hold_trait_notifications():
                if name == "page":
                    state.page = min(value, self.widget.facts.get("pages", 1) - 1)
                elif name == "arrangement":
                    state.layout = value
                    state.page = first // (GRID_FEATURES if value == "grid" else state.rows)
                elif name == "rows":
                    state.rows = value
                    state.page = first // value if state.layout == "strips" else state.page
                elif name == "sort":
                    state.sort, state.page = value, 0
                elif name == "hide_dense":
                    state.hide_dense = value
                else:
                    state.weights = value
            self._redraw(None)
            place = self.widget.place
            if name == "hide_dense" and place and place[1] >= 0:
                state.page = place[1]  # shown again for the sake of the selected feature


def weight_rows(features: Features, ids: np.ndarray, weights: str) -> np.ndarray:
    """Decoder rows or encoder columns of some features. ``[n]`` numbers to ``[n, d_in]`` float16."""
    import torch

    sae = features.sae
    index = torch.as_tensor(np.ascontiguousarray(ids), dtype=torch.long, device=sae.W_dec.device)
    rows = sae.W_enc[:, index].T if weights == "encoder" else sae.W_dec[index]
    return np.ascontiguousarray(rows.detach().float().clamp(-65504, 65504).half().cpu().numpy())


def colour_limit(features: Features, weights: str) -> float:
    """The weight at the ends of the colour scale: ``INSIDE`` per cent of all weights are smaller.

    One limit for all features, so that strips and pages can be compared; from an evenly spread sample of
    whole rows, rounded up to two digits. 1 when all weights are zero.
    """
    sae = features.sae
    per_row = max(1, _SAMPLE // sae.d_in)
    some = np.unique(np.linspace(0, sae.d_sae - 1, min(sae.d_sae, per_row)).round().astype(np.int64))
    sizes = np.abs(weight_rows(features, some, weights).astype(np.float32)).ravel()
    sizes = sizes[np.isfinite(sizes)]
    limit = float(np.percentile(sizes, INSIDE)) if len(sizes) else 0.0
    if limit <= 0:
        return float(sizes.max()) if len(sizes) and sizes.max() > 0 else 1.0
    digit = 10.0 ** (np.floor(np.log10(limit)) - 1)
    return float(f"{np.ceil(limit / digit - 1e-6) * digit:.3g}")


def row_flags(features: Features, ids: np.ndarray) -> np.ndarray:
    """``DEAD`` or ``QUIET`` or 0 for some features. ``[n]`` uint8."""
    flags = np.zeros(len(ids), dtype=np.uint8)
    if features.prompt is not None:
        flags[features.prompt.max[ids] <= 0] = QUIET
    if features.stats is not None:
        flags[features.stats.dead[ids]] = DEAD
    return flags


def row_hints(features: Features, ids: np.ndarray) -> list[str]:
    """For some features the label of the token of the text on which each fires most; "" where it is quiet."""
    prompt = features.prompt
    if prompt is None:
        return []
    ends = prompt.indptr.astype(np.int64)
    tokens = np.repeat(np.arange(len(ends) - 1), ends[1:] - ends[:-1])
    counts = prompt.counted[tokens]
    fired, tokens, acts = prompt.ids[counts], tokens[counts], prompt.acts[counts]
    best = np.full(features.sae.d_sae, -1, dtype=np.int64)
    strongest_last = np.lexsort((-tokens, acts))
    best[fired[strongest_last]] = tokens[strongest_last]
    labels = prompt.activations.labels
    return [labels[t][:_NAME_CHARS] if t >= 0 else "" for t in best[ids]]
