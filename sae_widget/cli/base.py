"""How a command ends when it cannot do what was asked."""

from __future__ import annotations

INTERRUPTED = 130  # what a shell expects after Ctrl-C


class Refused(Exception):
    """A command ends here: a sentence for the person, and the exit status."""

    def __init__(self, sentence: str, status: int = 1) -> None:
        super().__init__(sentence)
        self.status = status
