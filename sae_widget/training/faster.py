"""Which of several ways is the fastest here, by measurement."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

ROUNDS = 7


def seconds_of(*ways: Callable[[], object]) -> list[float]:
    """Seconds that each takes at best; they take turns, so that what else the machine does meets all of them."""
    best = [float("inf")] * len(ways)
    for _ in range(ROUNDS):
        for at, way in enumerate(ways):
            began = time.perf_counter()
            way()
            best[at] = min(best[at], time.perf_counter() - began)
    return best
