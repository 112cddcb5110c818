"""sae_widget.training.spikes: a jump is told once, what every run does is not."""

import random

import pytest

from sae_widget.training.spikes import FIRST, Spikes


def jumps(losses):
    watch = Spikes()
    return [(number, times) for number, loss in enumerate(losses, 1) if (times := watch.times(loss))]


def test_a_jump_is_told_once_with_its_size():
    assert jumps([2.0] * 50 + [30.0] * 50 + [2.0] * 200 + [40.0]) == [(51, 15.0), (301, pytest.approx(20, rel=0.1))]


def test_what_every_run_does_is_no_jump():
    noisy = random.Random(1)
    assert jumps([1000.0 * 0.9**n for n in range(200)]) == []  # the fall of the beginning
    assert jumps([1.0 * 1.05**n for n in range(200)]) == []  # a penalty that is warmed up
    assert jumps([noisy.uniform(0.2, 1.8) for _ in range(5000)]) == []
    assert jumps([0.0] * 100 + [1.0]) == []  # from nothing everything is far
    assert jumps([1.0] * (FIRST - 1) + [50.0]) == []
