"""What is done to each token before an SAE reads it: against numpy in float64, undone, and odd tokens."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sae_widget.sae import StandardSAE
from sae_widget.sae.normalization import NORMALIZATIONS, normalized
from tests.training_runs import generator


def by_numpy(x: np.ndarray, way: str) -> np.ndarray:
    if way == "none":
        return x
    if way == "constant_norm_rescale":
        return x * np.sqrt(x.shape[1]) / np.linalg.norm(x, axis=1, keepdims=True)
    centred = x - x.mean(1, keepdims=True)
    return centred if way == "center" else centred / (x.std(1, ddof=1, keepdims=True) + 1e-5)


def some_x(n: int = 4, d_in: int = 7) -> torch.Tensor:
    return torch.randn(n, d_in, generator=generator(1)) * torch.logspace(-2, 3, n)[:, None] + 3.0


@pytest.mark.parametrize("d_in", [2, 7, 32])
@pytest.mark.parametrize("way", NORMALIZATIONS)
def test_it_is_what_numpy_does_and_is_undone(way: str, d_in: int) -> None:
    x = some_x(5, d_in)
    found, undo = normalized(x, way)
    np.testing.assert_allclose(found.numpy(), by_numpy(x.double().numpy(), way), rtol=1e-4, atol=1e-4)
    # layer_norm adds 1e-5 to the deviation on the way in only: of a deviation of 0.01 that is a thousandth
    torch.testing.assert_close(found * undo.gain + undo.shift, x, rtol=2e-3 if way == "layer_norm" else 1e-5, atol=1e-4)


@pytest.mark.parametrize("way", NORMALIZATIONS)
@pytest.mark.parametrize(
    "token", [[0.0] * 5, [-2.5] * 5, [1e-20, 0.0, 0.0, -1e-20, 0.0]], ids=["zeros", "all alike", "tiny"]
)
def test_a_token_without_a_spread_stays_finite_and_comes_back(token: list[float], way: str) -> None:
    x = torch.tensor([token])
    found, undo = normalized(x, way)
    assert bool(torch.isfinite(found).all())
    torch.testing.assert_close(found * undo.gain + undo.shift, x, rtol=1e-6, atol=1e-18)
    if way == "constant_norm_rescale" and x.any():
        assert float(found.norm()) == pytest.approx(5**0.5, rel=1e-5)  # however small it was


@pytest.mark.parametrize("way", NORMALIZATIONS)
def test_no_token_at_all_and_the_one_given_is_left_alone(way: str) -> None:
    if way != "layer_norm":  # torch warns of the deviation of nothing
        assert normalized(torch.empty(0, 3), way)[0].shape == (0, 3)
    x = some_x()
    before = x.clone()
    normalized(x, way)
    assert torch.equal(x, before)


@pytest.mark.parametrize("way", NORMALIZATIONS)
def test_an_sae_that_gives_back_what_it_reads_gives_back_the_token(way: str) -> None:
    eye = torch.eye(3)
    W_enc = torch.cat([eye, -eye], dim=1)  # each direction and its opposite
    sae = StandardSAE(W_enc, torch.zeros(6), W_enc.t().contiguous(), torch.zeros(3), normalize_activations=way)
    x = torch.tensor([[3.0, -4.0, 0.5], [100.0, 101.0, 99.0]])
    torch.testing.assert_close(sae(x), x, rtol=1e-4, atol=1e-3)
    acts = sae.encode(x)
    if way == "constant_norm_rescale":
        assert acts.norm(dim=1).tolist() == pytest.approx([3**0.5] * 2, rel=1e-6)
    if way != "none":
        with pytest.raises(ValueError, match=rf"normalises each token \({way}\): give decode the activations"):
            sae.decode(acts)


def test_a_way_that_is_not_known_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"must be one of none, layer_norm, .*, got 'batch_norm'"):
        StandardSAE(
            torch.ones(2, 3), torch.zeros(3), torch.ones(3, 2), torch.zeros(2), normalize_activations="batch_norm"
        )
