"""The losses of training, drawn while it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anywidget
import ipywidgets as W
import numpy as np
from traitlets import Bool, Dict, List, Unicode

from sae_widget.views.base import read_static
from sae_widget.views.pane import Pane
from sae_widget.views.selection import GuardedWidget

if TYPE_CHECKING:
    from sae_widget.training import History

MAX_POINTS = 1000
"""Points of a line that are sent to the page; a run of any length stays light."""
SECONDS_BETWEEN_DRAWS = 0.125
"""At most eight draws a second, whatever the training does."""
SERIES = ("loss", "reconstruction", "sparsity")
WORDS = {"loss": "total", "reconstruction": "reconstruction", "sparsity": "sparsity"}
MARGIN = {"top": 8, "bottom": 34, "left": 58, "right": 12}
NOTHING_YET = "Nothing has been trained here yet. Press Train: the losses are drawn while it runs."
TUTORIAL_EPOCHS = (100, 200, 300, 400, 500)


class ChartReadout(GuardedWidget):
    """The legend under the chart, which shows the values at the step under the mouse (or the last step)."""

    _esm = read_static("dom.js", "chart.js")
    lines = anywidget.WidgetTrait().tag(sync=True)
    series = List(help="[words, CSS colour, dash] for each line").tag(sync=True)
    margin = Dict().tag(sync=True)
    empty = Unicode(help="said over an empty chart").tag(sync=True)
    note = Unicode(help="a sentence below the legend").tag(sync=True)
    log = Bool().tag(sync=True)


class LossChart(Pane):
    """Total, reconstruction and sparsity loss over the steps, on a linear or a logarithmic scale."""

    name = "chart"
    question = "How is training going?"
    reads = ("history", "history_tick", "log_loss", "settings", "status", "faults")
    pace = {"history_tick": SECONDS_BETWEEN_DRAWS}
    counts_in_head = False

    def build_content(self) -> list[W.Widget]:
        """The scale's toggle, the bqplot figure and the readout."""
        import bqplot as bq

        self.x_scale = bq.LinearScale()
        self.y_scales = {False: bq.LinearScale(), True: bq.LogScale()}
        self.unplaced.extend(self.y_scales.values())
        self.x_axis = bq.Axis(
            scale=self.x_scale, label="step", num_ticks=6, label_offset="26px", grid_lines="none"
        )
        self.y_axis = bq.Axis(
            scale=self.y_scales[False],
            side="left",
            label="loss",
            num_ticks=5,
            label_offset="44px",
            tick_format=".3~g",
        )
        self.lines = bq.Lines(
            scales={"x": self.x_scale, "y": self.y_scales[False]},
            colors=[f"var(--sae-{name})" for name in SERIES],
            stroke_width=1.6,
            labels=[WORDS[name] for name in SERIES],
        )
        self.figure = bq.Figure(
            marks=[self.lines],
            axes=[self.x_axis, self.y_axis],
            fig_margin=MARGIN,
            animation_duration=0,
            display_toolbar=False,
            layout=W.Layout(width="100%", height="230px", min_width="0"),
        )
        self.scale_toggle = W.ToggleButtons(
            options=[("log", True), ("linear", False)],
            tooltips=[
                "Equal steps are equal ratios: small late gains stay visible",
                "Equal steps are equal amounts",
            ],
            style=W.ToggleButtonsStyle(button_width="52px"),
        )
        self.scale_toggle.add_class("sae-corner")
        self.watch(self.scale_toggle, "value", lambda value: setattr(self.state, "log_loss", bool(value)))
        self.readout = ChartReadout(
            lines=self.lines,
            series=[
                [WORDS[name], f"var(--sae-{name})", dash] for name, dash in zip(SERIES, ("", "long", "dot"))
            ],
            margin=MARGIN,
        )
        plot = W.Box([self.figure], layout=W.Layout(width="100%", min_width="0", overflow="hidden"))
        plot.add_class("sae-plot")
        return [self.scale_toggle, plot, self.readout]

    def draw_content(self) -> None:
        """Send the decimated lines in one message."""
        log_scale, history = self.state.log_loss, self.state.history
        self.scale_toggle.value = log_scale
        steps, values = loss_lines(history, log_scale)
        if self.y_axis.scale is not self.y_scales[log_scale]:
            self.lines.scales = {"x": self.x_scale, "y": self.y_scales[log_scale]}
            self.y_axis.scale = self.y_scales[log_scale]
        with self.lines.hold_sync():
            self.lines.x = steps
            self.lines.y = values
        with self.readout.hold_sync():
            self.readout.log = log_scale
            self.readout.empty = "" if len(steps) else NOTHING_YET
            self.readout.note = epoch_words(history, self.state.settings)
        with self.head.hold_sync():
            running = self.state.status.phase in ("training", "stopping")
            if not running or not self.head.summary:
                self.head.summary = summary(history)

    def _redraw(self, change: Any) -> None:
        if change is None or change.name != "status" or change.old.phase != change.new.phase:
            super()._redraw(change)


def loss_lines(history: History | None, log_scale: bool) -> tuple[np.ndarray, np.ndarray]:
    """What is drawn: steps ``[n]`` and losses ``[3, n]`` float64, with gaps where a value cannot be drawn.

    Args:
        history: of the run; None or empty gives empty arrays.
        log_scale: also leave a gap where a loss is zero or negative.
    """
    if history is None or len(history) == 0:
        return np.zeros(0), np.zeros((len(SERIES), 0))
    found = history.series(("step", *SERIES), MAX_POINTS)
    values = np.stack([np.asarray(found[name], dtype=np.float64) for name in SERIES])  # [3, n]
    drawable = np.isfinite(values) & (values > 0) if log_scale else np.isfinite(values)
    return np.asarray(found["step"], dtype=np.float64), np.where(drawable, values, np.nan)


def epoch_words(history: History | None, settings: Any) -> str:
    """The losses at epochs 100, 200 ... 500 of a run of the original tutorial, where each step is one epoch."""
    tutorial = (
        settings.batch_size == 0 and settings.lr_schedule == "halving" and settings.loss_reduction == "mean"
    )
    if not tutorial or history is None or len(history) == 0:
        return ""
    found = history.series(("step", "loss"), MAX_POINTS)
    losses = {round(step): loss for step, loss in zip(found["step"], found["loss"]) if np.isfinite(step)}
    told = [f"{epoch}: {losses[epoch]:.4f}" for epoch in TUTORIAL_EPOCHS if epoch in losses]
    return f"Loss at epoch {', '.join(told)}" if told else ""


def summary(history: History | None) -> str:
    """The chart in a sentence, for those who do not see it."""
    if history is None or len(history) == 0:
        return "Loss chart: nothing trained yet."
    last = history.last
    first = history.series(("step", "loss"), MAX_POINTS)["loss"][0]
    return (
        f"Loss chart, {last.step:,} steps: total loss from {first:.4g} to {last.loss:.4g}; at the end "
        f"reconstruction {last.reconstruction:.4g}, sparsity {last.sparsity:.4g}."
    )
