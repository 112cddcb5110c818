"""Explained variance and bias: by hand, in every dtype, for one row, constant rows and numbers that are none."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from sae_widget.metrics.base import explained_variance, relative_reconstruction_bias, spread, variance_share
from tests.training_runs import generator

BY_HAND = torch.tensor([[1.0, 0.0, 2.0], [3.0, 4.0, 2.0]]), torch.tensor([[1.0, 1.0, 2.0], [3.0, 2.0, 1.0]])


def some(size: float, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(500, 7, generator=generator(1)) * size + size
    return x.to(dtype), (0.8 * x + 0.3 * size * torch.randn(500, 7, generator=generator(2))).to(dtype)


def by_numpy(x: torch.Tensor, out: torch.Tensor) -> tuple[float, float]:
    a, b = x.double().numpy(), out.double().numpy()
    return 1 - float(np.square(a - b).sum() / np.square(a - a.mean(0)).sum()), float((b * b).sum() / (a * b).sum())


def test_by_hand() -> None:
    x, out = BY_HAND
    assert explained_variance(x, out) == pytest.approx(1 - (1 + 4 + 1) / (1 + 1 + 4 + 4))
    assert relative_reconstruction_bias(x, out) == pytest.approx((1 + 1 + 4 + 9 + 4 + 1) / (1 + 4 + 9 + 8 + 2))
    assert spread(x) == (10.0, 34.0)


@pytest.mark.parametrize("size", [1e-3, 1.0, 1000.0])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_every_dtype_gives_what_its_numbers_are_worth(dtype: torch.dtype, size: float) -> None:
    x, out = some(size, dtype)  # squares of 1,000 are beyond float16, and sums in it have three digits
    share, bias = by_numpy(x, out)
    assert explained_variance(x, out) == pytest.approx(share, rel=1e-4)
    assert relative_reconstruction_bias(x, out) == pytest.approx(bias, rel=1e-4)


def test_whole_numbers_and_two_dtypes_are_taken() -> None:
    x, out = BY_HAND
    assert explained_variance(x.long(), out.long()) == explained_variance(x, out)
    assert explained_variance(x.half(), out.double()) == pytest.approx(explained_variance(x, out))
    assert relative_reconstruction_bias(x.long(), out.long()) == pytest.approx(relative_reconstruction_bias(x, out))


@pytest.mark.parametrize("n", [0, 1])
def test_fewer_than_two_rows_do_not_vary(n: int) -> None:
    x = torch.ones(n, 3)
    assert math.isnan(explained_variance(x, x + 1))
    both = torch.ones(n + 1, 3), torch.zeros(n + 1, 3)
    assert math.isnan(explained_variance(*both, position=torch.arange(n + 1)))
    assert relative_reconstruction_bias(x, x / 2) == 0.5 if n else math.isnan(relative_reconstruction_bias(x, x))


@pytest.mark.parametrize("value", [0.0, 0.1, 1e6, -3e-5])
def test_constant_rows_do_not_vary_whatever_their_rounding(value: float) -> None:
    x = torch.full((1000, 3), value)
    assert math.isnan(explained_variance(x, x + 1))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_number_that_is_none_gives_none(bad: float) -> None:
    x, out = (part.clone() for part in some(1.0, torch.float32))
    out[3, 2] = bad
    found = explained_variance(x, out)
    assert math.isnan(found) or found == -math.inf
    x[3, 2] = bad
    assert math.isnan(explained_variance(x, out)) and math.isnan(relative_reconstruction_bias(x, out))


def test_a_reconstruction_of_nothing_has_no_bias() -> None:
    x, _ = BY_HAND
    assert math.isnan(relative_reconstruction_bias(x, torch.zeros_like(x)))
    across = torch.tensor([[0.0, 1.0, 0.0], [0.0, -1.0, 0.0]])
    assert math.isnan(relative_reconstruction_bias(torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0]]), across))


def test_the_share_at_the_edge_of_rounding() -> None:
    assert variance_share(1.0, 4.0, 1e6) == 0.75
    assert math.isnan(variance_share(1.0, 1e-12, 1.0)) and variance_share(0.0, 1.1e-12, 1.0) == 1.0
    assert math.isnan(variance_share(0.0, 0.0, 0.0)) and math.isnan(variance_share(1.0, math.nan, 1.0))
