"""sae_widget.metrics.truth: the nearest rows against a plain loop, ties, no number, and rows that fire nowhere."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from sae_widget.metrics.truth import best_match, mmcs, recovered, shrinkage


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def by_loop(W_dec: torch.Tensor, directions: torch.Tensor, live: list[int]) -> list[tuple[float, int]]:
    """Largest cosine and its row, in double precision, one pair at a time."""
    found = []
    for true in directions.double():
        cosines = [
            (float(true @ row / (true.norm() * row.norm())) if float(row.norm()) * float(true.norm()) else 0.0, -i)
            for i, row in enumerate(W_dec.double())
            if i in live
        ]
        cosine, i = max(cosines)
        found.append((cosine, -i))
    return found


@pytest.mark.parametrize(("dtype", "far"), [(torch.float32, 1e-6), (torch.float64, 1e-12), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize("shape", [(9, 7, 3), (1, 1, 1), (1, 5, 2), (6, 1, 4), (3, 2500, 2)])
def test_the_nearest_row_is_that_of_a_loop(shape: tuple[int, int, int], dtype: torch.dtype, far: float) -> None:
    d_sae, n_true, d_in = shape
    W_dec = torch.randn(d_in, d_sae, generator=generator(1)).to(dtype).T  # not contiguous
    directions = (50 * torch.randn(n_true, 2 * d_in, generator=generator(2))).to(dtype)[:, ::2]
    wanted = by_loop(W_dec, directions, list(range(d_sae)))
    found = best_match(W_dec, directions)
    assert found.cosine.dtype == torch.promote_types(torch.float32, dtype) and found.feature.dtype == torch.int64
    assert found.cosine.tolist() == pytest.approx([cosine for cosine, _ in wanted], abs=far)
    if dtype != torch.bfloat16:
        assert found.feature.tolist() == [i for _, i in wanted]
        assert mmcs(W_dec, directions) == pytest.approx(sum(c for c, _ in wanted) / n_true, abs=far)
        for threshold in (-1, 0.3, 0.9):
            assert recovered(W_dec, directions, threshold=threshold) == sum(c > threshold for c, _ in wanted)


def test_half_precision_measures_what_has_a_norm() -> None:
    W_dec = torch.tensor([[0.6, 0.8, 0.0], [0.0, 5.0, 5.0]]).half()
    found = best_match(W_dec, torch.tensor([[100.0, 0.0, 0.0], [0.0, 0.5, 0.5]]).half())
    assert found.cosine.tolist() == pytest.approx([0.6, 1.0], abs=2e-3) and found.feature.tolist() == [0, 1]


def test_only_live_rows_are_compared_and_numbers_stay() -> None:
    W_dec = torch.randn(9, 3, generator=generator(3))
    W_dec[4] = math.nan  # of a row that is left out
    live = torch.tensor([True, False, True, False, False, False, True, False, True])
    directions = torch.randn(7, 3, generator=generator(4))
    wanted = by_loop(W_dec, directions, [0, 2, 6, 8])
    found = best_match(W_dec.requires_grad_(), directions, live)
    assert found.cosine.tolist() == pytest.approx([cosine for cosine, _ in wanted], abs=1e-6)
    assert found.feature.tolist() == [i for _, i in wanted] and not found.cosine.requires_grad


def test_rows_and_directions_without_a_length_have_cosine_0() -> None:
    found = best_match(torch.tensor([[-1.0, 0.0], [0.0, 0.0], [0.0, 0.0]]), torch.tensor([[2.0, 0.0], [0.0, 0.0]]))
    assert found.cosine.tolist() == [0.0, 0.0] and int(found.feature[0]) in (1, 2)
    none = best_match(torch.zeros(0, 3), torch.ones(2, 3))
    assert none.cosine.tolist() == [0.0, 0.0] and none.feature.tolist() == [-1, -1]
    assert mmcs(torch.zeros(0, 3), torch.ones(2, 3)) == recovered(torch.zeros(0, 3), torch.ones(2, 3)) == 0


def test_as_much_as_the_threshold_is_not_above_it() -> None:
    rows = torch.eye(3)[:2]
    assert recovered(rows, rows, threshold=1) == 0 and recovered(rows, rows, threshold=0.999) == 2
    assert recovered(-rows[:1], rows[:1], threshold=-1) == 0  # opposite, exactly
    for threshold in (math.nan, math.inf, 1.0001, -1.0001):
        with pytest.raises(ValueError, match="threshold must be between -1 and 1, got"):
            recovered(rows, rows, threshold=threshold)


@pytest.mark.parametrize(
    ("shapes", "live", "error", "words"),
    [
        (((2, 3), (0, 3)), None, ValueError, r"got \[2, 3\] and \[0, 3\]"),
        (((2, 3), (1, 2, 3)), None, ValueError, r"got \[2, 3\] and \[1, 2, 3\]"),
        (((3,), (1, 3)), None, ValueError, r"got \[3\] and \[1, 3\]"),
        (((2, 3), (1, 3)), torch.ones(3, dtype=torch.bool), ValueError, r"live must be \[2\] bool, got \[3\]"),
        (((2, 3), (1, 3)), torch.ones(2, 1, dtype=torch.bool), ValueError, r"live must be \[2\] bool, got \[2, 1\]"),
        (((2, 3), (1, 3)), torch.ones(2), ValueError, r"live must be \[2\] bool, got \[2\] torch.float32"),
        (((2, 3), (1, 3)), [True, False], TypeError, "live must be a torch tensor, got list"),
    ],
)
def test_what_does_not_fit_together_is_refused(
    shapes: tuple[tuple[int, ...], tuple[int, ...]], live: Any, error: type[Exception], words: str
) -> None:
    for measure in (best_match, mmcs, recovered):
        with pytest.raises(error, match=words):
            measure(torch.ones(shapes[0]), torch.ones(shapes[1]), live)


@pytest.mark.parametrize(
    ("dtype", "far"), [(torch.float16, 1e-3), (torch.bfloat16, 1e-2), (torch.float32, 1e-6), (torch.float64, 1e-12)]
)
def test_shrinkage_is_that_of_a_loop(dtype: torch.dtype, far: float) -> None:
    true, acts = (torch.randn(83, 5, generator=generator(seed)).to(dtype) for seed in (5, 6))
    acts[0, 0], acts[1, 0], true[2, 0] = math.nan, -math.inf, math.nan  # none of them fires
    pairs = zip(true.flatten().tolist(), acts.flatten().tolist(), strict=True)
    gaps = [a - f for a, f in pairs if a > 0 and f > 0]
    assert len(gaps) > 50
    assert shrinkage(true, acts) == pytest.approx(sum(gaps) / len(gaps), abs=far)
    assert shrinkage(true.T.contiguous().T, acts) == shrinkage(true, acts)
    assert math.isnan(shrinkage(true[:0], acts[:0])) and math.isnan(shrinkage(true, -acts.abs()))
    with pytest.raises(TypeError, match="feature_acts must be a torch tensor, got list"):
        shrinkage(true, acts.tolist())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_a_row_of_zeros_finds_nothing_and_harms_nobody(dtype: torch.dtype) -> None:
    found = best_match(torch.tensor([[0.0, 0.0], [2.0, 0.0]], dtype=dtype), torch.tensor([[1.0, 0.0]], dtype=dtype))
    assert (found.cosine.tolist(), found.feature.tolist()) == ([1.0], [1])


@pytest.mark.parametrize("size", [1e-30, 1e-13, 1e30])
def test_the_norm_of_a_direction_is_of_no_account(size: float) -> None:
    rows = torch.tensor([[3.0, 4.0], [1.0, 0.0]])
    assert best_match(rows, size * rows).cosine.tolist() == pytest.approx([1.0, 1.0])
    assert best_match(size * rows, rows).cosine.tolist() == pytest.approx([1.0, 1.0])
