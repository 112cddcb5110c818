"""Steps over whole matrices: against autograd in float64 and by hand, at the edges, in buffers of any age and size."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from sae_widget.config import TrainConfig
from sae_widget.training.dense import DenseWorkspace
from sae_widget.training.gradients import Losses
from tests.training_runs import generator

D_IN, D_SAE, BATCH = 5, 11, 8


def made(
    d_in: int = D_IN, d_sae: int = D_SAE, batch: int = BATCH, *, center: bool = True, **changes: Any
) -> DenseWorkspace:
    own = {"architecture": "standard", "d_sae": d_sae, "k": 1, "precision": "float32"} | changes
    work = DenseWorkspace(d_in, d_sae, batch, TrainConfig(**own), center)
    work.fresh()
    work.params.vector.normal_(generator=generator(1))
    return work


def rows(n: int = BATCH, d_in: int = D_IN) -> torch.Tensor:
    return torch.randn(n, d_in, generator=generator(2))


def step(work: DenseWorkspace, x: torch.Tensor, penalty: float = 0.0, dead: torch.Tensor | None = None) -> Losses:
    work.forward(x)
    return work.backward(x, penalty, dead)


def wide(work: DenseWorkspace) -> dict[str, torch.Tensor]:
    """The parameters for autograd, in float64."""
    names = ("W_enc", "b_enc", "W_dec", "b_dec")
    return {name: getattr(work.params, name).double().requires_grad_() for name in names}


def check(work: DenseWorkspace, p: dict[str, torch.Tensor]) -> None:
    for name, parameter in p.items():
        found = getattr(work.grads, name).double()
        torch.testing.assert_close(found, parameter.grad, rtol=1e-5, atol=1e-5, msg=name)


@pytest.mark.parametrize("penalty", [0.0, 0.7])
@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize(("n", "d_in", "d_sae"), [(8, 5, 11), (1, 5, 11), (3, 5, 11), (8, 5, 1), (8, 1, 11), (1, 1, 1)])
def test_relu_and_l1_against_autograd(
    n: int, d_in: int, d_sae: int, center: bool, reduction: str, penalty: float
) -> None:
    work, x = made(d_in, d_sae, center=center, loss_reduction=reduction), rows(n, d_in)
    losses, p = step(work, x, penalty), wide(work)
    acts = ((x.double() - p["b_dec"] * center) @ p["W_enc"].t() + p["b_enc"]).relu()
    squared, summed = (acts @ p["W_dec"] + p["b_dec"] - x.double()).square(), acts
    if reduction == "mean":
        error, sparsity = squared.mean(), penalty * summed.mean()
    else:
        error, sparsity = squared.sum(1).mean(), penalty * summed.sum(1).mean()
    (error + sparsity).backward()
    assert losses.reconstruction == pytest.approx(float(error.detach()), rel=1e-5)
    assert losses.sparsity == pytest.approx(float(sparsity.detach()), rel=1e-5)
    assert losses.total == losses.reconstruction + losses.sparsity
    assert losses.fired.tolist() == (acts > 0).sum(0).tolist() and losses.fired.dtype == torch.float32
    check(work, p)


def test_two_tokens_and_two_features_by_hand() -> None:
    work = made(1, 2, 2)
    p = work.params
    p.W_enc[:, 0], p.W_dec[:, 0] = torch.tensor([2.0, -1.0]), torch.tensor([0.5, 3.0])
    p.b_enc[:], p.b_dec[:] = torch.tensor([1.0, 0.5]), torch.tensor([1.0])
    x = torch.tensor([[3.0], [0.0]])
    # u = 2, -1; hidden_pre = (5, -1.5), (-1, 1.5); sae_out = 5/2 + 1, 9/2 + 1; errors 0.5, 5.5
    losses = step(work, x, penalty=0.2)
    assert losses.reconstruction == pytest.approx((0.25 + 30.25) / 2)
    assert losses.sparsity == pytest.approx(0.2 * (5 + 1.5) / 2)
    assert losses.fired.tolist() == [1, 1]
    # The gradient of sae_out is the error; of hidden_pre 0.5 * 0.5 + 0.1 and 5.5 * 3 + 0.1.
    assert work.grads.W_dec[:, 0].tolist() == pytest.approx([5 * 0.5, 1.5 * 5.5])
    assert work.grads.b_enc.tolist() == pytest.approx([0.35, 16.6])
    assert work.grads.W_enc[:, 0].tolist() == pytest.approx([0.35 * 2, 16.6 * -1])
    assert work.grads.b_dec.tolist() == pytest.approx([0.5 + 5.5 - (0.35 * 2 - 16.6)])


@pytest.mark.parametrize("center", [True, False])
def test_where_nothing_fires_only_b_dec_learns(center: bool) -> None:
    work, x = made(center=center), rows()
    work.params.b_enc.fill_(-1e3)
    losses = step(work, x, penalty=0.7)
    assert losses.sparsity == 0.0 and not losses.fired.any()
    assert losses.reconstruction == pytest.approx(float((work.params.b_dec - x).square().sum()) / BATCH, rel=1e-5)
    torch.testing.assert_close(work.grads.b_dec, 2 * (work.params.b_dec - x.mean(0)))
    assert not work.grads.W_enc.any() and not work.grads.W_dec.any() and not work.grads.b_enc.any()


def test_where_everything_fires_it_is_a_linear_map() -> None:
    work, x = made(), rows()
    work.params.b_enc.fill_(50.0)
    losses, p = step(work, x, penalty=0.7), wide(work)
    assert losses.fired.tolist() == [BATCH] * D_SAE
    acts = (x.double() - p["b_dec"]) @ p["W_enc"].t() + p["b_enc"]
    loss = ((acts @ p["W_dec"] + p["b_dec"] - x).square().sum() + 0.7 * acts.sum()) / BATCH
    loss.backward()
    assert losses.total == pytest.approx(float(loss.detach()), rel=1e-5)
    for name, parameter in p.items():
        torch.testing.assert_close(getattr(work.grads, name).double(), parameter.grad, rtol=1e-4, atol=1e-2)


def test_at_exactly_zero_a_feature_does_not_fire_and_learns_nothing() -> None:
    work = made(center=False)
    work.params.b_enc.fill_(1.0)
    work.params.W_enc[3], work.params.b_enc[3] = 0.0, 0.0
    losses = step(work, rows(), penalty=0.7)
    assert losses.fired[3] == 0 and not work.grads.W_enc[3].any() and work.grads.b_enc[3] == 0
    assert losses.fired.sum() > 0


def test_what_was_in_the_buffers_does_not_matter() -> None:
    work, x, found = made(), rows(3), []
    for fill in (0.0, math.nan):
        for buffer in (work.pre, work.acts, work.scratch, work.error, work.target, work.grads.vector):
            buffer.fill_(fill)
        losses = step(work, x, 0.7)
        g = work.grads
        found.append(torch.cat([losses.fired, g.b_enc, g.W_enc.flatten(), g.W_dec.flatten(), g.b_dec]))
    assert torch.equal(*found) and bool(found[0].isfinite().all())


@pytest.mark.parametrize("batch", [3, 4, 100])
def test_a_short_batch_is_that_of_buffers_of_its_own_size(batch: int) -> None:
    x, found = rows(3), []
    for size in (3, batch):
        work = made(batch=size)
        losses = step(work, x, 0.7)
        found.append((losses.total, work.grads.vector.clone()))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-6)
    torch.testing.assert_close(found[0][1], found[1][1])


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_one_number_that_is_none_makes_the_loss_none(bad: float) -> None:
    work, x = made(), rows()
    x[5, 2] = bad
    assert not math.isfinite(step(work, x).total)
    assert math.isfinite(step(work, rows()).total) and bool(work.grads.vector.isfinite().all())  # none of it is left


def test_the_squared_error_is_still_known_when_the_error_is_used_up() -> None:
    work, x = made(), rows()
    work.forward(x)
    wanted = float(work.error.double().square().sum())
    losses = work.backward(x, 0.7, None)
    assert work.squared_error(BATCH) == pytest.approx(wanted, rel=1e-6)
    assert losses.reconstruction == pytest.approx(wanted / BATCH, rel=1e-6)
    assert float(work.error.double().square().sum()) == pytest.approx(wanted * (2 / BATCH) ** 2, rel=1e-5)
    work.measure(2 * x)
    assert work.squared_error(BATCH) == pytest.approx(float(work.error.double().square().sum()), rel=1e-6)


@pytest.mark.parametrize("k", [1, 4, 11])
def test_any_kind_goes_by_its_fire(k: int) -> None:
    work, x = made(architecture="topk", k=k), rows()
    losses, p = step(work, x), wide(work)
    pre = (x.double() - p["b_dec"]) @ p["W_enc"].t() + p["b_enc"]
    least = pre.detach().sort(dim=1, descending=True).values[:, k - 1 : k]
    acts = torch.where((pre >= least) & (pre > 0), pre, 0.0)
    loss = (acts @ p["W_dec"] + p["b_dec"] - x).square().sum(1).mean()
    loss.backward()
    assert losses.total == pytest.approx(float(loss.detach()), rel=1e-5) and losses.sparsity == 0.0
    assert losses.fired.tolist() == (acts > 0).sum(0).tolist()
    check(work, p)


@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize(("d_in", "strongest"), [(1, 1), (5, 2), (40, 3)])
def test_the_dead_learn_what_the_others_miss(d_in: int, strongest: int, center: bool) -> None:
    # d_in / 2 of them on a token, at least one, and no more than there are
    work, x, dead = made(d_in, architecture="topk", k=2, center=center), rows(d_in=d_in), torch.tensor([1, 4, 9])
    alone, p = step(work, x), wide(work)
    losses = step(work, x, dead=dead)
    pre = (x.double() - p["b_dec"] * center) @ p["W_enc"].t() + p["b_enc"]
    top = pre.topk(2)
    out = torch.zeros_like(pre).scatter(1, top.indices, top.values.relu()) @ p["W_dec"] + p["b_dec"]
    asleep = pre[:, dead].detach().sort(dim=1, descending=True).values[:, strongest - 1 : strongest]
    revived = pre[:, dead].relu() * (pre[:, dead] >= asleep)
    missing = (x - out).detach() - revived @ p["W_dec"][dead]
    error, revive = (x - out).square().sum() / BATCH, missing.square().sum() / BATCH / 32
    (error + revive).backward()
    assert alone.sparsity == 0.0 and losses.sparsity == pytest.approx(float(revive.detach()), rel=1e-5)
    assert losses.reconstruction == alone.reconstruction and bool((revived > 0).any())
    for name, parameter in p.items():
        torch.testing.assert_close(getattr(work.grads, name).double(), parameter.grad, rtol=1e-4, atol=1e-4, msg=name)


@pytest.mark.parametrize("place", ["_more_buffers", "resize"])
def test_a_batch_for_which_there_is_no_memory_changes_nothing(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    work, x = made(), rows()
    wanted = step(work, x, 0.7).total, work.grads.vector.clone()
    config, make, left, held = work.config, getattr(DenseWorkspace, place), iter([True]), []

    def full(self: DenseWorkspace, *arguments: Any) -> Any:
        if next(left, False):
            raise MemoryError("no memory")
        held.append(self.acts.numel())
        return make(self, *arguments)

    monkeypatch.setattr(DenseWorkspace, place, full)
    with pytest.raises(MemoryError):
        work.configure(config.changed(loss_reduction="mean"), 3 * BATCH)
    assert held == [0]  # the old buffers were given back before new ones were made
    assert work.config is config and len(work.acts) == len(work.scratch) == len(work.error) == BATCH
    assert (step(work, x, 0.7).total, work.grads.vector.tolist()) == (wanted[0], wanted[1].tolist())
    work.configure(config.changed(loss_reduction="mean"), 3 * BATCH)
    found = step(work, rows(3 * BATCH)).reconstruction
    assert found == pytest.approx(work.squared_error(3 * BATCH) / (3 * BATCH * D_IN))
