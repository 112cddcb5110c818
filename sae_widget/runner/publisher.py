"""The one way from the worker to the state: finished records, at most ten times a second, the last one always."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sae_widget.state import ExplorerState

log = logging.getLogger("sae_widget")
INTERVAL = 0.1
"""Seconds between two publications; a flood of messages is dropped by the notebook server for good."""
BEAT = 2.0
"""Seconds between two signs of life."""


class Publisher:
    """Moves results into the state's traits.

    ``post`` may be called from any thread, any number of times; of each trait the newest value is kept. A
    daemon thread sets the traits. Where updates from threads are not shown (Colab), ``polled`` leaves
    that to ``flush``, called by the page's own clock.
    """

    def __init__(self, state: ExplorerState, *, polled: bool = False) -> None:
        self.state, self.polled = state, polled
        self._waiting: dict[str, Any] = {}
        self._lock = threading.Lock()
        self._flushing = threading.Lock()
        self._wake = threading.Event()
        self._closed = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to publish."""
        if not self.polled:
            self._thread = threading.Thread(target=self._loop, name="sae_widget-publisher", daemon=True)
            self._thread.start()

    def post(self, **results: Any) -> None:
        """Hand over new values of result traits."""
        with self._lock:
            self._waiting.update(results)
        self._wake.set()

    def flush(self) -> None:
        """Set the traits now, in the calling thread."""
        with self._flushing:
            with self._lock:
                waiting, self._waiting = self._waiting, {}
            with self.state.lock:
                for name, value in waiting.items():
                    try:
                        setattr(self.state, name, value)
                    except Exception:
                        log.exception("publishing %s failed", name)

    @property
    def empty(self) -> bool:
        """Whether everything that was posted has arrived."""
        with self._lock:
            return not self._waiting and not self._flushing.locked()

    def close(self) -> None:
        """Stop; what was posted before arrives first."""
        self._closed = True
        self._wake.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout=2.0)
        self.flush()

    def _loop(self) -> None:
        beat = 0.0
        while not self._closed:
            self._wake.wait(timeout=BEAT / 2)
            self._wake.clear()
            now = time.monotonic()
            if now - beat >= BEAT:
                beat = now
                self.post(beat=self.state.beat + 1)
            self.flush()
            time.sleep(INTERVAL)
