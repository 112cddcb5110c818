"""sae_widget.metrics.firing: counts against plain ones, other dtypes, and shares that are none."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from sae_widget.metrics.firing import dead_count, feature_frequency, frequency_histogram, l0


@pytest.fixture(params=[torch.float16, torch.bfloat16, torch.float64])
def default_dtype(request: pytest.FixtureRequest) -> Iterator[torch.dtype]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(request.param)
    yield request.param
    torch.set_default_dtype(before)


def some_acts(n: int = 37, d_sae: int = 5) -> torch.Tensor:
    return torch.randn(n, d_sae, generator=torch.Generator().manual_seed(1), dtype=torch.float32)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.bool])
def test_firing_is_counted_in_every_dtype_and_layout(dtype: torch.dtype) -> None:
    acts = some_acts().clamp_min(0).ceil().to(dtype)
    counts = [sum(row[i] > 0 for row in acts.tolist()) for i in range(5)]
    for given in (acts, acts.T.contiguous().T, acts.repeat_interleave(2, 0)[::2]):
        assert l0(given) == pytest.approx(sum(counts) / 37, rel=1e-12)
        found = feature_frequency(given)
        assert found.dtype == torch.float32 and found.tolist() == pytest.approx([n / 37 for n in counts], rel=1e-6)


def test_the_default_dtype_of_a_person_changes_nothing(default_dtype: torch.dtype) -> None:
    acts = torch.zeros(70_000, 3, dtype=torch.float32)
    acts[:69_999, 0], acts[0, 1] = 1.0, 1.0
    found = feature_frequency(acts)
    assert torch.get_default_dtype() == default_dtype and found.dtype == torch.float32
    assert found.tolist() == pytest.approx([69_999 / 70_000, 1 / 70_000, 0.0], rel=1e-6)
    assert l0(acts) == 1.0 and dead_count(found) == 1
    assert frequency_histogram(found, n_bins=2, low=-6.0).counts.tolist() == [1, 1]


def test_what_is_above_0_fires_and_nothing_else() -> None:
    tiny = torch.finfo(torch.float32).tiny
    acts = torch.tensor([[math.nan, -0.0, 0.0, -math.inf, math.inf, tiny, -tiny]])
    assert l0(acts) == 2.0
    assert feature_frequency(acts).tolist() == [0, 0, 0, 0, 1, 1, 0]
    assert dead_count(feature_frequency(acts)) == 5


def test_without_a_feature_there_is_nothing_to_count() -> None:
    assert l0(torch.zeros(3, 0)) == 0.0
    assert feature_frequency(torch.zeros(3, 0)).shape == (0,)
    assert dead_count([]) == dead_count(torch.zeros(0)) == 0


@pytest.mark.parametrize(
    "frequency",
    [
        [0.0, -0.0, 1.0, 5e-324],
        (0, 0, 1, 1),
        np.array([False, False, True, True]),
        np.array([0, 0.5, 0, 1], np.float16),
        np.array([0.0, 9.0, 0.0, 9.0, 0.5, 9.0, 1.0, 9.0])[::2],
        torch.tensor([0.0, 0.0, 0.25, 1.0], dtype=torch.float16),
        torch.tensor([0.0, 0.0, 0.25, 1.0], requires_grad=True),
        torch.tensor([[0.0, 0.5], [0.25, 0.5], [0.0, 0.5], [1.0, 0.5]])[:, 0],
    ],
)
def test_shares_may_come_in_any_form(frequency: Any) -> None:
    assert dead_count(frequency) == 2
    assert frequency_histogram(frequency).share_zero == 0.5
    assert frequency_histogram(frequency).counts.sum() == 2


@pytest.mark.parametrize(
    ("frequency", "words"),
    [
        (0.5, r"frequency must be \[d_sae\], got shape \[\]"),
        ([[]], r"frequency must be \[d_sae\], got shape \[1, 0\]"),
        ([0.5, -5e-324], "between 0 and 1, got -4.94066e-324 for feature 1"),
        ([0.5, math.inf, math.nan], "between 0 and 1, got inf for feature 1"),
        ([0.5] * 1234 + [2], "got 2 for feature 1,234"),
        (torch.tensor([-math.inf]), "got -inf for feature 0"),
    ],
)
def test_what_is_no_share_is_refused(frequency: Any, words: str) -> None:
    for use in (dead_count, frequency_histogram):
        with pytest.raises(ValueError, match=words):
            use(frequency)


def test_a_histogram_counts_as_a_loop_does() -> None:
    shares = 10 ** (-9 * torch.rand(500, generator=torch.Generator().manual_seed(2), dtype=torch.float64))
    shares[::7] = 0.0
    found = frequency_histogram(shares, n_bins=11, low=-5.5)
    counts = [0] * 11
    for share in shares.tolist():
        if share > 0:
            counts[min(10, max(0, math.floor((math.log10(share) + 5.5) / 0.5)))] += 1
    assert found.counts.tolist() == counts and found.counts.dtype == np.int64
    assert found.edges.tolist() == pytest.approx([-5.5 + 0.5 * i for i in range(12)]) and found.edges[-1] == 0.0
    assert found.share_zero == 72 / 500


def test_absurd_bins() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert frequency_histogram([5e-324, 1.0], n_bins=1).counts.tolist() == [2]
        assert frequency_histogram([5e-324, 1.0, 0.0], n_bins=3, low=-1e308).counts.tolist() == [0, 0, 2]
        assert frequency_histogram([0.5, 1.0], n_bins=4, low=-1e-17).counts.tolist() == [1, 0, 0, 1]
        many = frequency_histogram([0.5], n_bins=100_000)
    assert len(many.edges) == 100_001 and many.counts.sum() == 1
    for low in (math.nan, -math.inf, math.inf, 5e-324):
        with pytest.raises(ValueError, match="low must be below 0, got"):
            frequency_histogram([0.5], low=low)
    with pytest.raises(ValueError, match="n_bins must be at least 1, got -3"):
        frequency_histogram([0.5], n_bins=-3)
    with pytest.raises(TypeError):
        frequency_histogram([0.5], n_bins=2.5)  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_shares_of_every_precision_are_counted(dtype: torch.dtype) -> None:
    shares = torch.tensor([0.0, 0.5, 0.25], dtype=dtype)
    assert dead_count(shares) == 1 and frequency_histogram(shares, 2, -1.0).counts.tolist() == [1, 1]


@pytest.mark.parametrize(("low", "n_bins"), [(-7.0, 28), (-7.0, 7), (-3.0, 30), (-5.0, 50), (-6.0, 9), (-7.0, 70)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_share_on_an_edge_is_in_the_bin_behind_it(dtype: torch.dtype, low: float, n_bins: int) -> None:
    # In float32 1/100 is 0.0099999998: a little before the edge at -2.
    for power in range(int(low), 0):
        at = (power - low) * n_bins / -low
        if at != round(at):
            continue
        share = torch.tensor([10.0**power], dtype=torch.float64).to(dtype)
        for given in (share, share.double(), share.numpy()):
            counts = frequency_histogram(given, n_bins, low).counts
            assert counts.tolist().index(1) == round(at) and counts.sum() == 1, power
    counted = feature_frequency(torch.cat([torch.ones(1, 2), torch.zeros(99, 2)]))
    assert frequency_histogram(counted, 4, -4.0).counts.tolist() == [0, 0, 2, 0]


def test_a_share_that_is_truly_less_stays_before_the_edge() -> None:
    shares = [0.01 * (1 - 1e-6), 0.01, 0.01 * (1 + 1e-6), 99_999 / 10_000_000]
    assert frequency_histogram(shares, 4, -4.0).counts.tolist() == [0, 2, 2, 0]
