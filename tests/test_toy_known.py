"""Synthetic activations: put together again from their parts, with seeds and sizes of every kind."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
import torch._dynamo  # torch imports it at a first use, and that changes warning filters

from sae_widget.toy import ToyConfig, known, toy_data


def parts_of(config: ToyConfig, n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """What the values are without a mean and noise, and what is left."""
    data = toy_data(config, n)
    made = data.acts @ data.directions
    return made, data.values - made


@pytest.mark.parametrize("chunk", [1, 50, 4_000_000])
def test_values_are_their_features_and_one_mean(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known, "CHUNK", chunk)
    _, left = parts_of(ToyConfig(n_features=9, d_in=5, probability=0.4, mean_norm=3.0), 31)
    torch.testing.assert_close(left, left[:1].expand(31, -1), atol=1e-5, rtol=0)
    assert left.norm(dim=1).tolist() == pytest.approx([3.0] * 31, rel=1e-5)


def test_without_a_mean_nothing_is_left() -> None:
    made, left = parts_of(ToyConfig(n_features=1, d_in=1, probability=1.0, low=1.0, high=2.0), 1)
    assert left.tolist() == [[0.0]] and 1 <= abs(float(made)) < 2


@pytest.mark.parametrize("window", [1, 3, 40])
def test_the_first_of_each_window_is_the_outlier(window: int) -> None:
    data = toy_data(ToyConfig(n_features=9, d_in=5, probability=1.0, outlier_norm=50.0, window=window), 17)
    first = torch.arange(17) % window == 0
    assert torch.equal(data.position == 0, first)
    outliers = data.values[first]
    assert outliers.norm(dim=1).tolist() == pytest.approx([50.0] * int(first.sum()), rel=1e-5)
    assert torch.equal(outliers, outliers[:1].expand_as(outliers)) and not data.acts[first].any()
    assert data.l0 == (9.0 if window > 1 else 0.0)


@pytest.mark.parametrize(("probability", "l0"), [(0.0, 0.0), (1.0, 9.0)])
def test_features_that_are_never_or_always_on(probability: float, l0: float) -> None:
    data = toy_data(ToyConfig(n_features=9, d_in=5, probability=probability, low=2.0, high=3.0), 40)
    assert data.l0 == l0
    on = data.acts[data.acts > 0]
    assert len(on) == 40 * l0 and bool(((on >= 2) & (on <= 3)).all())


@pytest.mark.parametrize("n_features", [1, 4, 5])
def test_directions_at_right_angles(n_features: int) -> None:
    directions = toy_data(ToyConfig(n_features=n_features, d_in=5, orthogonal=True), 1).directions
    torch.testing.assert_close(directions @ directions.T, torch.eye(n_features), atol=1e-6, rtol=0)


@pytest.mark.parametrize("seed", [0, 1, 2**32, 2**63, 2**64 - 1, 10**30])
@pytest.mark.parametrize("sample_seed", [0, -1, 2**64, -(10**30)])
def test_every_seed_is_taken_and_gives_its_own(seed: int, sample_seed: int) -> None:
    config = ToyConfig(n_features=9, d_in=5, probability=0.5, seed=seed)
    data, again = (toy_data(config, 20, sample_seed=sample_seed) for _ in range(2))
    assert torch.equal(data.values, again.values)
    other = toy_data(dataclasses.replace(config, seed=seed + 1), 20, sample_seed=sample_seed)
    assert not torch.equal(data.acts, other.acts) and not torch.equal(data.directions, other.directions)
    held_out = data.held_out()
    assert torch.equal(held_out.directions, data.directions) and not torch.equal(held_out.acts, data.acts)


def test_the_numbers_of_small_seeds_stay_what_they_were() -> None:
    data = toy_data(ToyConfig(seed=3), 7, sample_seed=5)
    generator = torch.Generator().manual_seed((4 * 1_000_003 + 5) ^ 0x70DA7A)
    on = torch.rand(7, 64, generator=generator) < 0.05
    assert torch.equal(data.acts > 0, on & (data.acts != 0)) and int(on.sum()) == int((data.acts > 0).sum()) > 0


@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        ({"seed": -1}, ValueError, "seed must be at least 0, got -1"),
        ({"noise": float("nan")}, ValueError, "noise must be at least 0, got nan"),
        ({"high": float("inf")}, ValueError, "high must be at least 0, got inf"),
        ({"probability": 1.0000001}, ValueError, "probability must be between 0 and 1"),
        ({"low": 1.0}, ValueError, r"high must be above low \(1\), got 1"),
        ({"d_in": True}, TypeError, "d_in must be a whole number, got True"),
        ({"window": 2.0}, TypeError, "window must be a whole number, got 2.0"),
        ({"outlier_norm": 1e-9}, ValueError, "outlier_norm needs a window"),
    ],
)
def test_what_cannot_be_made_is_refused(changes: dict[str, Any], kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        ToyConfig(**changes)
