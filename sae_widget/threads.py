"""The number of torch threads of one thread of this process, with nothing left changed for the others."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator


def give(count: int) -> None:
    """Give the calling thread, and no other, this number of torch threads.

    The number belongs to a thread, but new threads start with the last one that was set: that is put back.
    """
    before = torch.get_num_threads()
    if before == count:
        return
    torch.set_num_threads(count)
    keeper = threading.Thread(target=torch.set_num_threads, args=(before,))
    keeper.start()
    keeper.join()


class using:
    """The same until the block ends, which must be soon: a thread that starts meanwhile gets this number too."""

    __slots__ = ("_before", "_count")

    def __init__(self, count: int) -> None:
        self._count = count

    def __enter__(self) -> None:
        self._before = torch.get_num_threads()
        if self._before != self._count:
            torch.set_num_threads(self._count)

    def __exit__(self, *raised: object) -> None:
        if self._before != self._count:
            torch.set_num_threads(self._before)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Give the calling thread, and no other, one torch thread until the block ends, however long it is."""
    before = torch.get_num_threads()
    give(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
