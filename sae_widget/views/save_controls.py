"""A part of the form: what is shown, kept under a name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import ipywidgets as W

from sae_widget.views.fields import AskBox
from sae_widget.views.words import sendable

if TYPE_CHECKING:
    from sae_widget.state import SaveAnswer
    from sae_widget.views.pane import Pane

MAX_NAME = 80  # characters
NOTHING_YET = "There is no SAE to save yet: press Train to make one."


class SaveControls:
    """The name of a new folder for what is shown, and what came of the last one."""

    def __init__(self, pane: Pane) -> None:
        self.pane, self.state = pane, pane.state
        self._awaited: SaveAnswer | None = None  # the answer before the one that is awaited
        self.box = AskBox(
            guard=self.state.lock,
            label="name to save under",
            placeholder="a name for it",
            action="Save",
            help="Keeps the SAE, what its features do, the text, the settings and your names, beside the notebook",
            hint="Save what is shown in a folder of this name",
            limit=MAX_NAME,
            layout=W.Layout(width="auto"),
        )
        self.widgets = [self.box]
        pane.watch(self.box, "asks", lambda _n: self._ask())

    def draw(self) -> None:
        """Bring the field to what the state says."""
        state, answer = self.state, self.state.save_answer
        with self.box.hold_sync():
            self.box.show(sendable(state.save_as))
            self.box.locked = NOTHING_YET if state.features is None else ""
            self.box.busy = answer is self._awaited
            self.box.told = f"Saved in {sendable(answer.saved)}" if answer.saved else ""
            self.box.trouble = answer.trouble

    def _ask(self) -> None:
        if self.box.busy:
            return
        self._awaited, self.box.busy = self.state.save_answer, True
        self.state.save_as = self.box.take()
        self.pane.press("save")
