"""sae_widget.sae.standard: ReLU in every number format, what is no number, and the paper's formula in numpy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from sae_widget.config import TrainConfig
from sae_widget.sae.base import REGISTRY, trainable
from sae_widget.sae.standard import StandardSAE
from tests.training_runs import generator


def an_sae(dtype: torch.dtype = torch.float32, d_in: int = 4, d_sae: int = 7, **changes: Any) -> StandardSAE:
    g = generator(1)
    shapes = (d_in, d_sae), (d_sae,), (d_sae, d_in), (d_in,)
    return StandardSAE(*(torch.randn(shape, generator=g).to(dtype) for shape in shapes), **changes)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_what_is_above_zero_stays_as_it_is(dtype: torch.dtype) -> None:
    given = [[-3.0, -0.25, 0.0, -0.0, 0.0078125, 2.0, 9.0]]
    hidden_pre = torch.tensor(given, dtype=dtype)
    acts = an_sae().activate(hidden_pre)
    assert acts.tolist() == [[0.0, 0.0, 0.0, 0.0, 0.0078125, 2.0, 9.0]] and acts.dtype == dtype
    assert hidden_pre.tolist() == given


def test_the_smallest_number_above_zero_fires() -> None:
    least = torch.nextafter(torch.tensor(0.0), torch.tensor(1.0))
    assert an_sae().activate(torch.stack([least, -least])[None]).tolist() == [[float(least), 0.0]]


def test_what_is_no_number_is_kept_and_infinitely_little_is_nothing() -> None:
    found = an_sae().activate(torch.tensor([[-math.inf, math.nan, math.inf]]))
    assert found[0, 0] == 0 and found[0, 1].isnan() and found[0, 2] == math.inf


def test_what_overflows_below_in_half_precision_is_nothing() -> None:
    ones = torch.ones(4, 3, dtype=torch.float16)
    sae = StandardSAE(ones, torch.zeros(3).half(), ones.t().contiguous(), torch.tensor([1.0, 2.0, 3.0, 4.0]).half())
    x = torch.full((2, 4), -30_000.0, dtype=torch.float16)
    assert bool(sae.hidden_pre(x).isneginf().all())
    assert sae.encode(x).tolist() == [[0.0] * 3] * 2 and sae(x).tolist() == [[1.0, 2.0, 3.0, 4.0]] * 2


@pytest.mark.parametrize("apply_b_dec_to_input", [True, False])
@pytest.mark.parametrize("scale", [1.0, 0.25])
def test_encode_and_decode_are_the_formulas(apply_b_dec_to_input: bool, scale: float) -> None:
    sae = an_sae(torch.float64, scale=scale, apply_b_dec_to_input=apply_b_dec_to_input)
    x = torch.randn(20, 4, generator=generator(2), dtype=torch.float64)
    W_enc, b_enc, W_dec, b_dec = (part.numpy() for part in (sae.W_enc, sae.b_enc, sae.W_dec, sae.b_dec))
    read = scale * x.numpy() - (b_dec if apply_b_dec_to_input else 0.0)
    acts = np.maximum(0.0, np.einsum("pi,if->pf", read, W_enc) + b_enc)
    assert 20 < (acts > 0).sum() < 120
    np.testing.assert_allclose(sae.encode(x).numpy(), acts, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(sae.encode_one(x, 5).numpy(), acts[:, 5], rtol=1e-12, atol=1e-12)
    out = (np.einsum("pf,fi->pi", acts, W_dec) + b_dec) / scale
    np.testing.assert_allclose(sae(x).numpy(), out, rtol=1e-12, atol=1e-12)


def test_one_feature_is_read_without_the_others() -> None:
    sae, x = an_sae(), torch.randn(5, 4, generator=generator(2))
    feature = int(sae.encode(x).sum(0).argmax())
    wanted = sae.encode(x)[:, feature]
    sae.W_enc[:, torch.arange(7) != feature] = math.nan
    assert torch.allclose(sae.encode_one(x, feature), wanted, atol=1e-6) and bool(wanted.any())


@pytest.mark.parametrize(("d_in", "d_sae", "n"), [(1, 1, 3), (4, 1, 2), (1, 7, 2), (4, 7, 0), (1, 1, 0)])
def test_one_feature_one_dimension_or_no_token(d_in: int, d_sae: int, n: int) -> None:
    sae, x = an_sae(d_in=d_in, d_sae=d_sae), torch.randn(n, d_in, generator=generator(2))
    acts = [
        [max(0.0, sum(float((x[p] - sae.b_dec)[i] * sae.W_enc[i, f]) for i in range(d_in)) + float(sae.b_enc[f]))
         for f in range(d_sae)]
        for p in range(n)
    ]  # fmt: skip
    assert sae.encode(x).shape == (n, d_sae) and sae(x).shape == (n, d_in) and sae.encode_one(x, 0).shape == (n,)
    assert torch.allclose(sae.encode(x), torch.tensor(acts).reshape(n, d_sae), atol=1e-5)


@pytest.mark.parametrize("l1_coefficient", [0.0, 1.0, 1e6])
def test_the_training_rule_overwrites_its_buffer_and_the_penalty_is_not_its_business(l1_coefficient: float) -> None:
    hidden_pre = torch.tensor([[-2.0, 0.0, 3.0, math.inf], [0.5, -math.inf, -0.5, 1.0]])
    acts = torch.full((2, 8), math.nan)[:, ::2]  # of a wider buffer, full of what was there before
    config = TrainConfig(architecture="standard", d_sae=4, l1_coefficient=l1_coefficient)
    StandardSAE.fire(hidden_pre, acts, config)
    assert acts.tolist() == [[0.0, 0.0, 3.0, math.inf], [0.5, 0.0, 0.0, 1.0]]
    assert hidden_pre.tolist() == [[-2.0, 0.0, 3.0, math.inf], [0.5, -math.inf, -0.5, 1.0]]


def test_it_is_trained_by_that_rule_and_a_file_says_nothing_more_of_it() -> None:
    assert trainable("standard") is REGISTRY["standard"] is StandardSAE
    assert StandardSAE.elementwise and not StandardSAE.trains_apart and not StandardSAE.revives_dead
    assert an_sae().config_fields() == {} and StandardSAE.vectors == ()
