"""The k largest of each row: numpy's way gives what torch's gives, and ties do not keep more than k."""

from __future__ import annotations

import pytest
import torch

from sae_widget.training import largest
from sae_widget.training.largest import keep_largest, sorting_is_fast


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
