"""FACTS sections 1 and 2 and the ladder as they stand there: more seeds, all steps, the whole sweep."""

from __future__ import annotations

from typing import Any

import pytest

from sae_widget.toy import ToyConfig, toy_data, train_superposition
from tests.test_toy_facts import found, rung, undone

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1800)]
FULL: dict[str, Any] = {"learning_rate": 2e-3, "steps": 4000, "batch_size": 1024, "lr_schedule": "constant"}


def test_pentagons():
    models = train_superposition(density=(*[0.02] * 30, *[0.045] * 20), n_models=50)
    kept = (models.norms > 0.5).sum(1) == 5
    print("pentagons:", int(kept[:30].sum()), "of 30 at 0.02,", int(kept[30:].sum()), "of 20 at 0.045")
    assert int(kept[:30].sum()) == 30 and int(kept[30:].sum()) >= 15
    assert float(models.dimensionality.sum(1).max()) <= 2.02
    assert models.dimensionality[:30].flatten().tolist() == pytest.approx([0.4] * 150, abs=0.02)


def test_four_arrows():
    models = train_superposition(density=0.3, n_models=30)
    four = (models.norms > 0.5).sum(1) == 4
    print("four arrows at 0.3:", int(four.sum()), "of 30")
    assert int(four.sum()) >= 20
    assert models.dimensionality.sum(1).tolist() == pytest.approx([2.0] * 30, abs=0.05)


def test_pairs():
    together = train_superposition(n_features=4, density=0.02, correlated_pairs=2, n_models=16)
    apart = train_superposition(n_features=4, density=0.2, anticorrelated_pairs=2, n_models=16)
    square = (together.interference[:, [0, 2], [1, 3]].abs() < 0.02).all(1)
    opposite = (apart.interference[:, [0, 2], [1, 3]] < -0.98).any(1)
    print("at right angles:", int(square.sum()), "of 16; opposite:", int(opposite.sum()), "of 16")
    assert int(square.sum()) >= 15 and int(opposite.sum()) >= 4


def test_plateaus():
    inverse = (1.0, 1.3, 1.7, 2.3, 3.0, 3.9, 5.1, 6.7, 8.8, 11.5, 15.1, 20.0)
    models = train_superposition(
        n_features=200, d_hidden=20, density=tuple(1 / i for i in inverse), n_models=12, steps=6000
    )
    found = dict(zip(inverse, models.dimensions_per_feature.tolist(), strict=True))
    kept = models.norms > 0.5
    for i, (key, value) in enumerate(found.items()):
        half = (models.dimensionality[i][kept[i]] - 0.5).abs() < 0.05
        print(f"1/(1-S) {key}: {value:.3f}, {int(half.sum())} of {int(kept[i].sum())} at 1/2")
        if key in (2.3, 3.0):
            assert 0.48 <= value <= 0.54 and bool(half.all()) and int(kept[i].sum()) >= 36
    assert found[1.0] == pytest.approx(1.005, abs=0.02) and found[20.0] == pytest.approx(0.136, abs=0.02)


def test_penalties_over_four_seeds():
    data = toy_data(n_tokens=100_000)
    for seed in range(4):
        result = found(data, **FULL, seed=seed)
        print(seed, result)
        assert result.mmcs > 0.97 and result.recovered >= 58
    assert found(data, **FULL, l1_coefficient=0.0).mmcs < 0.55
    for weight, most in ((0.01, 3), (0.03, 12), (0.05, 35)):
        assert found(data, **FULL, l1_coefficient=weight).recovered <= most
    for weight, variance in ((0.2, 0.886), (0.4, 0.789)):
        result = found(data, **FULL, l1_coefficient=weight)
        assert result.recovered >= 58 and result.explained_variance == pytest.approx(variance, abs=0.04)


def test_widths_and_samples():
    seldom = ToyConfig(probability=0.02)
    data = toy_data(seldom, n_tokens=100_000)
    by_width = {w: found(data, **FULL, d_sae=w).recovered for w in (16, 32, 64, 96, 128)}
    print(by_width)
    assert by_width[16] == 0 and by_width[32] <= 15 and min(list(by_width.values())[2:]) >= 60
    sizes = {14: (0, 10), 50: (8, 25), 200: (40, 60), 1000: (58, 64), 5000: (60, 64)}
    for n, (least, most) in sizes.items():
        result = found(toy_data(seldom, n_tokens=n), **FULL)
        print(n, result)
        assert least <= result.recovered <= most


@pytest.mark.parametrize(("d_sae", "weight"), [(8, 0.3), (5, 0.3), (8, 0.05), (8, 0.1)])
def test_pentagons_undone(d_sae, weight):
    models = train_superposition(density=0.02, n_models=6)
    results = [
        undone(models, i, d_sae=d_sae, l1_coefficient=weight, seed=i, steps=5000, batch_size=1024) for i in range(6)
    ]
    print(d_sae, weight, [(r.recovered, round(r.mmcs, 3)) for r in results])
    whole = sum(r.recovered == 5 and r.mmcs >= 0.99 for r in results)
    assert whole == 6 if (d_sae, weight) == (8, 0.3) else whole >= 3 if d_sae == 5 else whole == 0


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_ladder(seed):
    more: dict[str, Any] = {"n_tokens": 42_000, "steps": 3000, "learning_rate": 3e-3, "seed": seed}
    for weight in (0.3, 0.6, 1.0, 2.0):
        result = rung(6, l1_coefficient=weight, **more)
        print(seed, weight, result)
        assert result.recovered >= 126 and result.mmcs > 0.97
    assert rung(6, l1_coefficient=0.1, **more).recovered < 120
    assert rung(6, skip_first=False, **more).recovered <= 90
    assert rung(6, center=False, **more).recovered >= 126
    assert rung(6, d_sae=16, **more).recovered == 0
    assert rung(6, **more | {"n_tokens": 14}).recovered <= 5
    assert rung(6, **more | {"n_tokens": 500}).recovered >= 115
