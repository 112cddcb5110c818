"""The products of a step in both precisions: against float64, and counts that are exact at every size."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from sae_widget.config import TrainConfig
from sae_widget.training import products
from sae_widget.training.base import Flat
from sae_widget.training.products import BFloat16, Float32, rows_above_zero, wants_bfloat16
from tests.training_runs import generator

D_IN, D_SAE, BATCH = 5, 12, 7
BOTH = pytest.mark.parametrize("kind", [Float32, BFloat16])


def made(kind: type[Float32], batch: int = BATCH) -> tuple[Float32, Flat]:
    params = Flat(D_IN, D_SAE)
    params.vector.normal_(generator=generator(1))
    return kind(params, batch), params


def close(found: torch.Tensor, wanted: torch.Tensor, kind: type[Float32]) -> None:
    """Near in all, and nearer in float32."""
    atol = 1e-5 if kind is Float32 else 2e-2 * float(wanted.abs().max())
    torch.testing.assert_close(found.double(), wanted, atol=atol, rtol=0)


@BOTH
@pytest.mark.parametrize("n", [1, 4, BATCH])
def test_each_product_is_that_of_float64(kind: type[Float32], n: int) -> None:
    does, p = made(kind)
    u, target, grad = (torch.randn(n, D_IN, generator=generator(seed)) for seed in (2, 3, 4))
    wide = torch.randn(n, D_SAE, generator=generator(5)).to(kind.dtype)
    nan = torch.full((n, D_SAE), torch.nan)  # what was there before must not matter
    encoded, back = (torch.full_like(nan, torch.nan, dtype=kind.dtype) for _ in range(2))
    decoded, outer, columns = nan[:, :D_IN].clone(), torch.full((D_SAE, D_IN), torch.nan), nan[0].clone()
    does.encode(does.rounded(u), encoded)
    does.decode(wide, target, decoded)
    rounded = does.rounded(grad)
    does.back(rounded, back)
    does.outer(wide, rounded, outer)
    does.columns(wide, columns)
    w = wide.double()
    close(encoded, u.double() @ p.W_enc.double().t() + p.b_enc.double(), kind)
    close(decoded, w @ p.W_dec.double() - target.double(), kind)
    close(back, grad.double() @ p.W_dec.double().t(), kind)
    close(outer, w.t() @ grad.double(), kind)
    close(columns, w.sum(0), kind)
    assert does.total(wide) == pytest.approx(float(w.sum()), abs=1e-5 if kind is Float32 else 0.1)


def test_two_rounded_inputs_are_good_at_once() -> None:
    does, _ = made(BFloat16)
    first, second, third = (torch.full((n, D_IN), float(n)) for n in (2, 3, 4))
    kept, other = does.rounded(first), does.rounded(second)
    assert bool((kept == 2).all()) and bool((other == 3).all()) and kept.dtype == torch.bfloat16
    assert bool((does.rounded(third) == 4).all()) and bool((other == 3).all())


@BOTH
@pytest.mark.parametrize("by", ["bits", "sums"])
@pytest.mark.parametrize("n", [1, 2, 127, 128, 129, 255, 256, 257, 511, 513, 1024])
def test_counts_are_exact(kind: type[Float32], by: str, n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "COUNTED", 0 if by == "bits" else 2**40)
    does, _ = made(kind, n)
    acts = torch.rand(n, D_SAE, generator=generator(n)).add_(0.1)
    acts[torch.rand(n, D_SAE, generator=generator(n + 1)) < 0.4] = 0.0
    acts[:, 0], acts[:, 1] = 0.0, torch.finfo(torch.float32).tiny  # none, and all by the smallest
    acts = acts.to(kind.dtype)
    found = does.count(acts, torch.empty_like(acts))
    assert found.dtype == torch.float32
    assert found.tolist() == [sum(value > 0 for value in column) for column in acts.t().tolist()]


def test_what_is_not_above_zero_is_not_counted_by_its_bits() -> None:
    tiny = torch.finfo(torch.float32).tiny
    acts = torch.tensor([[0.0, -0.0, -1.0, -torch.inf, tiny, torch.inf, -tiny, 1e-45]])
    assert rows_above_zero(acts).tolist() == [0, 0, 0, 0, 1, 1, 0, 1]
    assert rows_above_zero(torch.empty(0, 3)).tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("changes", "batch", "fast", "wanted"),
    [
        ({"precision": "float32"}, 2**20, True, False),
        ({"precision": "bfloat16"}, 1, False, True),
        ({}, 2**10, True, True),  # 2^10 rows of 2^6, 2^8 features: just large enough
        ({}, 2**10 - 1, True, False),
        ({}, 2**10, False, False),
    ],
)
def test_which_precision_a_run_takes(
    changes: dict[str, Any], batch: int, fast: bool, wanted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(products, "bfloat16_is_fast", lambda device: fast)
    assert wants_bfloat16(TrainConfig(d_sae=2**8, k=2, **changes), 2**6, batch) is wanted


@pytest.mark.parametrize(("seconds", "wanted"), [([3.1, 2.0], True), ([3.0, 2.0], False), ([1.0, 2.0], False)])
def test_bfloat16_must_be_much_faster(seconds: list[float], wanted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "seconds_of", lambda *ways: [way() for way in ways] and seconds)
    products.bfloat16_is_fast.cache_clear()
    try:
        assert products.bfloat16_is_fast() is wanted
    finally:
        products.bfloat16_is_fast.cache_clear()
