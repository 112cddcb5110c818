"""The form: everything a person sets before and while training."""

from __future__ import annotations

from typing import Any, ClassVar

import ipywidgets as W

from sae_widget.views.open_controls import OpenControls
from sae_widget.views.pane import Pane
from sae_widget.views.save_controls import SaveControls
from sae_widget.views.source_controls import SourceControls
from sae_widget.views.train_controls import TrainControls


class Controls(Pane):
    """Model, text, read point, corpus, SAE, recipe, and the buttons that train."""

    name = "controls"
    question = "What should it learn, and from what?"
    reads = (
        *("model", "text", "layer", "hook_name", "prepend_bos", "corpus", "corpus_tokens", "settings"),
        *("refused", "language_model", "activations", "features", "history", "status", "faults"),
        *("folder", "offers", "save_as", "save_answer"),
        *("weights", "layout", "rows", "measure"),  # a preset sets them too
    )
    pace: ClassVar[dict[str, float]] = {"status": 0.4}  # as the status line, so that both say the same

    def build_content(self) -> list[W.Widget]:
        """The parts of the form."""
        self.source = SourceControls(self)
        self.training = TrainControls(self, self.source.take_draft)
        self.saving, self.opening = SaveControls(self), OpenControls(self)
        parts = [
            *self.source.widgets,
            _heading("The autoencoder"),
            *self.training.kind.widgets,
            _heading("Its training"),
            *self.training.recipe_widgets,
            *self.training.action_widgets,
            _heading("Keep what is shown"),
            *self.saving.widgets,
            _heading("Or show a saved one"),
            *self.opening.widgets,
        ]
        form = W.VBox(parts, layout=W.Layout(width="100%", min_width="0"))
        form.add_class("sae-form")
        return [form]

    def draw_content(self) -> None:
        """Bring every field to what the state says."""
        self.source.draw()
        self.training.draw()
        self.saving.draw()
        self.opening.draw()

    def urgent(self, change: Any) -> bool:
        """Buttons follow the phase at once; progress can wait a moment."""
        return change.name == "status" and change.old.phase != change.new.phase


def _heading(words: str) -> W.Label:
    label = W.Label(words)
    label.add_class("sae-heading")
    return label
