"""Turns of several contestants, one after the other in every round, and what is read off their times."""

from __future__ import annotations

import time
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.contestants import Contestant

TURN = 0.5  # seconds that a turn lasts at least


class Speed(NamedTuple):
    """Seconds of one step in one turn: by the clock, and of the processor over all threads."""

    wall: float
    cpu: float


def turn(contestant: Contestant, steps: int) -> Speed:
    """Some steps of one contestant, with its own number of torch threads."""
    threads = torch.get_num_threads()
    if contestant.threads != threads:
        torch.set_num_threads(contestant.threads)
    _finish()
    began, cpu = time.perf_counter(), time.process_time()
    for _ in range(steps):
        contestant.step()
    _finish()
    took = Speed((time.perf_counter() - began) / steps, (time.process_time() - cpu) / steps)
    contestant.threads = torch.get_num_threads()
    if contestant.threads != threads:
        torch.set_num_threads(threads)
    return took


def _finish() -> None:
    """Wait for what a GPU has been told to do."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def rounds_of(contestants: list[Contestant], rounds: int, least: dict[str, int]) -> dict[str, list[Speed]]:
    """Times of every contestant in every round, behind a warm-up.

    Args:
        contestants: who takes turns, in this order.
        rounds: how many turns each has.
        least: fewest steps in a turn, by name; otherwise as many as take ``TURN`` seconds.
    """
    steps = {one.name: max(least.get(one.name, 1), _steps_of_a_turn(one)) for one in contestants}
    times: dict[str, list[Speed]] = {one.name: [] for one in contestants}
    for _ in range(rounds):
        for one in contestants:
            times[one.name].append(turn(one, steps[one.name]))
    return times


def _steps_of_a_turn(one: Contestant) -> int:
    """How many steps take ``TURN`` seconds: not from a single one, since small steps may be done some at a time."""
    turn(one, 1)
    steps = 1
    while (took := steps * turn(one, steps).wall) < TURN / 5:
        steps *= 2
    return round(steps * TURN / took)


def ratio(slow: list[Speed], fast: list[Speed], key: Callable[[Speed], float] = lambda speed: speed.wall) -> float:
    """How many times faster: the median over the rounds of the ratio inside a round."""
    return median(key(a) / key(b) for a, b in zip(slow, fast, strict=True))


def tokens_per_second(times: list[Speed], batch_size: int) -> float:
    """Median over the rounds."""
    return batch_size / median(one.wall for one in times)
