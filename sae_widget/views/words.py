"""What the status line and the form both say: progress, and the buttons that are offered."""

from __future__ import annotations

from sae_widget.state import Status

OFFER_WORDS = {
    "retry": ("Try again", "Do the last thing that failed once more"),
    "cancel": ("Cancel", "Give up loading and keep the model that is there"),
    "restore": ("Restore the last trained SAE", "Take back what was being trained when the kernel ended"),
    "load_gpt2": ("Load GPT-2 (548 MB)", "Download GPT-2 small from the Hugging Face hub"),
    "load_anyway": ("Load anyway", "Show the SAE on what is read here, though it was trained on something else"),
    "keep": ("Keep what is here", "Leave the other SAE alone and go on with what is shown"),
}
"""Offer -> what its button says, and what it does."""


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


def sendable(text: str) -> str:
    """Text without lone surrogates, which cannot be sent to the page."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
