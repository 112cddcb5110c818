"""How strongly each feature fires on the text: bars, a page of them at a time."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import anywidget
import ipywidgets as W
import numpy as np
from traitlets import Dict, Int, List, Unicode

from sae_widget.state import MEASURES
from sae_widget.views.axes import nice_ticks, set_ticks
from sae_widget.views.base import read_static
from sae_widget.views.pane import Pane
from sae_widget.views.selection import GuardedWidget, selection_for

if TYPE_CHECKING:
    from sae_widget.features import Features

BARS = 64
"""Bars on a page; bqplot stays quick up to a few hundred, and more could not be told apart."""
MARGIN = {"top": 10, "bottom": 38, "left": 58, "right": 12}
MEASURE_WORDS = {
    "mean": ("mean", "Mean activation over the tokens of the text"),
    "max": ("max", "Largest activation in the text"),
    "token": ("this token", "Activation on the selected token; click one in the text"),
}
SORT_WORDS = {"activation": "strongest first", "frequency": "most frequent first", "number": "by number"}
DENSE_TOOLTIP = (
    "A feature that fires on every tenth token or more is among the strongest of nearly every text, and so says "
    "little about this one. Hidden ones stay in the SAE; the token's list and the card still know them."
)
NO_FEATURES = "No features yet: they show as soon as an autoencoder is loaded or trained."


class BarsBridge(GuardedWidget):
    """Joins the bars to the shared selection in the browser: pointer, keys, highlight, dead features."""

    _esm = read_static("dom.js", "bars_bridge.js")
    from_browser = ("turned",)
    bars = anywidget.WidgetTrait().tag(sync=True)
    selection = anywidget.WidgetTrait().tag(sync=True)
    ids = List(Int(), help="feature of each bar").tag(sync=True)
    dead = List(Int(), help="features of the page that never fired on the corpus").tag(sync=True)
    names = Dict(help="feature -> its name, those of the page").tag(sync=True)
    measure = Unicode().tag(sync=True)
    margin = Dict().tag(sync=True)
    empty = Unicode().tag(sync=True)
    turned = Int(0, help="pages turned from the keyboard; each change by one").tag(sync=True)


class ActivationBars(Pane):
    """A bqplot bar for each feature of a page; a click, a hover or the arrow keys work without the kernel."""

    name = "bars"
    question = "Which features fire here?"
    reads = ("features", "measure", "sort", "hide_dense", "token", "bar_page", "selected", "feature_names", "faults")
    counts_in_head = False

    def build_content(self) -> list[W.Widget]:
        """Toggles, the bqplot figure, the bridge, and the buttons that turn pages."""
        import bqplot as bq

        self._order_key: Any = None
        self.x_scale, self.y_scale = bq.OrdinalScale(), bq.LinearScale(min=0)
        self.x_axis = bq.Axis(  # the bridge writes the numbers: only those for which there is room
            scale=self.x_scale,
            label="feature",
            label_offset="28px",
            grid_lines="none",
            tick_style={"display": "none"},
        )
        self.y_axis = bq.Axis(
            scale=self.y_scale,
            side="left",
            label="activation",
            label_offset="44px",
            tick_format=".3~g",
        )
        self.bars = bq.Bars(
            scales={"x": self.x_scale, "y": self.y_scale},
            colors=["var(--sae-bar)"],
            padding=0.25,
            stroke_width=0,
            selected_style={"fill": "var(--sae-selected)"},
            unselected_style={"opacity": "0.7"},
        )
        self.figure = bq.Figure(
            marks=[self.bars],
            axes=[self.x_axis, self.y_axis],
            fig_margin=MARGIN,
            padding_y=0.0,
            animation_duration=0,
            display_toolbar=False,
            layout=W.Layout(width="100%", height="220px", min_width="0"),
        )
        selection = selection_for(self.state)
        self.shared = [selection]
        self.bridge = BarsBridge(guard=self.state.lock, bars=self.bars, selection=selection, margin=MARGIN)
        self.watch(self.bridge, "turned", self._turn_to)
        plot = W.Box([self.figure], layout=W.Layout(width="100%", min_width="0", overflow="hidden"))
        plot.add_class("sae-plot")
        return [self._measures(), self._dense(), plot, self.bridge, self._pager()]

    def _measures(self) -> W.Widget:
        self.measure_toggle = W.ToggleButtons(
            description="Height of the bars",  # for screen readers
            options=[(MEASURE_WORDS[measure][0], measure) for measure in MEASURES],
            tooltips=[MEASURE_WORDS[measure][1] for measure in MEASURES],
            style=W.ToggleButtonsStyle(button_width="auto"),
        )
        self.measure_toggle.add_class("sae-corner")
        self.watch(self.measure_toggle, "value", lambda value: setattr(self.state, "measure", value))
        return self.measure_toggle

    def _dense(self) -> W.Widget:
        self.hide_dense = W.Checkbox(
            description="Hide dense features", tooltip=DENSE_TOOLTIP, indent=False, layout=W.Layout(width="auto")
        )
        self.dense_words = W.Label()
        self.watch(self.hide_dense, "value", lambda value: setattr(self.state, "hide_dense", bool(value)))
        self.dense_row = W.HBox([self.hide_dense, self.dense_words])
        self.dense_row.add_class("sae-dense")
        return self.dense_row

    def _pager(self) -> W.Widget:
        self.back = W.Button(description="‹", tooltip="The 64 features before these")
        self.forth = W.Button(description="›", tooltip="The next 64 features")
        self.where = W.Label()
        self.go_there = W.Button()
        for button, step in ((self.back, -1), (self.forth, 1)):
            button.add_class("sae-small")
            self.on_press(button, partial(self._turn, step))
        self.go_there.add_class("sae-chip")
        self.on_press(self.go_there, self._go_there)
        self.pager = W.HBox([self.back, self.where, self.forth, self.go_there])
        self.pager.add_class("sae-row")
        return self.pager

    def draw_content(self) -> None:
        """Send one page of bars, and say where in the order it is."""
        state = self.state
        self.measure_toggle.value = state.measure
        features = state.features
        self.hide_dense.value = state.hide_dense
        self.hide_dense.disabled = features is None or not features.dense.any()
        self.dense_words.value = dense_words(features, state.hide_dense)
        self.dense_row.layout.display = "" if self.dense_words.value else "none"
        if features is None:
            self._show(np.zeros(0, np.int64), np.zeros(0, np.float32), np.zeros(0, bool), NO_FEATURES)
            self._say(0, 0)
            return
        order, heights = self._ordered(features)
        page = min(state.bar_page, (len(order) - 1) // BARS)
        ids = order[page * BARS : (page + 1) * BARS]
        dead = features.stats.dead[ids] if features.stats is not None else np.zeros(len(ids), bool)
        values = np.nan_to_num(heights[ids].astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
        self._show(ids, values, dead, "")
        self._say(page, len(order))

    def _ordered(self, features: Features) -> tuple[np.ndarray, np.ndarray]:
        """All features in order and all heights, computed again only when they can have changed."""
        from sae_widget.features import measured, order_features

        state = self.state
        key = (id(features), state.sort, state.measure, state.token, state.hide_dense)
        if self._order_key != key:
            self._order = order_features(features, state.sort, state.measure, state.token, hide_dense=state.hide_dense)
            self._heights = measured(features, state.measure, state.token)
            self._order_key, self._ordered_features = (
                key,
                features,
            )  # the reference keeps the id from being reused
        return self._order, self._heights

    def _show(self, ids: np.ndarray, values: np.ndarray, dead: np.ndarray, empty: str) -> None:
        shown = [int(i) for i in ids]
        names = {str(i): str(self.state.feature_names[i]) for i in shown if self.state.feature_names.get(i)}
        with self.bars.hold_sync():
            self.bars.x = ids.astype(np.int32)
            self.bars.y = values
            self.bars.selected = [shown.index(self.state.selected)] if self.state.selected in shown else None
        set_ticks(self.y_axis, nice_ticks(0.0, float(values.max()) if len(values) else 0.0))
        with self.bridge.hold_sync():
            self.bridge.ids = shown
            self.bridge.dead = [i for i, gone in zip(shown, dead, strict=True) if gone]
            self.bridge.names = names
            self.bridge.measure = measure_words(self.state)
            self.bridge.empty = empty

    def _say(self, page: int, n_features: int) -> None:
        state, last = self.state, max(0, (n_features - 1) // BARS)
        first = page * BARS
        self.where.value = (
            f"{first + 1:,}–{min(first + BARS, n_features):,} of {n_features:,}, {SORT_WORDS[state.sort]}"
            if n_features
            else ""
        )
        self.back.disabled, self.forth.disabled = page == 0, page >= last
        self.pager.layout.display = "" if n_features else "none"
        elsewhere = self._page_of_selected() if n_features else None
        if n_features and self._selected_is_hidden():
            self.go_there.description = f"Feature {state.selected} is hidden: show it"
            self.go_there.tooltip = "Show the dense features too, and turn to the selected one"
        elif elsewhere is not None and elsewhere != page:
            self.go_there.description = f"Feature {state.selected} is on page {elsewhere + 1}: go there"
            self.go_there.tooltip = "Turn to the page with the selected feature"
        else:
            self.go_there.layout.display = "none"
            return
        self.go_there.layout.display = ""

    def _page_of_selected(self) -> int | None:
        found = np.flatnonzero(self._order == self.state.selected).tolist() if self.state.selected is not None else []
        return found[0] // BARS if found else None

    def _selected_is_hidden(self) -> bool:
        selected, features = self.state.selected, self.state.features
        if selected is None or features is None or not 0 <= selected < features.sae.d_sae:
            return False
        return self.state.hide_dense and bool(features.dense[selected])

    def _go_there(self) -> None:
        if self._selected_is_hidden():
            self.state.hide_dense = False
        page = self._page_of_selected()
        if page is not None:
            self.state.bar_page = page

    def _turn(self, step: int) -> None:
        if self.state.features is not None:
            last = (len(self._order) - 1) // BARS
            self.state.bar_page = min(last, max(0, min(self.state.bar_page, last) + step))

    def _turn_to(self, turned: int) -> None:
        before, self._turned = getattr(self, "_turned", 0), turned
        self._turn(1 if turned > before else -1)


def measure_words(state: Any) -> str:
    """What a bar's height is, in words."""
    if state.measure == "token":
        return "mean (no token selected)" if state.token is None else "activation on the selected token"
    return {"mean": "mean", "max": "max"}[state.measure]


def dense_words(features: Features | None, hide: bool) -> str:
    """How many features are hidden as dense, or why none is; nothing where hiding is not to be thought of."""
    from sae_widget.features import DENSE, ENOUGH_TOKENS, FEW_FEATURES

    if features is None or features.stats is None or features.stats.n_tokens < ENOUGH_TOKENS:
        return ""
    if features.sae.d_sae <= FEW_FEATURES:
        return ""
    n_dense = int(features.dense.sum())
    rule = f"more than {DENSE:.0%} of all tokens"
    if n_dense:
        verb = "fires" if n_dense == 1 else "fire"
        return f"{n_dense:,} hidden: {verb} on {rule}" if hide else f"{n_dense:,} {verb} on {rule}"
    many = int((features.stats.frequency > DENSE).sum())
    return f"All are shown: {many:,} of {len(features.dense):,} fire on {rule}" if many else f"None fires on {rule}"
