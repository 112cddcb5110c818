"""The end of the form: an SAE that is saved somewhere, shown in place of a new one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import ipywidgets as W
from traitlets import Int, Unicode

from sae_widget.views.base import read_static
from sae_widget.views.fields import MAX_PATH, STOP_FIRST
from sae_widget.views.selection import GuardedWidget
from sae_widget.views.words import sendable

if TYPE_CHECKING:
    from sae_widget.views.pane import Pane

HELP = "The folder of an SAE that this explorer, sae-widget train, SAELens or another program has saved"
QUESTION = ("load_anyway", "keep")
"""Offers that answer the question whether an SAE of another model is wanted, here as in the status line."""


class FolderBox(GuardedWidget):
    """A field for a path with a Show button; Enter and the button send the path, and nothing else does."""

    _esm = read_static("dom.js", "folder.js")
    from_browser = ("draft", "asks")
    folder = Unicode(help="what was asked for last").tag(sync=True)
    draft = Unicode(help="what is in the field").tag(sync=True)
    asks = Int(0, help="rises when the person asks for it to be shown").tag(sync=True)
    limit = Int(MAX_PATH).tag(sync=True)
    help = Unicode(HELP).tag(sync=True)
    shown = Unicode(help="the SAE that is shown").tag(sync=True)
    trouble = Unicode(help="why that of the folder is not").tag(sync=True)
    locked = Unicode(help="why nothing can be asked for now").tag(sync=True)

    def _fits(self, name: str, value: Any) -> bool:
        return super()._fits(name, value) and (name != "draft" or (len(value) <= MAX_PATH and value == sendable(value)))


class OpenControls:
    """The folder of an SAE, and the question that one of another model leads to."""

    def __init__(self, pane: Pane) -> None:
        self.pane, self.state = pane, pane.state
        self._folder = ""
        self.box = FolderBox(layout=W.Layout(width="auto"))
        self.answers = {offer: pane.offer_button(offer, flex="0 0 auto") for offer in QUESTION}
        self.question = W.HBox([*self.answers.values()], layout=W.Layout(display="none"))
        for name in ("sae-under", "sae-answers"):
            self.question.add_class(name)
        self.widgets = [self.box, self.question]
        pane.watch(self.box, "asks", lambda _n: self._ask())

    def draw(self) -> None:
        """Bring the field to what the state says, with what came of the last folder."""
        state, folder = self.state, sendable(self.state.folder)
        said = state.faults.get("folder", "")
        with self.box.hold_sync():
            if folder != self._folder:
                self._folder = self.box.folder = self.box.draft = folder
            running = state.status.phase in ("training", "paused", "stopping")
            self.box.locked = STOP_FIRST if running else ""
            self.box.shown = "" if running or state.features is None else state.features.source
            self.box.trouble = said
        asked = bool(said) and all(offer in state.offers for offer in QUESTION)
        self.question.layout.display = "" if asked else "none"

    def _ask(self) -> None:
        self._folder = self.box.folder = self.box.draft
        self.state.folder = self.box.draft
        self.pane.press("show")
