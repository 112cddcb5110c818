"""The end of the form: an SAE that is saved somewhere, shown in place of a new one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import ipywidgets as W

from sae_widget.views.fields import STOP_FIRST, AskBox
from sae_widget.views.words import sendable

if TYPE_CHECKING:
    from sae_widget.views.pane import Pane

QUESTION = ("load_anyway", "keep")
"""Offers that answer the question whether an SAE of another model is wanted, here as in the status line."""


class OpenControls:
    """The folder of an SAE, and the question that one of another model leads to."""

    def __init__(self, pane: Pane) -> None:
        self.pane, self.state = pane, pane.state
        self.box = AskBox(
            guard=self.state.lock,
            label="folder of a saved SAE",
            placeholder="folder where it is saved",
            action="Show",
            help="The folder of an SAE that this explorer, sae-widget train, SAELens or another program has saved",
            hint="Show this SAE on the text",
            layout=W.Layout(width="auto"),
        )
        self.answers = {offer: pane.offer_button(offer, flex="0 0 auto") for offer in QUESTION}
        self.question = W.HBox([*self.answers.values()], layout=W.Layout(display="none"))
        for name in ("sae-under", "sae-answers"):
            self.question.add_class(name)
        self.widgets = [self.box, self.question]
        pane.watch(self.box, "asks", lambda _n: self._ask())

    def draw(self) -> None:
        """Bring the field to what the state says, with what came of the last folder."""
        state, said = self.state, self.state.faults.get("folder", "")
        with self.box.hold_sync():
            self.box.show(sendable(state.folder))
            running = state.status.phase in ("training", "paused", "stopping")
            self.box.locked = STOP_FIRST if running else ""
            self.box.told = "" if running or state.features is None else f"Now: {state.features.source}"
            self.box.trouble = said
        asked = bool(said) and all(offer in state.offers for offer in QUESTION)
        self.question.layout.display = "" if asked else "none"

    def _ask(self) -> None:
        self.state.folder = self.box.take()
        self.pane.press("show")
