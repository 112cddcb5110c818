"""Steps over pairs that are given: against autograd in float64, with pairs that do not fire and tokens without any."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from sae_widget.config import TrainConfig
from sae_widget.training.gradients import Losses
from sae_widget.training.pairs import Pairs, by_feature, token_of
from sae_widget.training.sparse import SparseWorkspace
from sae_widget.training.sums import can_multiply
from tests.training_runs import generator

D_IN, D_SAE, BATCH = 5, 11, 8
DEAD = torch.tensor([0, 6])
both_sums = pytest.mark.parametrize("multiply", [0.0, 1.0], ids=["bags", "products"])


class Given(SparseWorkspace):
    """A kind of which the pairs are those of ``chosen [n, d_sae]``; the others are None at all."""

    chosen: torch.Tensor | None = None
    looks = True

    def _sparse(self, n: int) -> bool:
        return self.looks

    def _choose(self, pre: torch.Tensor) -> Pairs | None:
        if self.chosen is None:
            return None
        counts = self.chosen.sum(1)
        starts = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        return Pairs(starts, self.chosen.nonzero()[:, 1], pre[self.chosen].clamp_min(0.0))


def made(*, center: bool = True, multiply: float = 0.0, kind: type = Given, **changes: Any) -> Given:
    config = TrainConfig(**({"architecture": "topk", "d_sae": D_SAE, "k": 3, "precision": "float32"} | changes))
    work = kind(D_IN, D_SAE, BATCH, config, center)
    work.fresh()
    work.params.vector.normal_(generator=generator(1))
    work.memory["multiplies"].fill_(multiply)
    return work


def rows(n: int = BATCH) -> torch.Tensor:
    return torch.randn(n, D_IN, generator=generator(2))


def some(n: int = BATCH, share: float = 0.4) -> torch.Tensor:
    """Pairs of which about half do not fire; without a token and without a feature in the middle, and at the ends."""
    chosen = torch.rand(n, D_SAE, generator=generator(3)) < share
    chosen[:, [0, 6, D_SAE - 1]] = False
    if n > 3:
        chosen[[0, 4, n - 1]] = False
    return chosen


def step(work: Given, x: torch.Tensor, dead: torch.Tensor | None = None) -> Losses:
    work.forward(x)
    return work.backward(x, 0.0, dead)


@both_sums
@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize("n", [1, 3, BATCH])
@pytest.mark.parametrize("share", [0.4, 1.1])
def test_given_pairs_against_autograd(n: int, center: bool, reduction: str, multiply: float, share: float) -> None:
    work, x = made(center=center, loss_reduction=reduction, multiply=multiply), rows(n)
    work.chosen = some(n, share)
    work.grads.vector.fill_(math.nan)  # every gradient is written, also where there is no pair
    losses = step(work, x)
    names = ("W_enc", "b_enc", "W_dec", "b_dec")
    p = {name: getattr(work.params, name).double().requires_grad_() for name in names}
    pre = (x.double() - p["b_dec"] * center) @ p["W_enc"].t() + p["b_enc"]
    acts = torch.where(work.chosen, pre.relu(), 0.0)
    loss = (acts @ p["W_dec"] + p["b_dec"] - x).square().sum() / (n * D_IN if reduction == "mean" else n)
    loss.backward()
    assert work.is_sparse and bool(((acts == 0) & work.chosen).any())
    assert losses.total == pytest.approx(float(loss.detach()), rel=1e-5) and losses.sparsity == 0.0
    assert losses.fired.tolist() == (acts > 0).sum(0).tolist() and losses.fired.dtype == torch.float32
    for name, parameter in p.items():
        found = getattr(work.grads, name).double()
        torch.testing.assert_close(found, parameter.grad, rtol=1e-5, atol=1e-5, msg=name)


@both_sums
def test_sums_over_pairs_are_products_with_their_matrix(multiply: float) -> None:
    work, x = made(multiply=multiply), rows()
    work.chosen = some()
    work.forward(x)
    pairs, dense = work.pairs, torch.zeros(BATCH, D_SAE)
    dense[token_of(pairs), pairs.feature] = pairs.value
    out, grad = torch.full((BATCH, D_IN), math.nan), torch.full((D_SAE, D_IN), math.nan)
    assert work.decode(pairs, out) is out
    work.gradient(by_feature(pairs, token_of(pairs), D_SAE), pairs.value, x, grad)
    torch.testing.assert_close(out, dense @ work.params.W_dec, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(grad, dense.t() @ x, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(work.error, out + work.params.b_dec - x, rtol=1e-5, atol=1e-5)


def test_the_way_of_the_sums_is_the_runs_where_this_build_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []

    def sums(rows: torch.Tensor, *rest: Any, multiply: bool) -> torch.Tensor:
        seen.append(multiply)
        return rest[-1].zero_()

    monkeypatch.setattr("sae_widget.training.sparse.weighted_sums", sums)
    work = made()
    work.chosen = some()
    for kept in (0.0, 1.0):
        work.memory["multiplies"].fill_(kept)
        work.forward(rows())
    monkeypatch.setattr("sae_widget.training.sparse.can_multiply", lambda _: False)
    work.forward(rows())  # of a run that was begun on a build that has it
    assert seen == [False, can_multiply(), False]


@pytest.mark.parametrize("faster", [True, False])
def test_a_new_one_takes_what_is_faster_here(faster: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sae_widget.training.sparse.multiplying_is_fast", lambda device: faster and device == "cpu")
    work = Given(D_IN, D_SAE, BATCH, TrainConfig(d_sae=D_SAE, k=3), True)
    work.fresh()
    assert bool(work.memory["multiplies"]) is faster


@pytest.mark.parametrize("chosen", ["no token", "nothing that fires"])
def test_without_a_pair_that_fires_only_b_dec_learns(chosen: str) -> None:
    work, x = made(), rows()
    work.chosen = some() & (chosen != "no token")
    work.params.b_enc.fill_(-1e3)
    losses = step(work, x)
    assert len(work.pairs.value) == int(work.chosen.sum())
    assert losses.fired.dtype == torch.float32 and not losses.fired.any()
    assert losses.total == pytest.approx(float((work.params.b_dec - x).square().sum()) / BATCH, rel=1e-5)
    torch.testing.assert_close(work.grads.b_dec, 2 * (work.params.b_dec - x.mean(0)))
    assert not work.grads.W_enc.any() and not work.grads.W_dec.any() and not work.grads.b_enc.any()


@pytest.mark.parametrize("dead", [None, DEAD, torch.arange(6)], ids=["none", "two", "more than d_in / 2"])
@pytest.mark.parametrize("looks", [True, False])
def test_norms_are_kept_by_what_is_known_of_the_pairs(looks: bool, dead: torch.Tensor | None) -> None:
    work, x = made(), rows()
    work.unit_norm()
    work.chosen, work.looks = some(), looks
    step(work, x, dead)
    before, rows_of = work.grads.W_dec.clone(), work.params.W_dec
    work.keep_norms()
    assert work.is_sparse is looks
    wanted = before - rows_of * (rows_of * before).sum(1, keepdim=True)
    torch.testing.assert_close(work.grads.W_dec, wanted, rtol=1e-5, atol=1e-5)
    assert float((work.grads.W_dec * rows_of).sum(1).abs().max()) < 1e-5 < float((before * rows_of).sum(1).abs().max())


def test_the_dead_learn_the_same_over_pairs_and_matrices() -> None:
    found = []
    for looks in (True, False):
        work = made()
        work.looks, work.chosen = looks, torch.ones(BATCH, D_SAE, dtype=torch.bool)
        if looks:  # the pairs of topk, as the matrices have them
            work.forward(rows())
            least = work.pre.topk(3).values[:, -1:]
            work.chosen = work.pre >= least
        losses = step(work, rows(), DEAD)
        assert work.is_sparse is looks and losses.sparsity > 0
        found.append((torch.tensor([losses.reconstruction, losses.sparsity]), losses.fired, work.grads.vector))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_with_too_many_pairs_a_step_goes_over_matrices_and_the_next_may_not() -> None:
    work, x, went = made(), rows(), []
    for chosen in (some(), None, some()):
        work.chosen = chosen
        losses = step(work, x)
        went.append((work.is_sparse, losses.total, work.grads.vector.clone()))
    assert [sparse for sparse, *_ in went] == [True, False, True]
    assert went[0][1] == went[2][1] != went[1][1] and torch.equal(went[0][2], went[2][2])


def test_new_buffers_know_of_no_pairs() -> None:
    work = made()
    assert not work.is_sparse
    work.chosen = some()
    work.forward(rows())
    assert work.is_sparse
    work.configure(work.config, 2 * BATCH)
    assert not work.is_sparse


@pytest.mark.parametrize("share", [0.4, 1.1])
def test_what_is_no_number_makes_the_loss_none(share: float) -> None:
    work, x = made(), rows()
    work.chosen = some(share=share)
    x[2, 1] = math.nan
    assert math.isnan(step(work, x).total)


def test_a_kind_says_itself_when_and_which() -> None:
    work = made(kind=SparseWorkspace)
    with pytest.raises(NotImplementedError):
        work.forward(rows())
    with pytest.raises(NotImplementedError):
        work._choose(work.pre)
