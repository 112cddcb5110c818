"""A loss that jumps: worth a word while the training goes on."""

from __future__ import annotations

FACTOR = 10.0
"""So many times the running mean is a jump; batches and warm-ups stay far below it."""
SHARE = 0.05
"""Weight of the newest loss in the running mean: about the last twenty count."""
FIRST = 20
"""Losses that are only looked at: a run begins with a fall."""


class Spikes:
    """Looks at one loss after the other and remembers only their running mean."""

    def __init__(self) -> None:
        self._mean, self._seen = 0.0, 0

    def times(self, loss: float) -> float:
        """How many times the running mean this loss is, when that is a jump; otherwise 0. A jump is told once."""
        self._seen += 1
        jumped = self._seen > FIRST and loss > FACTOR * self._mean > 0
        found = loss / self._mean if jumped else 0.0
        self._mean += (1.0 if jumped or self._seen == 1 else SHARE) * (loss - self._mean)
        return found
