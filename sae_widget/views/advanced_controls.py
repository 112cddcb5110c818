"""The fold of the form: settings that are seldom changed."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import ipywidgets as W

from sae_widget.config import ARCHITECTURES, FIXED_SETTINGS
from sae_widget.views.fields import described, setting

if TYPE_CHECKING:
    from collections.abc import Callable

    from sae_widget.views.pane import Pane

SCHEDULES = (("Falls at the end", "linear"), ("Stays the same", "constant"), ("Halves every 100 steps", "halving"))
PRECISIONS = (("Automatic", "auto"), ("float32: exact", "float32"), ("bfloat16: shorter", "bfloat16"))
HELP = {
    "matryoshka_levels": "Nested sets of features, each half as large as the next; every one must reconstruct alone",
    "bandwidth": "Width of the window around a threshold in which it learns: wider is steadier, narrower more exact",
    "start_firing": "Share of tokens on which a feature fires at the start; with few, fewer features learn the same",
    "lr_schedule": "How the learning rate changes over the run",
    "resample_every": "Steps after which dead features start again from the tokens that are reconstructed worst",
    "validation_share": "Share of the text that is not trained on, to measure on what was never seen",
    "max_norm_multiple": "Tokens with a far larger activation than others rule the loss: leave them out above this",
    "precision": "How exact matrix products are; automatic takes bfloat16 where it was measured to be faster",
}
OWN = ("matryoshka_levels", "bandwidth", "start_firing")
"""Settings that are there with their kinds alone."""
SHOWN, HIDDEN = "Hide advanced settings", "Advanced settings"


class AdvancedControls:
    """A button that opens and closes, and the fields below it; closed at first."""

    def __init__(self, pane: Pane) -> None:
        self.pane, self.state, self._open = pane, pane.state, False
        self.button = W.Button(layout=W.Layout(width="auto"))
        self.button.add_class("sae-fold")
        hints: dict[str, Callable[[], str]] = {
            "matryoshka_levels": lambda: "nested sets, each half of the next",
            "bandwidth": lambda: "wider learns more steadily",
            "start_firing": self._start_words,
            "resample_every": self._resample_words,
            "validation_share": self._validation_words,
            "max_norm_multiple": self._norm_words,
        }
        labels = ("Levels", "Bandwidth", "Start share", "Revive after", "Held out", "Norm limit")
        self.entries = {
            name: setting(
                pane,
                name,
                label,
                HELP[name],
                is_whole=name in ("matryoshka_levels", "resample_every"),
                hint=hints[name],
            )
            for name, label in zip(hints, labels, strict=True)
        }
        self.lists = {
            "lr_schedule": described(W.Dropdown, "Schedule", HELP["lr_schedule"], options=SCHEDULES),
            "precision": described(W.Dropdown, "Precision", HELP["precision"], options=PRECISIONS),
        }
        boxes = {name: [entry.box, entry.below] for name, entry in self.entries.items()}
        boxes |= {name: [chooser] for name, chooser in self.lists.items()}
        self.body = W.VBox([widget for name in HELP for widget in boxes[name]])
        self.body.add_class("sae-fold-body")
        self.fixed = [boxes[name][0] for name in HELP if name in FIXED_SETTINGS]
        self.widgets = [self.button, self.body]
        pane.on_press(self.button, self._turn)
        for name, chooser in self.lists.items():
            pane.watch(chooser, "value", partial(self._choose, name))

    def draw(self) -> None:
        """Bring the fields to what the state says; a refused entry opens the fold."""
        settings = self.state.settings
        own = ARCHITECTURES[settings.architecture]
        for name, entry in self.entries.items():
            if name in OWN:
                entry.box.layout.display = "" if name in own else "none"
            entry.draw()
        for name, chooser in self.lists.items():
            chooser.value = getattr(settings, name)
        shown = self._open or bool(self.state.refused.keys() & self.entries.keys())
        self.body.layout.display = "" if shown else "none"
        self.button.description = SHOWN if shown else HIDDEN
        self.button.icon = "caret-down" if shown else "caret-right"
        self.button.tooltip = "Close this list" if shown else "Show settings that are seldom changed"

    def _turn(self) -> None:
        self._open = self.body.layout.display == "none"
        if not self._open:
            kept = {name: text for name, text in self.state.refused.items() if name not in self.entries}
            self.state.refused = kept
        self.pane.redraw()

    def _choose(self, name: str, value: Any) -> None:
        self.state.settings = self.state.settings.changed(**{name: value})

    def _start_words(self) -> str:
        settings = self.state.settings
        if not settings.tied_init or not settings.l1_coefficient:
            return "not used: this recipe starts without it"
        share = settings.start_firing
        return f"each fires on {100 * share:.3g}% of the tokens at first" if share else "0: about half of the tokens"

    def _resample_words(self) -> str:
        every = self.state.settings.resample_every
        return f"{every:,} steps, dead features start again" if every else "0: none is started again"

    def _validation_words(self) -> str:
        share = self.state.settings.validation_share
        return f"{share:.0%} of the text, only to measure on" if share else "0: all of the text is trained on"

    def _norm_words(self) -> str:
        limit = self.state.settings.max_norm_multiple
        return "× the median norm; tokens above it are left out" if limit else "0: no token is left out"
