"""Curves in bounded memory, thinned without losing a spike or a gap."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sae_widget.training import History, TrainStep


def record(step: int, loss: float) -> TrainStep:
    return TrainStep(
        step=step,
        loss=loss,
        reconstruction=loss / 2,
        sparsity=1.0,
        l0=3.5,
        explained_variance=0.9,
        explained_variance_with_first=0.8,
        dead=2,
        learning_rate=1e-3,
        tokens_per_second=1e4,
        tokens=14 * step,
    )


def filled(losses: list[float], capacity: int = 65_536) -> History:
    history = History(capacity)
    for step, loss in enumerate(losses, start=1):
        history.append(record(step, loss))
    return history


def test_empty() -> None:
    history = History()
    assert len(history) == 0 and history.last is None and history.to_list() == []
    assert history.series(["step", "loss"])["loss"].shape == (0,)


def test_what_went_in_comes_out() -> None:
    history = filled([3.0, 2.0, 1.0])
    assert len(history) == 3 and history.last == history.to_list()[-1]
    assert [r.loss for r in history] == [3.0, 2.0, 1.0]
    assert isinstance(history.to_list()[0].dead, int) and history.to_list()[0].tokens == 14
    series = history.series(["step", "loss", "reconstruction"])
    assert series["loss"].dtype == np.float64
    assert series["step"].tolist() == [1, 2, 3] and series["reconstruction"].tolist() == [1.5, 1.0, 0.5]


def test_spikes_and_ends_stay() -> None:
    losses = [1.0 + 0.001 * (i % 7) for i in range(50_000)]
    losses[12_345], losses[33_333] = 99.0, -5.0
    series = filled(losses).series(["step", "loss"], max_points=500)
    assert len(series["step"]) <= 500
    assert series["step"][0] == 1 and series["step"][-1] == 50_000
    assert 12_346 in series["step"] and series["loss"].max() == 99.0
    assert 33_334 in series["step"] and series["loss"].min() == -5.0
    assert (np.diff(series["step"]) > 0).all()


def test_gaps_are_nan_and_stay() -> None:
    losses = [1.0] * 20_000
    losses[7_000], losses[9_000] = math.nan, math.inf
    series = filled(losses).series(["step", "loss"], max_points=300)
    assert set(series["step"][np.isnan(series["loss"])]) == {7_001, 9_001}
    assert not np.isinf(series["loss"]).any()


def test_all_gaps() -> None:
    series = filled([math.nan] * 3_000).series(["step", "loss"], max_points=100)
    assert np.isnan(series["loss"]).all() and series["step"][-1] == 3_000


def test_every_name_keeps_its_own_spikes() -> None:
    history = History()
    for step in range(1, 10_001):
        good = record(step, 1.0)
        odd = 500.0 if step == 4_321 else 3.5
        history.append(TrainStep(**(vars(good) | {"l0": odd})))
    assert history.series(["step", "loss", "l0"], max_points=200)["l0"].max() == 500.0


def test_memory_is_bounded() -> None:
    losses = [1.0] * 3_000
    losses[100] = 77.0
    history = filled(losses, capacity=256)
    assert len(history) == 3_000
    kept = history.to_list()
    assert len(kept) <= 256
    assert kept[0].step == 1 and kept[-1].step == 3_000 and history.last == kept[-1]
    assert 77.0 in [r.loss for r in kept]
    assert [r.step for r in kept] == sorted({r.step for r in kept})


def test_refusals() -> None:
    with pytest.raises(ValueError, match="unknown series 'lost'; known: step, loss"):
        History().series(["lost"])
    with pytest.raises(ValueError, match="max_points must be at least 4, got 3"):
        History().series(["loss"], max_points=3)
    with pytest.raises(ValueError, match="capacity must be at least 64, got 10"):
        History(10)


def test_a_rolled_back_step_is_a_gap_and_the_last_good_record_stays_the_last() -> None:
    history = filled([3.0, 2.0])
    history.gap(3)
    assert history.last == record(2, 2.0)
    series = history.series(["step", "loss", "l0"])
    assert series["step"].tolist() == [1, 2, 3]
    assert series["loss"][:2].tolist() == [3.0, 2.0] and math.isnan(series["loss"][2])
    assert series["l0"].tolist() == [3.5, 3.5, 3.5]
    history.append(record(3, 1.5))
    assert history.last == record(3, 1.5)


def test_a_gap_before_the_first_record_is_nothing() -> None:
    history = History()
    history.gap(1)
    assert len(history) == 0
