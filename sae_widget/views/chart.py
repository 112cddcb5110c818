"""The losses of training, drawn while it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import anywidget
import ipywidgets as W
import numpy as np
from traitlets import Dict, List, Unicode

from sae_widget.views.axes import log_ticks, nice_ticks, roomy, set_ticks, span
from sae_widget.views.base import read_static
from sae_widget.views.pane import Pane
from sae_widget.views.selection import GuardedWidget

if TYPE_CHECKING:
    from sae_widget.training import History

MAX_POINTS = 1000
"""Points of a line that are sent to the page; a run of any length stays light."""
SECONDS_BETWEEN_DRAWS = 0.15
"""At most seven draws a second, whatever the training does."""
SERIES = ("loss", "reconstruction", "sparsity")
WORDS = {"loss": "total", "reconstruction": "reconstruction", "sparsity": "sparsity"}
DASHES = {"loss": "", "reconstruction": "long", "sparsity": "dot"}
MARGIN = {"top": 8, "bottom": 38, "left": 58, "right": 12}
MAX_GAPS = 50
"""Gaps that are marked; a run with more is told by its words."""
NOTHING_YET = "Nothing has been trained here yet. Press Train: the losses are drawn while it runs."
TUTORIAL_EPOCHS = (100, 200, 300, 400, 500)


class ChartReadout(GuardedWidget):
    """The legend under the chart, which shows the values at the step under the mouse (or the last step)."""

    _esm = read_static("dom.js", "chart.js")
    lines = anywidget.WidgetTrait().tag(sync=True)
    series = List(help="[words, CSS colour, dash] for each line").tag(sync=True)
    margin = Dict().tag(sync=True)
    gaps = List(help="steps whose loss was no number").tag(sync=True)
    empty = Unicode(help="said over an empty chart").tag(sync=True)
    note = Unicode(help="a sentence below the legend").tag(sync=True)


class LossChart(Pane):
    """Total, reconstruction and sparsity loss over the steps, on a linear or a logarithmic scale."""

    name = "chart"
    question = "How is training going?"
    reads = ("history", "history_tick", "log_loss", "settings", "status", "faults")
    pace: ClassVar[dict[str, float]] = {"history_tick": SECONDS_BETWEEN_DRAWS}
    counts_in_head = False

    def build_content(self) -> list[W.Widget]:
        """The scale's toggle, the bqplot figure and the readout."""
        import bqplot as bq

        self.x_scale = bq.LinearScale()
        self.y_scales = {False: bq.LinearScale(min=1.0, max=10.0), True: bq.LogScale(min=1.0, max=10.0)}
        self.x_axis = bq.Axis(scale=self.x_scale, label="step", label_offset="30px", grid_lines="none")
        self.y_axes = {  # an axis does not survive a change of its scale, so there are two
            log_scale: bq.Axis(scale=scale, side="left", label="loss", label_offset="44px", tick_format=".3~g")
            for log_scale, scale in self.y_scales.items()
        }
        self.lines = bq.Lines(scales={"x": self.x_scale, "y": self.y_scales[True]}, stroke_width=1.6)
        self.figure = bq.Figure(
            axes=[self.x_axis, self.y_axes[True]],
            fig_margin=MARGIN,
            animation_duration=0,
            display_toolbar=False,
            layout=W.Layout(width="100%", height="230px", min_width="0"),
        )
        self.unplaced = [self.lines, *self.y_axes.values()]
        self.scale_toggle = W.ToggleButtons(
            description="Scale of the loss",  # for screen readers
            options=[("log", True), ("linear", False)],
            tooltips=[
                "Equal steps are equal ratios: small late gains stay visible",
                "Equal steps are equal amounts",
            ],
            style=W.ToggleButtonsStyle(button_width="auto"),
        )
        self.scale_toggle.add_class("sae-corner")
        self.watch(self.scale_toggle, "value", lambda value: setattr(self.state, "log_loss", bool(value)))
        self.readout = ChartReadout(lines=self.lines, margin=MARGIN)
        plot = W.Box([self.figure], layout=W.Layout(width="100%", min_width="0", overflow="hidden"))
        plot.add_class("sae-plot")
        return [self.scale_toggle, plot, self.readout]

    def draw_content(self) -> None:
        """Send the decimated lines in one message."""
        log_scale, history = self.state.log_loss, self.state.history
        gaps = gap_steps(history)
        self.scale_toggle.value = log_scale
        steps, losses = loss_lines(history, log_scale)
        if losses:
            with self.lines.hold_sync():
                self.lines.colors = [f"var(--sae-{name})" for name in losses]
                self.lines.labels = [WORDS[name] for name in losses]
                self.lines.x = steps
                self.lines.y = np.stack(list(losses.values()))
        self._set_scales(log_scale, steps, losses)
        self.figure.marks = [self.lines] if losses else []  # a line without a point is an error in the page
        with self.readout.hold_sync():
            self.readout.series = [[WORDS[name], f"var(--sae-{name})", DASHES[name]] for name in losses]
            self.readout.empty = "" if losses else NOTHING_YET
            self.readout.gaps = gaps[:MAX_GAPS]
            told = (gap_words(gaps), epoch_words(history))
            self.readout.note = " ".join(words for words in told if words)
        if self.state.status.phase not in ("training", "stopping") or not self.head.summary:
            self.head.summary = summary(history)

    def _set_scales(self, log_scale: bool, steps: np.ndarray, losses: dict[str, np.ndarray]) -> None:
        axis, scale = self.y_axes[log_scale], self.y_scales[log_scale]
        low, high = span(np.stack(list(losses.values()))) if losses else (1.0, 10.0)
        if low == high:
            low, high = (low / 2, high * 2) if log_scale else (low - 1, high + 1)
        low, high = roomy(low, high, log_scale=log_scale)
        with scale.hold_sync():  # always told: a scale that has just lost its line has no range of its own
            scale.min, scale.max = low, high
        with self.x_scale.hold_sync():
            self.x_scale.min, self.x_scale.max = (None, None) if losses else (1.0, 10.0)
        if axis not in self.figure.axes:
            self.lines.scales = {"x": self.x_scale, "y": scale}
            self.figure.axes = [self.x_axis, axis]
        set_ticks(self.x_axis, nice_ticks(*(span(steps) if losses else (1.0, 10.0))))
        set_ticks(axis, log_ticks(low, high) if log_scale else nice_ticks(low, high))

    def _redraw(self, change: Any) -> None:
        if change is None or change.name != "status" or change.old.phase != change.new.phase:
            super()._redraw(change)


