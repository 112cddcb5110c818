"""What the explorer is doing, in words, with what can be done about it."""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

import ipywidgets as W
from traitlets import Bool, Float, Int, Unicode

from sae_widget.state import OFFERS, Status
from sae_widget.views.base import read_static
from sae_widget.views.pane import Pane
from sae_widget.views.selection import GuardedWidget

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
OFFER_WORDS = {
    "retry": ("Try again", "Do the last thing that failed once more"),
    "cancel": ("Cancel", "Give up loading and keep the model that is there"),
    "restore": ("Restore the last trained SAE", "Take back what was being trained when the kernel ended"),
    "load_gpt2": ("Load GPT-2 (548 MB)", "Download GPT-2 small from the Hugging Face hub"),
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
    pace: ClassVar[dict[str, float]] = {"status": 0.25}
    counts_in_head = False

    def build_content(self) -> list[W.Widget]:
        """The text and one button for each offer, hidden until it is made."""
        self.text = StatusText(layout=W.Layout(flex="1 1 auto", min_width="0"))
        self.buttons = {}
        for offer in OFFERS:
            words, tooltip = OFFER_WORDS[offer]
            button = W.Button(description=words, tooltip=tooltip, layout=W.Layout(display="none", width="auto"))
            button.add_class("sae-small")
            self.on_press(button, partial(self.press, offer))
            self.buttons[offer] = button
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


def share_done(status: Status) -> float:
    """Share of the work that is done, 0 to 1; -1 when there is none to show."""
    return min(1.0, max(0.0, status.step / status.total)) if status.total > 0 else -1.0


def progress_words(status: Status) -> str:
    """Step, pace and time left of a run: ``step 620 of 2,000, 31,000 tokens/s, 8 s left``."""
    if status.total <= 0 or status.phase not in ("training", "paused", "stopping", "reading"):
        return ""
    said = [f"step {status.step:,} of {status.total:,}"] if status.phase != "reading" else []
    if status.tokens_per_second > 0:
        said.append(f"{_rounded(status.tokens_per_second):,} tokens/s")
    if status.seconds_left > 0 and status.phase == "training":
        said.append(f"{time_words(status.seconds_left)} left")
    return ", ".join(said)


def time_words(seconds: float) -> str:
    """A time in one or two units: ``8 s``, ``3 min``, ``2 h 5 min``."""
    whole = int(min(max(seconds, 0), 10**7) + 0.5)
    if whole < 90:
        return f"{whole} s"
    minutes = (whole + 30) // 60
    if minutes < 90:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"


def _rounded(rate: float) -> int:
    """To two digits, so that the words stand still while the rate wavers."""
    whole = int(rate)
    unit = 10 ** max(0, len(str(whole)) - 2)
    return whole // unit * unit
