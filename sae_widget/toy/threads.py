"""One torch thread for a while, with nothing left changed."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Give the calling thread, and no other, one torch thread until the block ends."""
    before = torch.get_num_threads()
    if before == 1:
        yield
        return
    torch.set_num_threads(1)
    # The number belongs to a thread, but new threads start with the last one that was set: put that back.
    keeper = threading.Thread(target=torch.set_num_threads, args=(before,))
    keeper.start()
    keeper.join()
    try:
        yield
    finally:
        torch.set_num_threads(before)
