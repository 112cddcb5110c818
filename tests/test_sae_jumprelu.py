"""sae_widget.sae.jumprelu: each feature's own threshold, strictly exceeded; what is equal to it; what is none."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sae_widget.checkpoint import load_sae, save_sae
from sae_widget.config import TrainConfig
from sae_widget.sae.base import REGISTRY, trainable
from sae_widget.sae.batchtopk import BatchTopKSAE
from sae_widget.sae.jumprelu import JumpReLUSAE
from sae_widget.sae.standard import StandardSAE
from tests.training_runs import generator

THRESHOLD = [0.0, 0.5, 0.5, 2.0, 1.0, 0.25, 100.0]


def an_sae(dtype: torch.dtype = torch.float32, threshold: Any = THRESHOLD, **changes: Any) -> JumpReLUSAE:
    g, d_sae = generator(1), len(threshold)
    shapes = (4, d_sae), (d_sae,), (d_sae, 4), (4,)
    parts = (torch.randn(shape, generator=g).to(dtype) for shape in shapes)
    return JumpReLUSAE(*parts, threshold=torch.as_tensor(threshold).to(dtype), **changes)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_what_exceeds_its_own_threshold_keeps_its_full_size(dtype: torch.dtype) -> None:
    rows = [
        [0.0, 0.5, 0.5078125, 2.0, 1.0078125, -0.25, 128.0],
        [0.0078125, 9.0, 0.25, 3.0, 0.5, 0.5, 99.0],
        [-1.0, -0.5078125, -9.0, -2.5, -1.5, -0.5, -128.0],
    ]
    hidden_pre = torch.tensor(rows, dtype=dtype)
    acts = an_sae(dtype).activate(hidden_pre)
    assert acts.tolist() == [
        [0.0, 0.0, 0.5078125, 0.0, 1.0078125, 0.0, 128.0],
        [0.0078125, 9.0, 0.0, 3.0, 0.0, 0.5, 0.0],
        [0.0] * 7,
    ]
    assert acts.dtype == dtype and hidden_pre.tolist() == rows


def test_at_the_threshold_it_does_not_fire_and_the_next_number_does() -> None:
    threshold = torch.tensor([0.0, 1e-30, 0.1, 12345.678])
    above, below = (torch.nextafter(threshold, torch.tensor(end)) for end in (math.inf, -math.inf))
    acts = an_sae(threshold=threshold).activate(torch.stack([below, threshold, above]))
    assert acts.tolist() == [[0.0] * 4, [0.0] * 4, above.tolist()]


@pytest.mark.parametrize("apply_b_dec_to_input", [True, False])
def test_encode_and_decode_are_the_formulas(apply_b_dec_to_input: bool) -> None:
    sae = an_sae(torch.float64, scale=0.5, apply_b_dec_to_input=apply_b_dec_to_input)
    x = 4 * torch.randn(30, 4, generator=generator(2), dtype=torch.float64)
    W_enc, b_enc, W_dec, b_dec = (part.numpy() for part in (sae.W_enc, sae.b_enc, sae.W_dec, sae.b_dec))
    z = np.einsum("pi,if->pf", 0.5 * x.numpy() - (b_dec if apply_b_dec_to_input else 0.0), W_enc) + b_enc
    acts = z * np.heaviside(z - np.array(THRESHOLD), 0.0)  # z H(z - threshold)
    assert ((z > 0) & (acts == 0)).any() and (acts > 0).any() and not acts[:, 6].any()
    np.testing.assert_allclose(sae.encode(x).numpy(), acts, rtol=1e-12, atol=1e-12)
    for feature in (0, 3, 6):
        np.testing.assert_allclose(sae.encode_one(x, feature).numpy(), acts[:, feature], rtol=1e-12, atol=1e-12)
    out = (np.einsum("pf,fi->pi", acts, W_dec) + b_dec) / 0.5
    np.testing.assert_allclose(sae(x).numpy(), out, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("level", [0.0, 0.75])
def test_with_one_threshold_for_all_it_is_a_relu_or_a_trained_batchtopk(level: float) -> None:
    sae = an_sae(threshold=[level] * 7)
    parts, x = (sae.W_enc, sae.b_enc, sae.W_dec, sae.b_dec), torch.randn(30, 4, generator=generator(2))
    assert torch.equal(sae.encode(x), BatchTopKSAE(*parts, k=2, threshold=level).encode(x))
    relu = StandardSAE(*parts)
    assert torch.equal(sae.encode(x), relu.encode(x)) == (level == 0.0)
    assert torch.equal(sae(x), relu(x)) == (level == 0.0)


def test_a_higher_threshold_takes_away_and_shrinks_nothing() -> None:
    sae, x = an_sae(), torch.randn(30, 4, generator=generator(2))
    before, after = sae.encode(x), replace(sae, threshold=sae.threshold + 0.5).encode(x)
    fires = after > 0
    assert 0 < int(fires.sum()) < int((before > 0).sum()) and torch.equal(after[fires], before[fires])


def test_what_is_infinitely_far_below_does_not_fire_and_what_is_no_number_is_kept() -> None:
    found = an_sae(threshold=[0.0, 1.0, 2.0, math.inf]).activate(torch.tensor([[-math.inf, math.nan, math.inf, 1e30]]))
    assert found[0, 0] == 0 and found[0, 1].isnan() and found[0, 2] == math.inf and found[0, 3] == 0


def test_what_overflows_below_in_half_precision_is_nothing() -> None:
    ones, b_dec = torch.ones(4, 3).half(), torch.tensor([1.0, 2.0, 3.0, 4.0]).half()
    sae = JumpReLUSAE(ones, torch.zeros(3).half(), ones.t().contiguous(), b_dec, threshold=torch.ones(3).half())
    x = torch.full((2, 4), -30_000.0).half()
    assert bool(sae.hidden_pre(x).isneginf().all())
    assert sae.encode(x).tolist() == [[0.0] * 3] * 2 and sae(x).tolist() == [[1.0, 2.0, 3.0, 4.0]] * 2


@pytest.mark.parametrize(("threshold", "n"), [([0.5], 3), ([0.0], 0), (THRESHOLD, 0)])
def test_one_feature_or_no_token(threshold: list[float], n: int) -> None:
    sae, x = an_sae(threshold=threshold), 3 * torch.randn(n, 4, generator=generator(2))
    assert sae.encode(x).shape == (n, len(threshold)) and sae(x).shape == (n, 4) and sae.encode_one(x, 0).shape == (n,)
    for p in range(n):
        z = float((x[p] - sae.b_dec) @ sae.W_enc[:, 0] + sae.b_enc[0])
        assert float(sae.encode(x)[p, 0]) == pytest.approx(z if z > 0.5 else 0.0, rel=1e-5)


@pytest.mark.parametrize(("bad", "said"), [(-1e-30, "-1e-30"), (-0.5, "-0.5"), (-math.inf, "-inf"), (math.nan, "nan")])
@pytest.mark.parametrize("place", [0, 3, 6])
def test_a_threshold_below_zero_or_none_is_refused(bad: float, said: str, place: int) -> None:
    threshold = list(THRESHOLD)
    threshold[place] = bad
    with pytest.raises(ValueError, match=f"^threshold must be at least 0, got {said}$"):
        an_sae(threshold=threshold)


def test_the_threshold_is_not_optional_and_has_one_number_a_feature() -> None:
    parts = torch.ones(4, 7), torch.zeros(7), torch.ones(7, 4), torch.zeros(4)
    with pytest.raises(ValueError, match=r"threshold must be \[7\], got \[0\]"):
        JumpReLUSAE(*parts)
    for shape in ((1,), (4,), (1, 7), ()):
        with pytest.raises(ValueError, match=r"threshold must be \[7\], got \["):
            JumpReLUSAE(*parts, threshold=torch.zeros(shape))
    assert an_sae(threshold=[-0.0]).threshold.tolist() == [0.0]  # a zero for all that


def test_a_file_keeps_every_threshold_as_it_is(tmp_path: Path) -> None:
    sae = an_sae(threshold=[0.0, 1e-30, 0.1, 12345.678, 0.1])
    save_sae(sae, tmp_path / "sae")
    back = load_sae(tmp_path / "sae")
    assert isinstance(back, JumpReLUSAE) and torch.equal(back.threshold, sae.threshold)


def test_it_is_trained_by_a_rule_of_its_own() -> None:
    assert trainable("jumprelu") is REGISTRY["jumprelu"] is JumpReLUSAE
    assert JumpReLUSAE.trains_apart and not JumpReLUSAE.elementwise and JumpReLUSAE.vectors == ("threshold",)
    assert an_sae().config_fields() == {} and repr(an_sae()) == "JumpReLUSAE(d_in=4, d_sae=7)"
    with pytest.raises(NotImplementedError):
        JumpReLUSAE.fire(torch.zeros(2, 7), torch.zeros(2, 7), TrainConfig(architecture="jumprelu", d_sae=7))
