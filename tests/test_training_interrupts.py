"""Ctrl-C is held back until a block is done: one or many, nested, in a block that fails, in another thread."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from sae_widget.training.interrupts import finish_first


@pytest.fixture
def heard() -> Iterator[list[tuple[int, Any]]]:
    """The interrupts that reached the person's handler."""
    found: list[tuple[int, Any]] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: found.append((number, frame)))
    yield found
    signal.signal(signal.SIGINT, before)


def interrupt() -> None:
    signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize(("times", "wanted"), [(0, 0), (1, 1), (3, 1)])
def test_it_comes_once_and_behind_the_block(heard: list[tuple[int, Any]], times: int, wanted: int) -> None:
    handler = signal.getsignal(signal.SIGINT)
    with finish_first():
        for _ in range(times):
            interrupt()
        assert not heard
    assert [number for number, _ in heard] == [signal.SIGINT] * wanted
    assert signal.getsignal(signal.SIGINT) is handler
    assert all(frame is not None for _, frame in heard)  # where it came, as Python would have said


def test_one_object_may_be_used_again(heard: list[tuple[int, Any]]) -> None:
    held = finish_first()
    for wanted in (1, 2):
        with held:
            interrupt()
        assert len(heard) == wanted
    with held:
        pass
    assert len(heard) == 2


def test_a_block_in_a_block_ends_with_the_outer_one(heard: list[tuple[int, Any]]) -> None:
    with finish_first():
        with finish_first():
            interrupt()
        assert not heard
    assert len(heard) == 1


def test_a_block_that_fails_gives_it_on_and_fails(heard: list[tuple[int, Any]]) -> None:
    with pytest.raises(ZeroDivisionError), finish_first():
        interrupt()
        raise ZeroDivisionError
    assert len(heard) == 1


def test_python_itself_raises_behind_the_block() -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    done = []
    try:
        with pytest.raises(KeyboardInterrupt), finish_first():
            interrupt()
            done.append("whole")
        assert done == ["whole"] and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_who_ignores_interrupts_goes_on_ignoring_them() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with finish_first():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
            interrupt()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_in_another_thread_nothing_is_held(heard: list[tuple[int, Any]]) -> None:
    handler, seen = signal.getsignal(signal.SIGINT), []

    def other() -> None:
        with finish_first():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert seen == [handler]
