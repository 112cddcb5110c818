"""The k largest of each row: numpy's way gives what torch's gives, and ties do not keep more than k."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
import torch._dynamo  # torch imports it at a first use, and that changes warning filters

from sae_widget.training import largest
from sae_widget.training.largest import keep_largest, places, places_of_largest, sorting_is_fast
from sae_widget.training.products import BITS


def kept(pre: torch.Tensor, k: int) -> torch.Tensor:
    out, scratch = torch.full_like(pre, 9.0), torch.full_like(pre, 9.0)
    keep_largest(pre, k, out, scratch)
    return out


def plain(pre: torch.Tensor, k: int) -> torch.Tensor:
    values, indices = pre.topk(k, dim=-1)
    return torch.zeros_like(pre).scatter_(-1, indices, values.relu())


@pytest.fixture(params=[True, False], ids=["sorted", "topk"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    monkeypatch.setattr(largest, "sorting_is_fast", lambda: request.param)
    return bool(request.param)


@pytest.mark.parametrize("k", [1, 3, 16])
def test_it_is_topk_and_relu(way: bool, k: int) -> None:
    pre = torch.randn(300, 16, generator=torch.Generator().manual_seed(k))
    before = pre.clone()
    assert torch.equal(kept(pre, k), plain(pre, k))
    assert torch.equal(pre, before)


def test_rows_with_too_few_positive_numbers(way: bool) -> None:
    pre = torch.tensor([[-1.0, -2.0, -3.0, 0.5], [-1.0, -1.0, -1.0, -1.0], [0.0, 0.0, 0.0, 0.0], [4.0, 3.0, 2.0, 1.0]])
    assert kept(pre, 2).tolist() == [[0, 0, 0, 0.5], [0, 0, 0, 0], [0, 0, 0, 0], [4, 3, 0, 0]]


def test_a_tie_for_the_last_place_keeps_k(way: bool) -> None:
    pre = torch.tensor([[1.0, 2.0, 2.0, 2.0, -1.0], [5.0, 4.0, 3.0, 2.0, 1.0]])
    found = kept(pre, 2)
    assert (found > 0).sum(1).tolist() == [2, 2]
    assert found.sum(1).tolist() == [4.0, 9.0]


def test_the_measurement_answers_once() -> None:
    assert sorting_is_fast() is sorting_is_fast()


@pytest.fixture(params=[1, 3], ids=["one thread", "three threads"])
def threads(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The places are looked for by numpy, a few rows at a time."""
    monkeypatch.setattr(largest, "CHUNK", 7 * 40)
    monkeypatch.setattr(torch, "get_num_threads", lambda: request.param)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("k", [1, 5, 39])
def test_the_places_are_those_of_topk(threads: None, dtype: torch.dtype, k: int) -> None:
    order = torch.stack([torch.randperm(40, generator=torch.Generator().manual_seed(row)) for row in range(50)])
    pre = (order - 15).to(dtype) / 4  # no two of a row are alike, also in bfloat16
    before = threading.active_count()
    found = places_of_largest(pre, k)
    assert found.dtype == torch.int64
    mine = torch.zeros_like(pre)
    mine.view(-1)[found] = pre.view(-1)[found]
    assert torch.equal(mine, plain(pre, k)) and torch.equal(found, found.sort().values)
    assert len(found) == 50 * min(k, 24)  # 24 of 40 are positive
    assert threading.active_count() == before


def test_of_numbers_that_share_the_last_place_every_row_takes_others(threads: None) -> None:
    rows = [
        [3.0, 1.0, 1.0, 1.0],
        [2.0, 2.0, 2.0, 2.0],
        [-1.0, 0.0, -0.0, 5.0],
        [0.0, 0.0, 0.0, 0.0],
        [4.0, 3.0, 2.0, 1.0],
    ]
    found = places_of_largest(torch.tensor(rows), 2)
    assert found.tolist() == [0, 1, 4, 7, 11, 16, 17]
    many = places_of_largest(torch.ones(70, 8), 3)
    assert torch.equal((many // 8).bincount(), torch.full((70,), 3))
    assert int((many % 8).bincount().min()) > 20  # of 70 rows with 3 of 8 each


def test_a_nan_is_the_largest(threads: None) -> None:
    found = places_of_largest(torch.tensor([[1.0, float("nan"), 2.0]]), 1)
    assert found.tolist() == [1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("k", [1, 3])
def test_groups_of_numbers_find_the_same_places(threads: None, dtype: torch.dtype, k: int) -> None:
    g, d_sae = torch.Generator().manual_seed(k), largest.GROUP * largest.FEW_GROUPS * k
    bits_of = {torch.float32: np.dtype("int32"), torch.bfloat16: np.dtype("int16")}[dtype]
    grouped, whole = (largest.Divided(60, d_sae, k, bits_of) for _ in range(2))
    assert grouped.in_groups
    whole.in_groups, whole.some = False, np.empty((60, d_sae), bits_of)
    spread = torch.cat([torch.full((40, 1), 4.0), torch.full((20, 1), 0.01)])  # many alike, in bfloat16 even more
    pre = (torch.randn(60, d_sae, generator=g) * spread).round(decimals=1).to(dtype)
    pre[7] = -1.0  # nothing fires
    pre[8, 1:] = -1.0
    pre[8, 0] = 2.0  # less than k fire
    found = places_of_largest(pre, k)
    mine = torch.zeros_like(pre)
    mine.view(-1)[found] = pre.view(-1)[found]
    assert torch.equal(mine.sort(1).values, plain(pre, k).sort(1).values)  # the same numbers; those alike elsewhere
    assert torch.equal(found, found.sort().values)
    bits = pre.view(BITS[dtype]).numpy()
    assert grouped.places(bits).tolist() == whole.places(bits).tolist()  # also of those alike


def test_places_are_nonzero() -> None:
    true = torch.rand(1000, generator=torch.Generator().manual_seed(0)) > 0.9
    assert torch.equal(places(true), true.nonzero()[:, 0])
