"""How a command ends when it cannot do what was asked, or is told to stop."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import FrameType

INTERRUPTED = 130  # what a shell expects after Ctrl-C


class Refused(Exception):
    """A command ends here: a sentence for the person, and the exit status.

    Args:
        sentence: what the person reads.
        status: of the command.
        told: whether this process says it; by default the first of several does.
    """

    def __init__(self, sentence: str, status: int = 1, *, told: bool | None = None) -> None:
        super().__init__(sentence)
        self.status, self.told = status, first_process() if told is None else told


def first_process() -> bool:
    """Whether this is the only process of its run, or the first of those that a launcher started."""
    return os.environ.get("WORLD_SIZE", "1") == "1" or os.environ.get("RANK", "0") == "0"


class StopFlag:
    """While it is entered, Ctrl-C (or a job's end) only raises ``stopped``; a second Ctrl-C ends at once.

    Args:
        patient: a second signal ends nothing: launchers of several processes repeat it to each.
    """

    def __init__(self, *, patient: bool = False) -> None:
        self.stopped = False
        self._patient = patient
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopFlag:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._stop)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        if self.stopped and not self._patient:
            raise KeyboardInterrupt
        self.stopped = True
