"""The search for a wanted L0: the controller's steps by hand, and that it never runs away."""

from __future__ import annotations

import math
from typing import Any

import pytest

from sae_widget.config import ARCHITECTURES, TrainConfig
from sae_widget.training import Trainer
from sae_widget.training.pressure import Pressure
from sae_widget.training.workspaces import workspace
from tests.training_runs import small_data


def pressure(**changes: Any) -> Pressure:
    settings = {"architecture": "standard", "d_sae": 7, "k": 3, "target_l0": 4.0, "l1_warmup": 0.0, "steps": 100}
    return Pressure(workspace(3, 5, TrainConfig(**(settings | changes)), True))


def test_two_steps_by_hand() -> None:
    found = pressure()
    assert found.on(0.5) == 0.5
    found.after(1, 4.0 * math.exp(0.5))  # half a unit of the logarithm too many
    assert found.on(0.5) == pytest.approx(0.5 * math.exp(0.01), rel=1e-6)
    found.after(2, 4.0 * math.exp(-0.25))
    assert found.on(0.5) == pytest.approx(0.5 * math.exp(0.005), rel=1e-6)


@pytest.mark.parametrize(("l0", "moved"), [(7.0 * 4e9, 0.02), (math.inf, 0.02), (0.0, -0.02), (4.0, 0.0)])
def test_a_step_counts_as_at_most_one_unit(l0: float, moved: float) -> None:
    found = pressure()
    found.after(1, l0)
    assert float(found.work.memory["pressure"]) == pytest.approx(moved, abs=1e-9)


def test_where_nothing_fires_even_a_tiny_target_is_above() -> None:
    found = pressure(target_l0=0.01)
    found.after(1, 0.0)
    assert float(found.work.memory["pressure"]) == pytest.approx(-0.02, rel=1e-6)


def test_nothing_is_noted_before_the_penalty_is_there_whole() -> None:
    found = pressure(l1_warmup=0.1)
    for step in range(1, 10):
        found.after(step, 1000.0)
        assert found.on(2.0) == 2.0
    found.after(10, 1000.0)
    assert found.on(2.0) == pytest.approx(2.0 * math.exp(0.02), rel=1e-6)


@pytest.mark.parametrize("target", [0.0, 4.0])
@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
def test_only_the_l1_penalty_is_searched_for(architecture: str, target: float) -> None:
    found = pressure(architecture=architecture, target_l0=target)
    found.after(1, 7.0)
    searches = architecture in ("standard", "gated") and target > 0
    assert found.searches is searches
    assert (found.on(2.0) != 2.0) is searches and (float(found.work.memory["pressure"]) != 0) is searches


@pytest.mark.parametrize(("l0", "way"), [(7.0, 1), (0.0, -1)])
def test_a_target_that_is_never_met_is_no_number_out_of_range(l0: float, way: int) -> None:
    # A penalty of 0 stays 0 whatever the factor is: 36,000 steps of that were beyond what exp can say.
    found = pressure(l1_coefficient=0.0, target_l0=1.0, steps=50_000)
    for step in range(1, 50_000):
        assert found.on(0.0) == 0.0
        found.after(step, l0)
    assert float(found.work.memory["pressure"]) == 50.0 * way
    found.after(50_000, math.e**0.5 if way < 0 else math.e**-0.5)
    assert float(found.work.memory["pressure"]) == pytest.approx(49.99 * way, rel=1e-6)  # it comes back at once


def test_a_training_without_a_penalty_goes_on_where_the_factor_is_largest() -> None:
    config = TrainConfig(
        architecture="standard", d_sae=20, l1_coefficient=0.0, target_l0=1.0, l1_warmup=0.0, steps=3, batch_size=16
    )
    trainer = Trainer(*small_data(), config)
    trainer._engine.work.memory["pressure"].fill_(709.78)  # as after 35,500 steps: a little more is beyond exp
    assert [record.sparsity for record in trainer.run()] == [0.0, 0.0, 0.0]
