"""Which tokens are trained on, by hand and by a loop; empty texts, one row, and sizes at the edges."""

from __future__ import annotations

import math
import statistics

import pytest
import torch

from sae_widget.training import filters
from sae_widget.training.filters import held_out, held_out_of_block, norm_cutoff, seeded, split, window_numbers
from tests.training_runs import generator

NONE = torch.empty(0, dtype=torch.int64)


@pytest.mark.parametrize("n", [0, 1, 3, 4, 9])
def test_norms_in_pieces_are_norms(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filters, "NORM_ROWS", 4)
    values = torch.randn(n, 3, generator=generator())
    found = filters.norms_of(values)
    assert found.shape == (n,)
    assert found.tolist() == pytest.approx([math.hypot(*row) for row in values.tolist()], rel=1e-6)


def test_the_cutoff_is_a_multiple_of_the_median_behind_position_0() -> None:
    norms = [500.0, 1.0, 4.0, 2.0, 900.0, 8.0, 16.0]
    values = torch.zeros(7, 3)
    values[:, 1] = torch.tensor(norms)
    position = torch.tensor([0, 1, 2, 3, 0, 1, 2])
    assert norm_cutoff(values, position, 2.5) == 2.5 * statistics.median_low([1, 4, 2, 8, 16])
    assert norm_cutoff(-values, position, 1e-3) == pytest.approx(4e-3)


@pytest.mark.parametrize(
    ("values", "position", "multiple"),
    [
        (torch.ones(4, 3), torch.arange(4), 0.0),
        (torch.ones(4, 3), torch.zeros(4, dtype=torch.int64), 2.0),  # nothing behind position 0
        (torch.zeros(4, 3), torch.arange(4), 2.0),  # a median of 0
        (torch.full((4, 3), math.nan), torch.arange(4), 2.0),
        (torch.empty(0, 3), NONE, 2.0),
    ],
)
def test_without_a_median_every_norm_is_taken(values: torch.Tensor, position: torch.Tensor, multiple: float) -> None:
    assert norm_cutoff(values, position, multiple) == math.inf


@pytest.mark.parametrize(
    ("position", "wanted"),
    [
        ([], []),
        ([0], [0]),
        ([5], [0]),
        ([0, 1, 2, 0, 0, 1], [0, 0, 0, 1, 2, 2]),
        ([3, 4, 0, 1, 0], [0, 0, 1, 1, 2]),  # the end of a window comes first
        ([1, 1, 1], [0, 1, 2]),  # no text
    ],
)
def test_windows_by_hand(position: list[int], wanted: list[int]) -> None:
    assert window_numbers(torch.tensor(position, dtype=torch.int64)).tolist() == wanted


@pytest.mark.parametrize(
    ("n_windows", "share", "wanted"),
    [(2, 0.5, 1), (2, 1e-9, 1), (3, 0.5, 2), (5, 0.1, 1), (7, 0.3, 2), (40, 0.25, 10), (2, 1.0, 1), (5, 1.0, 4)],
)
def test_so_many_windows_are_held_out_whole(n_windows: int, share: float, wanted: int) -> None:
    position = torch.arange(3).repeat(n_windows)
    found = held_out(position, share, seed=4)
    assert found.dtype == torch.bool and found.shape == position.shape
    windows = found.view(n_windows, 3)
    assert bool((windows == windows[:, :1]).all()) and int(windows[:, 0].sum()) == wanted
    assert torch.equal(found, held_out(position, share, seed=4))


def test_every_window_is_held_out_by_some_seed() -> None:
    position = torch.arange(3).repeat(5)
    chosen = torch.stack([held_out(position, 0.2, seed)[::3] for seed in range(60)])
    assert (chosen.sum(1) == 1).all() and (chosen.sum(0) > 0).all()


@pytest.mark.parametrize(("position", "count"), [([], 0), ([0, 1, 2], 1), ([7, 8], 2)])
def test_one_window_cannot_be_divided(position: list[int], count: int) -> None:
    given = torch.tensor(position, dtype=torch.int64)
    assert held_out(given, 0.0, 0).tolist() == [False] * len(position)
    if count < 2:
        with pytest.raises(ValueError, match=f"0.25 needs at least 2 texts or windows, there is {count}. Nothing was"):
            held_out(given, 0.25, 0)
    else:
        assert sorted(held_out(given, 0.25, 0).tolist()) == [False, True]


def test_a_block_draws_for_each_of_its_windows() -> None:
    position = torch.arange(2).repeat(4000)
    found = held_out_of_block(position, 0.3, 7, 5).view(-1, 2)
    assert torch.equal(found[:, 0], found[:, 1])
    assert int(found[:, 0].sum()) == pytest.approx(1200, abs=120)  # four standard deviations
    assert not torch.equal(found.view(-1), held_out_of_block(position, 0.3, 7, 6))
    assert not torch.equal(found.view(-1), held_out_of_block(position, 0.3, 8, 5))
    assert torch.equal(found.view(-1), held_out_of_block(position, 0.3, 7, 5))
    assert held_out_of_block(NONE, 0.3, 7, 5).shape == (0,)
    assert not held_out_of_block(position, 0.0, 7, 5).any()


@pytest.mark.parametrize("skip_first", [False, True])
@pytest.mark.parametrize("cutoff", [math.inf, 3.0])
def test_the_split_is_that_of_a_loop(skip_first: bool, cutoff: float) -> None:
    n = 211
    values = torch.zeros(n, 3)
    values[:, 2] = 4 * torch.rand(n, generator=generator(1))
    values[5, 2] = 3.0  # on the cutoff: that is not above it
    position = torch.arange(n) % 7
    held = torch.rand(n, generator=generator(2)) < 0.3
    held[5] = False
    kept, validated, counts = [], [], [0, 0, 0]
    for row in range(n):
        first, outlier = position[row] == 0, position[row] != 0 and values[row, 2] > cutoff
        if skip_first and first:
            counts[0] += 1
        elif outlier:
            counts[1] += 1
        elif held[row]:
            counts[2] += 1
        else:
            kept.append(row)
        if held[row] and not first and not outlier:
            validated.append(row)
    found = split(values, position, held, skip_first=skip_first, cutoff=cutoff)
    assert (found[0].tolist(), found[1].tolist(), found[2]) == (kept, validated, counts)
    assert 5 in kept and sum(counts) + len(kept) == n


def test_the_split_of_nothing() -> None:
    found = split(torch.empty(0, 3), NONE, torch.empty(0, dtype=torch.bool), skip_first=True, cutoff=1.0)
    assert [part.tolist() for part in found[:2]] == [[], []] and found[2] == [0, 0, 0]


def test_near_numbers_have_far_seeds() -> None:
    rows = [(a, b) for a in range(20) for b in range(20)] + [(0,), (1,), (2**64,), (2**64 - 1,), ()]
    drawn = {tuple(torch.rand(2, generator=seeded(*row)).tolist()) for row in rows}
    assert len(drawn) == len(rows) - 1  # 2**64 is 0 there
    assert torch.rand(1, generator=seeded(2**64)) == torch.rand(1, generator=seeded(0))
