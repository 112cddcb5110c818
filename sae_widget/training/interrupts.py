"""Ctrl-C between two steps instead of inside one."""

from __future__ import annotations

import importlib.util
import signal
import threading
from typing import Any

# Without the wrappers that make enums of numbers: at every step they would cost as much as a small matrix product.
_quick: Any = importlib.import_module("_signal") if importlib.util.find_spec("_signal") else signal


class finish_first:
    """``with finish_first():`` holds an interrupt back until the block is done, then hands it to the handler before.

    Python delivers interrupts to the main thread alone; in others this does nothing.
    """

    __slots__ = ("_handler", "_held")

    def __enter__(self) -> None:
        self._held: tuple[int, Any] | None = None
        here = threading.get_ident() == threading.main_thread().ident
        self._handler = _quick.getsignal(signal.SIGINT) if here else None
        if callable(self._handler):  # else interrupts are ignored, or this is not the main thread
            _quick.signal(signal.SIGINT, self._hold)

    def __exit__(self, *raised: object) -> None:
        if callable(self._handler):
            _quick.signal(signal.SIGINT, self._handler)
            if self._held is not None:
                self._handler(*self._held)

    def _hold(self, number: int, frame: Any) -> None:
        self._held = self._held or (number, frame)
