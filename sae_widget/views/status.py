"""What the explorer is doing, in words, with what can be done about it."""

from __future__ import annotations

from typing import Any, ClassVar

import ipywidgets as W
from traitlets import Bool, Float, Int, Unicode

from sae_widget.state import OFFERS
from sae_widget.views.base import read_static
from sae_widget.views.pane import Pane
from sae_widget.views.selection import GuardedWidget
from sae_widget.views.words import progress_words, share_done

PHASE_WORDS = {
    "starting": "Starting",
    "loading": "Loading",
    "reading": "Reading",
    "ready": "Ready",
    "training": "Training",
    "paused": "Paused",
    "stopping": "Stopping",
    "failed": "Failed",
    "closed": "Closed",
}
GONE_AFTER = 7.0
"""Seconds without a heartbeat after which the page says that no kernel answers; a beat comes every two."""


class StatusText(GuardedWidget):
    """Phase, message and progress; and the page's own look at whether the kernel still beats."""

    _esm = read_static("dom.js", "heartbeat.js", "status.js")
    phase = Unicode().tag(sync=True)
    words = Unicode(help="the phase in words").tag(sync=True)
    message = Unicode().tag(sync=True)
    trouble = Bool(False).tag(sync=True)
    share = Float(-1.0, help="of the work done, 0 to 1; negative: no progress to show").tag(sync=True)
    progress = Unicode(help="the progress in words").tag(sync=True)
    beat = Int(0).tag(sync=True)
    gone_after = Float(GONE_AFTER).tag(sync=True)
    draws = Int(0).tag(sync=True)


class StatusLine(Pane):
    """The status line: phase, message, progress, offers; it also notices when the kernel is gone."""

    name = "status"
    reads = ("status", "offers", "beat", "faults")
    pace: ClassVar[dict[str, float]] = {"status": 0.4}
    counts_in_head = False

    def build_content(self) -> list[W.Widget]:
        """The text and one button for each offer, hidden until it is made."""
        self.text = StatusText(layout=W.Layout(flex="1 1 auto", min_width="0"))
        self.buttons = {offer: self.offer_button(offer, display="none") for offer in OFFERS}
        row = W.HBox([self.text, *self.buttons.values()], layout=W.Layout(width="100%", align_items="center"))
        row.add_class("sae-status-row")
        return [row]

    def draw_content(self) -> None:
        """Say the status; the message is sent as text and never as HTML."""
        status = self.state.status
        with self.text.hold_sync():
            self.text.phase = status.phase
            self.text.words = PHASE_WORDS.get(status.phase, status.phase)
            self.text.message = status.message
            self.text.trouble = status.trouble or status.phase == "failed"
            self.text.share = share_done(status)
            self.text.progress = progress_words(status)
            self.text.beat = self.state.beat
            self.text.draws = self.draws
        for offer, button in self.buttons.items():
            button.layout.display = "" if offer in self.state.offers else "none"

    def urgent(self, change: Any) -> bool:
        """Progress can wait a moment; a new phase, message or trouble cannot."""
        old, new = change.old, change.new
        return change.name == "status" and (old.phase, old.trouble) != (new.phase, new.trouble)
