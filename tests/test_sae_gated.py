"""sae_widget.sae.gated: the gate decides, the magnitude tells; the paper's two encoders, and what it is equal to."""

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
from sae_widget.sae.gated import GatedSAE
from sae_widget.sae.jumprelu import JumpReLUSAE
from sae_widget.sae.standard import StandardSAE
from tests.training_runs import generator


def an_sae(dtype: torch.dtype = torch.float32, d_in: int = 4, d_sae: int = 7, **changes: Any) -> GatedSAE:
    g = generator(1)
    shapes = {"W_enc": (d_in, d_sae), "b_enc": (d_sae,), "W_dec": (d_sae, d_in), "b_dec": (d_in,)}
    shapes |= {"b_mag": (d_sae,), "r_mag": (d_sae,)}
    parts = {name: torch.randn(shape, generator=g).to(dtype) for name, shape in shapes.items()}
    return GatedSAE(**parts | changes)


def by_hand(dtype: torch.dtype = torch.float32) -> GatedSAE:
    """Six features: biases of the gate 0, 1, -1, 2, 0, 0, gains 1, 2, 0.5, 1, 1, 1, biases of the magnitude below."""
    vectors = {
        "b_enc": torch.tensor([0.0, 1.0, -1.0, 2.0, 0.0, 0.0]),
        "r_mag": torch.tensor([0.0, math.log(2.0), math.log(0.5), 0.0, 0.0, 0.0]),
        "b_mag": torch.tensor([0.0, 0.5, 0.25, -5.0, 3.0, 3.0]),
    }
    shapes = {"W_enc": (4, 6), "W_dec": (6, 4), "b_dec": (4,)}
    parts = {name: torch.ones(shape) for name, shape in shapes.items()} | vectors
    return GatedSAE(**{name: part.to(dtype) for name, part in parts.items()})


@pytest.mark.parametrize(
    ("dtype", "within"), [(torch.float64, 1e-7), (torch.float32, 1e-6), (torch.float16, 1e-2), (torch.bfloat16, 5e-2)]
)
def test_magnitude_where_the_gate_is_open(dtype: torch.dtype, within: float) -> None:
    hidden_pre = torch.tensor([[2.0, 3.0, 1.0, 4.0, 0.0, -0.5]], dtype=dtype)
    acts = by_hand(dtype).activate(hidden_pre)
    # 2; (3 - 1) * 2 + 0.5; (1 + 1) / 2 + 0.25; (4 - 2) - 5 < 0; gate at 0 is closed, whatever the magnitude; below
    assert acts[0].tolist() == pytest.approx([2.0, 4.5, 1.25, 0.0, 0.0, 0.0], rel=within) and acts.dtype == dtype
    assert hidden_pre.tolist() == [[2.0, 3.0, 1.0, 4.0, 0.0, -0.5]]


def test_the_gate_opens_at_the_smallest_number_above_zero() -> None:
    least = torch.nextafter(torch.tensor(0.0), torch.tensor(1.0))
    hidden_pre = torch.zeros(3, 6)
    hidden_pre[1, 4], hidden_pre[2, 4] = least, -least
    assert by_hand().activate(hidden_pre)[:, 4].tolist() == [0.0, 3.0, 0.0]


