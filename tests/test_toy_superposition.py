"""Training of toy models: its samples and its records at the extremes, and weights that no number holds."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch._dynamo  # torch imports it at a first use, and that changes warning filters

from sae_widget.toy import SuperpositionConfig, run_superposition, train_superposition
from sae_widget.toy.superposition import _Training


def sampled(**changes: Any) -> torch.Tensor:
    """Samples of one draw. ``[n_models, n_features, batch]``."""
    training = _Training(SuperpositionConfig(batch_size=50_000, **changes))
    training.sample()
    return training.x


@pytest.mark.parametrize("density", [1.0, 0.5, 0.1])
def test_a_feature_is_on_with_its_density_and_then_uniform(density: float) -> None:
    x = sampled(n_features=3, density=density)[0]
    for feature in x.numpy():
        on = np.sort(feature[feature > 0])
        assert len(on) / 50_000 == pytest.approx(density, abs=0.01)
        assert np.abs(on - np.linspace(0, 1, len(on))).max() < 0.03  # Kolmogorov and Smirnov, far outside chance
    assert abs(float(np.corrcoef(x.numpy())[0, 1])) < 0.02


def test_pairs_are_on_together_or_never() -> None:
    x = sampled(n_features=5, density=0.3, correlated_pairs=1, anticorrelated_pairs=1)[0] > 0
    assert torch.equal(x[0], x[1]) and not (x[2] & x[3]).any()
    assert [float(row.float().mean()) for row in x] == pytest.approx([0.3] * 5, abs=0.01)
    strengths = sampled(n_features=5, density=0.3, correlated_pairs=1, anticorrelated_pairs=1)[0].numpy()
    both = strengths[:2, strengths[0] > 0]
    assert abs(float(np.corrcoef(both)[0, 1])) < 0.03  # each with its own strength


def test_at_half_one_of_an_anticorrelated_pair_is_always_on() -> None:
    x = sampled(n_features=2, density=0.5, anticorrelated_pairs=1)[0]
    assert int(((x > 0).sum(0) != 1).sum()) <= 2  # but for a strength of exactly 0


@pytest.mark.parametrize("density", [1e-30, 1e-40, 5e-324])
def test_a_density_of_next_to_nothing_is_no_nan(density: float) -> None:
    training = _Training(SuperpositionConfig(n_features=3, batch_size=4, density=density))
    training.random = Zeros()  # 0 is drawn once in 16 million times
    training.sample()
    assert training.x.tolist() == [[[1.0] * 4] * 3]
    x = sampled(n_features=3, density=density)
    assert bool(torch.isfinite(x).all()) and float((x > 0).float().mean()) < 1e-4


class Zeros(np.random.Generator):
    def __init__(self) -> None:
        super().__init__(np.random.SFC64(0))

    def random(self, *args: Any, out: Any = None, **kwargs: Any) -> Any:
        out[...] = 0.0


@pytest.mark.parametrize(
    ("steps", "every", "wanted"),
    [(1, 1, [1]), (1, 100, [1]), (3, 1, [1, 2, 3]), (5, 2, [1, 2, 4, 5]), (4, 2, [1, 2, 4]), (7, 100, [1, 7])],
)
def test_records_at_both_ends_and_between(steps: int, every: int, wanted: list[int]) -> None:
    config = SuperpositionConfig(n_features=3, batch_size=4, steps=steps)
    assert [record.step for record in run_superposition(config, record_every=every)] == wanted


def test_the_smallest_model_of_all() -> None:
    models = train_superposition(n_features=1, d_hidden=1, n_models=1, batch_size=1, steps=1, density=1.0)
    assert models.W.shape == (1, 1, 1) and models.losses.shape == (1, 1) and models.steps.tolist() == [1]
    assert bool(torch.isfinite(models.W).all())


@pytest.mark.parametrize(
    ("importance", "n_features", "fits"),
    [(1e6, 4, True), (1e6, 5, False), (1e6, 60, False), (2.0, 60, True), (1.0, 999, True)],
)
def test_importances_that_grow_out_of_float32_are_refused(importance: float, n_features: int, fits: bool) -> None:
    given = {"importance": importance, "n_features": n_features, "batch_size": 4, "steps": 3, "density": 0.5}
    if not fits:
        with pytest.raises(
            ValueError, match=rf"importance \*\* {n_features - 1} must be at most 1e18, got importance 1e"
        ):
            SuperpositionConfig(**given)
        return
    models = train_superposition(SuperpositionConfig(**given))
    assert bool(torch.isfinite(models.losses).all()) and bool(torch.isfinite(models.W).all())
    assert SuperpositionConfig(**given).weights()[-1] == pytest.approx(importance ** (n_features - 1))


def test_importances_that_fade_to_nothing_are_taken() -> None:
    models = train_superposition(n_features=80, importance=1e-6, batch_size=4, steps=3)
    assert models.config.weights()[-1] == 0.0 and math.isfinite(float(models.losses[-1]))
