"""The schedules of learning rate and penalty: values by hand, at both ends of a run and for the shortest one."""

from __future__ import annotations

from typing import Any

import pytest

from sae_widget.config import ARCHITECTURES, MAX_STEPS, TrainConfig
from sae_widget.training.base import TrainingFault
from sae_widget.training.schedule import learning_rate, penalty


def recipe(**changes: Any) -> TrainConfig:
    return TrainConfig(**({"learning_rate": 0.5, "lr_warmup": 0.0, "l1_warmup": 0.0} | changes))


@pytest.mark.parametrize(
    ("schedule", "steps", "wanted"),
    [
        ("constant", 10, [0.5] * 10),
        ("linear", 10, [0.5] * 9 + [0.25]),  # the last fifth are two steps
        ("linear", 20, [0.5] * 17 + [0.375, 0.25, 0.125]),
        ("linear", 1, [0.5]),
        ("linear", 7, [0.5] * 6 + [0.5 / 1.4]),
        ("halving", 3, [0.5] * 3),
    ],
)
def test_rates_by_hand(schedule: str, steps: int, wanted: list[float]) -> None:
    config = recipe(lr_schedule=schedule, steps=steps)
    assert [learning_rate(config, step) for step in range(1, steps + 1)] == pytest.approx(wanted, rel=1e-12)


def test_halving_begins_behind_each_hundred() -> None:
    config = recipe(lr_schedule="halving", steps=500)
    rates = {step: learning_rate(config, step) for step in (1, 100, 101, 200, 201, 500)}
    assert rates == {1: 0.5, 100: 0.5, 101: 0.25, 200: 0.25, 201: 0.125, 500: 0.5 / 16}


@pytest.mark.parametrize("warmup", [0.0, 0.05, 1.0])
@pytest.mark.parametrize("steps", [1, 2, 3, 11, 130_000, MAX_STEPS])
@pytest.mark.parametrize("schedule", ["linear", "halving", "constant"])
def test_no_step_of_the_plan_has_a_rate_of_0(schedule: str, steps: int, warmup: float) -> None:
    config = recipe(lr_schedule=schedule, steps=steps, lr_warmup=warmup, learning_rate=1e-8)
    for step in {1, 2, steps // 2 + 1, steps - 1, steps} & set(range(1, steps + 1)):
        rate = learning_rate(config, step)
        assert 0 < rate <= 1e-8, step
        assert "Try a learning rate of at most 1e-08." in str(TrainingFault(step, rate, "loss", float("nan")))


def test_behind_the_plan_the_linear_rate_is_0() -> None:
    assert [learning_rate(recipe(lr_schedule="linear", steps=10), step) for step in (10, 11, 12)] == [0.25, 0.0, 0.0]


@pytest.mark.parametrize(
    ("share", "steps", "wanted"),
    [
        (0.0, 4, [1, 1, 1, 1]),
        (0.5, 4, [0.5, 1, 1, 1]),
        (1.0, 4, [0.25, 0.5, 0.75, 1]),
        (0.3, 5, [1 / 1.5, 1, 1, 1, 1]),  # a step and a half
        (0.05, 1, [1]),  # less than a step
    ],
)
def test_both_rise_from_their_first_step_on(share: float, steps: int, wanted: list[float]) -> None:
    config = recipe(
        architecture="standard",
        l1_coefficient=3.0,
        steps=steps,
        lr_schedule="constant",
        lr_warmup=share,
        l1_warmup=share,
    )
    numbers = range(1, steps + 1)
    assert [learning_rate(config, step) for step in numbers] == pytest.approx([0.5 * part for part in wanted])
    assert [penalty(config, step) for step in numbers] == pytest.approx([3.0 * part for part in wanted])


@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
def test_each_kind_has_its_own_penalty_or_none(architecture: str) -> None:
    config = recipe(architecture=architecture, l1_coefficient=3.0, l0_coefficient=7.0)
    wanted = {"standard": 3.0, "gated": 3.0, "jumprelu": 7.0}
    assert penalty(config, 1) == wanted.get(architecture, 0.0)
