"""The rule of gated SAEs: against autograd in float64 and by hand, and what a gate and a magnitude each do alone."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from sae_widget.config import TrainConfig
from sae_widget.sae import GatedSAE
from sae_widget.training.gated import GatedWorkspace
from sae_widget.training.gradients import Losses
from tests.training_runs import generator, over_pairs

D_IN, D_SAE, BATCH = 5, 11, 8
LARGE_L1 = 5.0
both_ways = pytest.mark.parametrize("way", ["matrices", "pairs"])


@pytest.fixture(autouse=True)
def at_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    over_pairs(monkeypatch)


def made(way: str, d_in: int = D_IN, d_sae: int = D_SAE, *, center: bool = True, **changes: Any) -> GatedWorkspace:
    config = TrainConfig(**({"architecture": "gated", "d_sae": d_sae, "precision": "float32"} | changes))
    work = GatedWorkspace(d_in, d_sae, BATCH, config, center)
    work.fresh()
    work.params.vector.normal_(generator=generator(1))
    work.params.b_enc.abs_()  # so that about half of the gates are open also on a single token
    for vector in work.params.extra.values():
        vector.mul_(0.5)
    work.memory["pays"].fill_(2.0)
    work.memory["share"].fill_(0.0 if way == "pairs" else 9.0)
    return work


def rows(n: int = BATCH, d_in: int = D_IN) -> torch.Tensor:
    return torch.randn(n, d_in, generator=generator(2))


def step(work: GatedWorkspace, x: torch.Tensor, penalty: float) -> Losses:
    work.forward(x)
    return work.backward(x, penalty, None)


def gradients(work: GatedWorkspace) -> dict[str, torch.Tensor]:
    g = work.grads
    return {name: getattr(g, name).clone() for name in ("W_enc", "b_enc", "W_dec", "b_dec")} | {
        name: vector.clone() for name, vector in g.extra.items()
    }


@both_ways
@pytest.mark.parametrize("penalty", [0.0, 0.7])
@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize(("n", "d_in", "d_sae"), [(8, 5, 11), (1, 5, 11), (3, 5, 11), (8, 5, 1), (8, 1, 11)])
def test_the_loss_of_the_paper_against_autograd(
    n: int, d_in: int, d_sae: int, center: bool, reduction: str, penalty: float, way: str
) -> None:
    work, x = made(way, d_in, d_sae, center=center, loss_reduction=reduction), rows(n, d_in)
    losses = step(work, x, penalty)
    assert work.is_sparse is (way == "pairs")
    names = ("W_enc", "b_enc", "W_dec", "b_dec")
    p = {name: getattr(work.params, name).double().requires_grad_() for name in names}
    p |= {name: vector.double().requires_grad_() for name, vector in work.params.extra.items()}
    x = x.double()
    z = (x - p["b_dec"] * center) @ p["W_enc"].t()
    gate, magnitude = z + p["b_enc"], z * p["r_mag"].exp() + p["b_mag"]
    acts = torch.where(gate > 0, magnitude.relu(), 0.0)
    whole = (acts @ p["W_dec"] + p["b_dec"] - x).square()
    alone = (gate.relu() @ p["W_dec"].detach() + p["b_dec"].detach() - x).square()
    share = torch.Tensor.mean if reduction == "mean" else (lambda parts: parts.sum() / n)
    assert bool((gate > 0).any())
    (share(whole) + share(alone) + penalty * share(gate.relu())).backward()
    assert losses.reconstruction == pytest.approx(float(share(whole).detach()), rel=1e-5)
    assert losses.sparsity == pytest.approx(float((share(alone) + penalty * share(gate.relu())).detach()), rel=1e-5)
    assert losses.fired.tolist() == (acts > 0).sum(0).tolist()
    assert losses.n_pairs == int((gate > 0).sum())
    for name, found in gradients(work).items():
        torch.testing.assert_close(found.double(), p[name].grad, rtol=1e-4, atol=1e-4, msg=name)


@both_ways
def test_one_token_and_one_feature_by_hand(way: str) -> None:
    work = made(way, 1, 1)
    p = work.params
    p.W_enc.fill_(2.0), p.b_enc.fill_(-1.0), p.W_dec.fill_(0.25), p.b_dec.fill_(0.5)
    p.extra["r_mag"].fill_(math.log(2.0)), p.extra["b_mag"].fill_(1.0)
    # u = 2.5, z = 5: the gate is 4, the magnitude 5 * 2 + 1; sae_out 3.25, of the gate alone 1.5.
    losses = step(work, torch.tensor([[3.0]]), 0.1)
    assert losses.reconstruction == pytest.approx(0.25**2, rel=1e-5)
    assert losses.sparsity == pytest.approx(1.5**2 + 0.1 * 4, rel=1e-5)
    assert losses.fired.tolist() == [1.0]
    # Of the magnitude 2 * 0.25 * 0.25 = 0.125; of the gate 2 * -1.5 * 0.25 + 0.1 = -0.65; of z 0.125 * 2 - 0.65 = -0.4.
    wanted = {"W_dec": 11 * 0.5, "b_mag": 0.125, "r_mag": 0.125 * 10, "b_enc": -0.65, "W_enc": -0.4 * 2.5}
    wanted["b_dec"] = 0.5 + 0.4 * 2
    assert {name: float(grad) for name, grad in gradients(work).items()} == pytest.approx(wanted, rel=1e-4)


@both_ways
def test_a_closed_gate_keeps_a_magnitude_from_firing(way: str) -> None:
    work, x = made(way), rows()
    work.params.extra["b_mag"][4] = 100.0
    work.params.b_enc[4] = -100.0
    losses = step(work, x, 0.7)
    assert losses.fired[4] == 0 and losses.fired.any()
    for name, grad in gradients(work).items():
        if name != "b_dec":
            assert not grad[4].any(), name


@both_ways
def test_an_open_gate_learns_where_its_magnitude_does_not_fire(way: str) -> None:
    work, x = made(way), rows()
    work.params.extra["b_mag"][4] = -100.0
    work.params.b_enc[4] = 100.0
    losses = step(work, x, 0.7)
    assert losses.fired[4] == 0 and losses.fired.any()
    found = gradients(work)
    assert found["b_enc"][4] != 0 and bool(found["W_enc"][4].all())
    assert found["b_mag"][4] == 0 and found["r_mag"][4] == 0 and not found["W_dec"][4].any()


@both_ways
@pytest.mark.parametrize("what", ["gate", "magnitude"])
def test_at_exactly_zero_neither_is_open(what: str, way: str) -> None:
    work = made(way, center=False)
    work.params.W_enc[4] = 0.0
    work.params.b_enc[4], work.params.extra["b_mag"][4] = (0.0, 1.0) if what == "gate" else (1.0, 0.0)
    losses, found = step(work, rows(), 0.7), gradients(work)
    assert losses.fired[4] == 0 and losses.fired.any()
    assert found["b_mag"][4] == 0 and not found["W_dec"][4].any()
    assert bool(found["b_enc"][4] == 0) is (what == "gate")


@both_ways
def test_where_no_gate_is_open_only_b_dec_learns(way: str) -> None:
    work, x = made(way), rows()
    work.params.b_enc.fill_(-1e3)
    losses, found = step(work, x, 0.7), gradients(work)
    missed = float((x - work.params.b_dec).square().sum()) / BATCH
    assert losses.reconstruction == pytest.approx(missed, rel=1e-5)
    assert losses.sparsity == pytest.approx(missed, rel=1e-5)  # the gate alone reconstructs nothing either
    assert not losses.fired.any() and losses.n_pairs == 0
    torch.testing.assert_close(found.pop("b_dec"), 2 * (work.params.b_dec - x.mean(0)))
    assert not any(grad.any() for grad in found.values())


@both_ways
def test_the_penalty_shrinks_nothing_that_fires(way: str) -> None:
    # That is what the gate is for: decoder, gain and bias of the magnitudes do not feel it.
    found = []
    for penalty in (0.0, LARGE_L1):
        work = made(way)
        losses = step(work, rows(), penalty)
        found.append((losses, gradients(work)))
    (free, without), (paid, under) = found
    assert free.reconstruction == paid.reconstruction and free.sparsity < paid.sparsity
    for name in ("W_dec", "b_mag", "r_mag"):
        assert torch.equal(without[name], under[name])
    torch.testing.assert_close(under["b_enc"] - without["b_enc"], LARGE_L1 * _open(work) / BATCH, rtol=1e-4, atol=1e-4)


def _open(work: GatedWorkspace) -> torch.Tensor:
    """On how many rows each gate is."""
    p = work.params
    return ((rows() - p.b_dec) @ p.W_enc.t() + p.b_enc > 0).sum(0).float()


@both_ways
def test_what_fires_is_what_the_sae_says(way: str) -> None:
    work, x = made(way), rows()
    p = work.params
    sae = GatedSAE(p.W_enc.t(), p.b_enc, p.W_dec, p.b_dec, **p.extra)
    losses = step(work, x, 0.7)
    assert losses.fired.tolist() == (sae.encode(x) > 0).sum(0).tolist()
    work.forward(x)
    torch.testing.assert_close(work.error, sae(x) - x, rtol=1e-5, atol=1e-5)


@both_ways
@pytest.mark.parametrize("where", ["b_enc", "r_mag", "b_mag", "x"])
def test_what_is_no_number_makes_the_loss_none(where: str, way: str) -> None:
    work, x = made(way), rows()
    work.params.b_enc[3] = 10.0  # open: what is behind a closed gate is never looked at
    if where == "x":
        x[2, 1] = math.nan
    else:
        (work.params.b_enc if where == "b_enc" else work.params.extra[where])[3] = math.nan
    assert math.isnan(step(work, x, 0.7).total)


def test_a_new_one_has_the_gain_of_its_gate() -> None:
    work = GatedWorkspace(D_IN, D_SAE, BATCH, TrainConfig(architecture="gated", d_sae=D_SAE), True)
    for vector in work.params.extra.values():
        vector.fill_(9.0)
    work.fresh()
    assert sorted(work.params.extra) == ["b_mag", "r_mag"]
    assert not any(vector.any() for vector in work.params.extra.values())


@both_ways
def test_a_batch_that_grows_and_shrinks(way: str) -> None:
    config = TrainConfig(architecture="gated", d_sae=D_SAE, precision="float32")
    work, whole, x = made(way), made(way), rows()
    wanted = step(whole, x, 0.7).total, gradients(whole)
    for size in (3, 3 * BATCH, BATCH):
        work.configure(config, size)
        assert len(work.gate) == len(work.gate_grad) == len(work.gate_error) == size
        step(work, rows(size), 0.7)
    losses = step(work, x, 0.7)
    assert losses.total == wanted[0]
    assert all(torch.equal(grad, wanted[1][name]) for name, grad in gradients(work).items())