def loss_lines(history: History | None, log_scale: bool) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """What is drawn: steps ``[n]`` and the losses by name, each ``[n]`` float64, at most ``MAX_POINTS`` long.

    Values that cannot be drawn are nan, a gap; a loss that has no others is left out (TopK: sparsity).

    Args:
        history: of the run; None or empty gives nothing.
        log_scale: whether zero and less cannot be drawn.
    """
    if history is None or len(history) == 0:
        return np.zeros(0), {}
    found = history.series(("step", *SERIES), MAX_POINTS)
    losses = {}
    for name in SERIES:
        drawable = np.isfinite(found[name])
        drawable[drawable] &= found[name][drawable] > 0 if log_scale else True
        if drawable.any() and (name == "loss" or np.any(found[name][drawable] != 0)):
            losses[name] = np.where(drawable, found[name], np.nan)
            # bqplot sets a label at the last point, which must have a place; with a gap before it nothing is drawn.
            losses[name][-1] = found[name][drawable][-1]
    return (found["step"], losses) if losses else (np.zeros(0), {})


def gap_steps(history: History | None) -> list[int]:
    """Steps whose total loss was no number, among those that are drawn."""
    if history is None or len(history) == 0:
        return []
    found = history.series(("step", "loss"), MAX_POINTS)
    return sorted({int(step) for step in found["step"][~np.isfinite(found["loss"])] if np.isfinite(step)})


def gap_words(steps: list[int]) -> str:
    """What the dashed marks in the chart mean."""
    if not steps:
        return ""
    more = f" and {len(steps) - 1:,} more" if len(steps) > 1 else ""
    return f"The loss was no number at step {steps[0]:,}{more} (dashed)."


def epoch_words(history: History | None) -> str:
    """The losses at epochs 100, 200 ... 500 of a run of the original tutorial; a step is an epoch."""
    config = None if history is None else history.config
    if history is None or config is None or len(history) == 0:
        return ""
    if (config.batch_size, config.lr_schedule, config.loss_reduction) != (0, "halving", "mean"):
        return ""
    found = history.series(("step", "loss"), MAX_POINTS)
    losses = {round(step): loss for step, loss in zip(found["step"], found["loss"], strict=True) if np.isfinite(step)}
    told = [f"{epoch}: {losses[epoch]:.4f}" for epoch in TUTORIAL_EPOCHS if epoch in losses]
    return f"Loss at epoch {', '.join(told)}" if told else ""


def summary(history: History | None) -> str:
    """The chart in a sentence, for those who do not see it."""
    if history is None or len(history) == 0:
        return "Loss chart: nothing trained yet."
    last = history.last
    assert last is not None
    first = history.series(("step", "loss"), MAX_POINTS)["loss"][0]
    return (
        f"Loss chart, {last.step:,} steps: total loss from {first:.4g} to {last.loss:.4g}; at the end "
        f"reconstruction {last.reconstruction:.4g}, sparsity {last.sparsity:.4g}."
    )
