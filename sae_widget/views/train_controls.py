"""The lower half of the form: what the SAE is, how it is trained, and the buttons that do it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import ipywidgets as W

from sae_widget.views.advanced_controls import AdvancedControls
from sae_widget.views.fields import Locks, LogSlider, setting
from sae_widget.views.kind_controls import KindControls
from sae_widget.views.words import progress_words, share_done

if TYPE_CHECKING:
    from sae_widget.config import TrainConfig
    from sae_widget.views.pane import Pane

HELP = {
    "learning_rate": "Size of Adam's steps; too large and the loss jumps or becomes NaN",
    "steps": "Updates of the weights; each looks at one batch of tokens",
    "batch_size": "Tokens in one step; 0 takes all of them in every step",
    "seed": "Start of the weights and order of the batches: the same seed gives the same SAE",
}
MAY_TRAIN = ("ready", "failed")
RUNNING = ("training", "paused", "stopping")
PROGRESS_STEPS = 200
"""The bar moves in so many steps, so that it does not send a message for every training step."""


class TrainControls:
    """Kind, recipe; Train, Pause, Stop, Reset; progress."""

    def __init__(self, pane: Pane, before_training: Any) -> None:
        self.pane, self.state, self._before = pane, pane.state, before_training
        self.kind, self.advanced = KindControls(pane), AdvancedControls(pane)
        self._make_recipe()
        self._make_buttons()
        fixed = (self.kind.d_sae.box, self.kind.architecture, self.batch.box, self.seed.box)
        self.locks = Locks(*fixed, *self.advanced.fixed)
        pair = W.HBox([self.batch.box, self.seed.box], layout=W.Layout(width="auto"))
        pair.add_class("sae-pair")
        self.recipe_widgets = [
            self.learning_rate.row, self.learning_rate.entry.below, self.steps.box, self.steps.below,
            pair, self.batch.below, self.seed.below, *self.advanced.widgets,
        ]  # fmt: skip
        self.action_widgets = [self.buttons, self.progress, self.progress_words]

    def _make_recipe(self) -> None:
        pane = self.pane
        rate = setting(pane, "learning_rate", "Learning rate", HELP["learning_rate"], is_whole=False)
        self.learning_rate = LogSlider(pane, rate, -5, -1)
        self.steps = setting(pane, "steps", "Steps", HELP["steps"], is_whole=True, hint=self._epoch_words)
        self.batch = setting(pane, "batch_size", "Batch", HELP["batch_size"], is_whole=True)
        self.seed = setting(pane, "seed", "Seed", HELP["seed"], is_whole=True)
        self.seed.box.style.description_width = "36px"

    def _make_buttons(self) -> None:
        self.train = _button("Train", "play", "Train a new SAE with these settings", "primary")
        self.pause = _button("Pause", "pause", "")
        self.stop = _button(
            "Stop",
            "stop",
            "End the training and keep the SAE as it is; the square button of the notebook does not end it",
        )
        self.reset = _button("Reset", "undo", "Forget what was trained and show the SAE from before")
        self.buttons = W.HBox([self.train, self.pause, self.stop, self.reset])
        self.buttons.add_class("sae-buttons")
        self.progress = W.IntProgress(max=PROGRESS_STEPS, layout=W.Layout(width="auto", height="6px"))
        self.progress.add_class("sae-thin")
        self.progress_words = W.Label()
        self.progress_words.add_class("sae-hint")
        pane = self.pane
        pane.on_press(self.train, self._train)
        pane.on_press(self.pause, lambda: pane.press("pause" if self.state.status.phase == "training" else "resume"))
        pane.on_press(self.stop, lambda: pane.press("stop"))
        pane.on_press(self.reset, lambda: pane.press("reset"))

    def draw(self) -> None:
        """Bring fields, buttons and progress to what the state says."""
        phase = self.state.status.phase
        for part in (self.kind, self.learning_rate, self.steps, self.batch, self.seed, self.advanced):
            part.draw()
        self.locks.draw(phase in RUNNING)
        self._draw_buttons(phase)
        self._draw_progress()

    def _draw_buttons(self, phase: str) -> None:
        history = self.state.history
        trained = history is not None and len(history) > 0
        self.train.disabled = phase not in MAY_TRAIN
        goes_on = phase == "ready" and self.state.features is not None
        self.pause.disabled = not (phase in ("training", "paused") or goes_on)
        words, icon, tooltip = {
            "paused": ("Resume", "play", "Go on exactly where it was"),
            "ready": ("Continue", "forward", "Train the same SAE for as many steps again"),
        }.get(
            phase if phase == "paused" or goes_on else "",
            ("Pause", "pause", "Hold the training; Resume goes on"),
        )
        self.pause.description, self.pause.icon, self.pause.tooltip = words, icon, tooltip
        self.stop.disabled = phase not in ("reading", "training", "paused")  # a long corpus can be stopped too
        self.reset.disabled = phase not in ("ready", "failed", "paused") or not trained

    def _draw_progress(self) -> None:
        status = self.state.status
        share = share_done(status) if status.phase in RUNNING else -1.0
        self.progress.value = round(PROGRESS_STEPS * max(0.0, share))
        self.progress.layout.visibility = "hidden" if share < 0 else "visible"
        words = progress_words(status) if share >= 0 else ""
        self.progress_words.value = words
        self.progress_words.layout.display = "" if words else "none"

    def _train(self) -> None:
        if self._before():
            self.pane.press("train")

    def _epoch_words(self) -> str:
        return epoch_words(self.state.settings, training_tokens(self.state))


def training_tokens(state: Any) -> int | None:
    """How many tokens are trained on, None as long as the text has not been read."""
    if state.corpus != "text":
        return int(state.corpus_tokens)
    return None if state.activations is None else int(state.activations.n_tokens)


def epoch_words(settings: TrainConfig, n_tokens: int | None) -> str:
    """The steps of a run as passes over its data: ``about 68 epochs of 30,000 tokens``."""
    if settings.batch_size == 0:
        return f"= {settings.steps:,} epochs: every step sees all tokens"
    if not n_tokens:
        return ""
    epochs = settings.steps * settings.batch_size / n_tokens
    told = f"{epochs:,.0f}" if epochs >= 10 else f"{epochs:.2g}"
    return f"≈ {told} epoch{'' if told == '1' else 's'} of {n_tokens:,} tokens"


def _button(words: str, icon: str, tooltip: str, style: str = "") -> W.Button:
    return W.Button(
        description=words,
        icon=icon,
        tooltip=tooltip,
        button_style=style,
        layout=W.Layout(width="auto", flex="1 1 auto", min_width="0"),
    )
