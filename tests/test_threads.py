"""The number of torch threads of one thread, which the others do not see."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import torch

from sae_widget.threads import give, one_thread, using


def in_a_thread(*steps: Callable[[], Any]) -> list[Any]:
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.extend([step() for step in steps]))
    thread.start()
    thread.join()
    return found


def test_a_thread_is_given_a_number_and_the_next_one_starts_with_the_old() -> None:
    before = torch.get_num_threads()
    assert in_a_thread(lambda: give(before + 2), torch.get_num_threads)[1] == before + 2
    assert in_a_thread(torch.get_num_threads) == [before]
    assert torch.get_num_threads() == before


def test_a_block_has_its_number_and_leaves_the_old_one() -> None:
    before = torch.get_num_threads()
    with using(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before
    with using(before + 1), one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before


def test_a_long_block_is_not_seen_by_threads_that_start_meanwhile() -> None:
    before = torch.get_num_threads()
    with using(before + 2):
        with one_thread():
            assert in_a_thread(torch.get_num_threads) == [before + 2]
        assert torch.get_num_threads() == before + 2
