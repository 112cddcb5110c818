"""The rules over a whole batch: chosen as by a sort, at the extremes of k, levels and batch; the threshold by hand."""

from __future__ import annotations

import pytest
import torch

from sae_widget.config import TrainConfig
from sae_widget.training.batchtopk import BatchTopKWorkspace, MatryoshkaWorkspace
from sae_widget.training.pairs import Pairs, token_of
from sae_widget.training.workspaces import workspace
from tests.training_runs import generator

D_IN = 4


def made(d_sae: int, n: int, k: int, levels: int = 0) -> BatchTopKWorkspace:
    kind = "matryoshka_batchtopk" if levels else "batchtopk"
    config = TrainConfig(architecture=kind, d_sae=d_sae, k=k, matryoshka_levels=levels or 4, precision="float32")
    work = workspace(D_IN, n, config, True)
    assert isinstance(work, BatchTopKWorkspace)
    work.fresh()
    work.params.vector.normal_(generator=generator(1))
    return work


def dense(pairs: Pairs, n: int, d_sae: int) -> torch.Tensor:
    acts = torch.zeros(n, d_sae)
    acts[token_of(pairs), pairs.feature] = pairs.value
    return acts


def largest(pre: torch.Tensor, wanted: int) -> torch.Tensor:
    """By a sort of plain numbers; no two are equal here."""
    least = sorted(pre.flatten().tolist(), reverse=True)[min(wanted, pre.numel()) - 1]
    return torch.where((pre >= least) & (pre > 0), pre, 0.0)


@pytest.mark.parametrize("known", [0.0, 1e-3, 0.5, 1.5, 1e6])
@pytest.mark.parametrize(
    ("d_sae", "n", "k"), [(9, 6, 1), (9, 6, 4), (9, 6, 9), (9, 1, 3), (1, 5, 1), (1, 1, 1), (30, 7, 2)]
)
def test_the_largest_of_the_batch_fire_whatever_the_threshold_was(d_sae: int, n: int, k: int, known: float) -> None:
    work = made(d_sae, n, k)
    work.memory["threshold"].fill_(known)
    x = torch.randn(n, D_IN, generator=generator(2))
    work.forward(x)
    pre = (x - work.params.b_dec) @ work.params.W_enc.t() + work.params.b_enc
    wanted = largest(pre, k * n)
    torch.testing.assert_close(dense(work.pairs, n, d_sae), wanted, atol=1e-5, rtol=1e-5)
    assert len(work.pairs.value) == min(k * n, int((pre > 0).sum()))
    torch.testing.assert_close(work.error, wanted @ work.params.W_dec + work.params.b_dec - x, atol=1e-5, rtol=1e-5)


def test_of_equal_numbers_no_more_fire_than_are_wanted() -> None:
    work = made(8, 5, 2)
    work.params.vector.zero_()
    work.params.b_enc.fill_(1.0)  # every feature is 1 on every token
    for known in (0.0, 1.0):
        work.memory["threshold"].fill_(known)
        work.forward(torch.ones(5, D_IN))
        assert work.pairs.value.tolist() == [1.0] * 10 and work.pairs.starts[-1] == 10


def test_the_threshold_follows_the_smallest_that_fired() -> None:
    work, x = made(9, 6, 2), torch.randn(6, D_IN, generator=generator(2))
    work.forward(x)
    smallest = float(work.pairs.value.min())
    work.applied(1.0)
    assert float(work.memory["threshold"]) == pytest.approx(smallest, rel=1e-6)  # the first as it is
    work.memory["threshold"].fill_(2.0)
    work.applied(1.0)
    assert float(work.memory["threshold"]) == pytest.approx(2.0 + 0.01 * (smallest - 2.0), rel=1e-6)


def test_a_batch_in_which_nothing_fires_leaves_the_threshold() -> None:
    work = made(9, 6, 2)
    work.params.W_enc.zero_()
    work.params.b_enc.fill_(-1.0)
    work.memory["threshold"].fill_(0.25)
    x = torch.randn(6, D_IN, generator=generator(2))
    work.forward(x)
    losses = work.backward(x, 0.0, None)
    work.applied(1.0)
    assert float(work.memory["threshold"]) == 0.25 and not losses.fired.any()
    assert losses.total == pytest.approx(float((x - work.params.b_dec).square().sum()) / 6, rel=1e-5)
    assert not work.grads.W_dec.any() and not work.grads.W_enc.any() and bool(torch.isfinite(work.grads.vector).all())


@pytest.mark.parametrize("levels", [0, 3])
def test_it_is_measured_with_the_threshold_and_not_with_k(levels: int) -> None:
    work, x = made(9, 6, 1, levels), torch.randn(6, D_IN, generator=generator(2))
    pre = (x - work.params.b_dec) @ work.params.W_enc.t() + work.params.b_enc
    work.memory["threshold"].fill_(0.1)
    work.measure(x)
    wanted = torch.where(pre > 0.1, pre, 0.0)
    assert int((wanted > 0).sum()) > 6
    torch.testing.assert_close(dense(work.pairs, 6, 9), wanted, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(work.error, wanted @ work.params.W_dec + work.params.b_dec - x, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("d_sae", "levels", "widths"),
    [(1, 1, [1]), (1, 12, [1]), (2, 2, [1, 2]), (3, 12, [1, 3]), (5, 3, [1, 2, 5]), (12, 3, [3, 6, 12]), (7, 1, [7])],
)
@pytest.mark.parametrize(("n", "k"), [(1, 1), (6, 1), (6, 2), (6, 12)])
def test_nested_dictionaries_against_autograd(d_sae: int, levels: int, widths: list[int], n: int, k: int) -> None:
    k = min(k, d_sae)
    work, x = made(d_sae, n, k, levels), torch.randn(n, D_IN, generator=generator(2))
    assert isinstance(work, MatryoshkaWorkspace) and work.widths == widths
    p = {name: getattr(work.params, name).clone().requires_grad_() for name in ("W_enc", "b_enc", "W_dec", "b_dec")}
    pre = (x - p["b_dec"]) @ p["W_enc"].t() + p["b_enc"]
    acts = pre * (largest(pre.detach(), k * n) > 0)
    parts = [(acts[:, :width] @ p["W_dec"][:width] + p["b_dec"] - x).square().sum() for width in widths]
    loss = torch.stack(parts).mean() / n
    loss.backward()
    work.forward(x)
    torch.testing.assert_close(work.error, (acts @ p["W_dec"] + p["b_dec"] - x).detach(), atol=1e-5, rtol=1e-5)
    losses = work.backward(x, 0.0, None)
    assert losses.total == pytest.approx(float(loss.detach()), rel=1e-5)
    assert losses.fired.tolist() == (acts > 0).sum(0).tolist()
    for name, parameter in p.items():
        torch.testing.assert_close(getattr(work.grads, name), parameter.grad, atol=1e-4, rtol=1e-4)