@pytest.mark.parametrize("apply_b_dec_to_input", [True, False])
@pytest.mark.parametrize("scale", [1.0, 1.5])
def test_it_is_the_two_encoders_of_the_paper(apply_b_dec_to_input: bool, scale: float) -> None:
    """1[W_gate (x - b_dec) + b_gate > 0] * ReLU(W_mag (x - b_dec) + b_mag), W_mag = exp(r_mag) W_gate."""
    sae = an_sae(torch.float64, scale=scale, apply_b_dec_to_input=apply_b_dec_to_input)
    x = torch.randn(30, 4, generator=generator(2), dtype=torch.float64)
    W_gate, b_gate, W_dec, b_dec, b_mag, r_mag = (
        part.numpy() for part in (sae.W_enc, sae.b_enc, sae.W_dec, sae.b_dec, sae.b_mag, sae.r_mag)
    )
    read = scale * x.numpy() - (b_dec if apply_b_dec_to_input else 0.0)
    opened = np.einsum("pi,if->pf", read, W_gate) + b_gate > 0
    magnitude = np.einsum("pi,if->pf", read, W_gate * np.exp(r_mag)) + b_mag
    acts = np.where(opened & (magnitude > 0), magnitude, 0.0)
    # each of the two alone decides somewhere
    assert (opened & (magnitude < 0)).any() and (~opened & (magnitude > 0)).any() and (acts > 0).any()
    np.testing.assert_allclose(sae.encode(x).numpy(), acts, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(sae.encode_one(x, 2).numpy(), acts[:, 2], rtol=1e-9, atol=1e-12)
    out = (np.einsum("pf,fi->pi", acts, W_dec) + b_dec) / scale
    np.testing.assert_allclose(sae(x).numpy(), out, rtol=1e-9, atol=1e-12)


def test_with_one_bias_and_no_gain_it_is_a_relu() -> None:
    sae, x = an_sae(torch.float64), torch.randn(30, 4, generator=generator(2), dtype=torch.float64)
    alike = replace(sae, b_mag=sae.b_enc, r_mag=torch.zeros(7, dtype=torch.float64))
    relu = StandardSAE(sae.W_enc, sae.b_enc, sae.W_dec, sae.b_dec)
    assert torch.allclose(alike.encode(x), relu.encode(x)) and torch.allclose(alike(x), relu(x))
    assert not torch.allclose(sae.encode(x), relu.encode(x))


def test_it_is_a_jumprelu_over_the_magnitudes() -> None:
    """The gate is open where the magnitude exceeds b_mag - exp(r_mag) b_gate (their appendix)."""
    sae, x = an_sae(torch.float64), torch.randn(30, 4, generator=generator(2), dtype=torch.float64)
    threshold = torch.linspace(0.0, 1.5, 7, dtype=torch.float64)
    sae = replace(sae, b_mag=threshold + sae.r_mag.exp() * sae.b_enc)
    jump = JumpReLUSAE(sae.W_enc * sae.r_mag.exp(), sae.b_mag, sae.W_dec, sae.b_dec, threshold=threshold)
    assert 20 < int((jump.encode(x) > 0).sum()) < 190
    assert torch.allclose(sae.encode(x), jump.encode(x)) and torch.allclose(sae(x), jump(x))


def test_what_the_gates_bias_takes_away_does_not_shrink_the_rest() -> None:
    sae, x = an_sae(), torch.randn(30, 4, generator=generator(2))
    sae = replace(sae, b_mag=sae.b_mag.abs() + 1.0)
    stricter = replace(sae, b_enc=sae.b_enc - 0.75)
    before, after = sae.encode(x), stricter.encode(x)
    fires = after > 0
    assert 0 < int(fires.sum()) < int((before > 0).sum())
    assert torch.allclose(after[fires], before[fires], rtol=1e-4)


def test_what_overflows_and_what_is_no_number() -> None:
    sae = by_hand()
    hidden_pre = torch.tensor([[-math.inf, math.inf, math.nan, -1.0, 1.0, 0.0]])
    found = sae.activate(hidden_pre)[0]
    assert found[0] == 0 and found[1] == math.inf and found[2].isnan() and found[3:].tolist() == [0.0, 4.0, 0.0]
    steep = replace(sae, r_mag=torch.full((6,), 200.0), b_enc=torch.full((6,), -1.0))  # exp(200) is inf in float32
    assert steep.activate(torch.tensor([[-0.5, 0.0, 1.0, -3.0, -0.5, 0.0]]))[0].tolist() == [0, 0, math.inf, 0, 0, 0]


@pytest.mark.parametrize(("d_in", "d_sae", "n"), [(1, 1, 3), (4, 1, 2), (1, 7, 2), (4, 7, 0)])
def test_one_feature_one_dimension_or_no_token(d_in: int, d_sae: int, n: int) -> None:
    sae, x = an_sae(d_in=d_in, d_sae=d_sae), torch.randn(n, d_in, generator=generator(2))
    wanted = torch.zeros(n, d_sae)
    for p in range(n):
        for f in range(d_sae):
            z = sum(float((x[p, i] - sae.b_dec[i]) * sae.W_enc[i, f]) for i in range(d_in))
            magnitude = z * math.exp(float(sae.r_mag[f])) + float(sae.b_mag[f])
            wanted[p, f] = magnitude if z + float(sae.b_enc[f]) > 0 and magnitude > 0 else 0.0
    assert torch.allclose(sae.encode(x), wanted, atol=1e-5) and sae(x).shape == (n, d_in)
    assert sae.encode_one(x, d_sae - 1).shape == (n,)


def test_its_vectors_are_not_optional() -> None:
    parts = torch.ones(4, 7), torch.zeros(7), torch.ones(7, 4), torch.zeros(4)
    with pytest.raises(ValueError, match=r"b_mag must be \[7\], got \[0\]"):
        GatedSAE(*parts)
    with pytest.raises(ValueError, match=r"r_mag must be \[7\], got \[0\]"):
        GatedSAE(*parts, b_mag=torch.zeros(7))
    with pytest.raises(ValueError, match=r"r_mag must be \[7\], got \[7, 1\]"):
        GatedSAE(*parts, b_mag=torch.zeros(7), r_mag=torch.zeros(7, 1))


def test_a_file_keeps_gain_and_bias_of_the_magnitudes(tmp_path: Path) -> None:
    sae = an_sae()
    save_sae(sae, tmp_path / "sae")
    back = load_sae(tmp_path / "sae")
    assert isinstance(back, GatedSAE)
    assert torch.equal(back.b_mag, sae.b_mag) and torch.equal(back.r_mag, sae.r_mag)
    assert torch.equal(back.b_enc, sae.b_enc)  # their b_gate


def test_it_is_trained_by_a_rule_of_its_own() -> None:
    assert trainable("gated") is REGISTRY["gated"] is GatedSAE
    assert GatedSAE.trains_apart and not GatedSAE.elementwise and GatedSAE.vectors == ("b_mag", "r_mag")
    assert an_sae().config_fields() == {} and repr(an_sae()) == "GatedSAE(d_in=4, d_sae=7)"
    with pytest.raises(NotImplementedError):
        GatedSAE.fire(torch.zeros(2, 7), torch.zeros(2, 7), TrainConfig(architecture="gated", d_sae=7))
