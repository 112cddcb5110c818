"""Tracebacks of faults, kept for whoever asks: in a notebook they would land in a cell that has no part in them."""

from __future__ import annotations

import logging
from collections import deque

KEPT = 50
"""Entries; older ones are forgotten."""


class Journal(logging.Handler):
    """Keeps the last ``KEPT`` warnings and errors of the package as text and prints nothing.

    It is the package's own handler, so that Python does not write to the standard error stream instead, whose
    text a kernel shows below the cell that ran last. Handlers that a person sets up get the records as well.
    """

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        self._entries: deque[str] = deque(maxlen=KEPT)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one record (called by ``logging``)."""
        self._entries.append(self.format(record))

    @property
    def text(self) -> str:
        """All entries, the oldest first."""
        return "\n".join(list(self._entries))


JOURNAL = Journal()
