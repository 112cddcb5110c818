"""The rule of JumpReLU SAEs: the estimators by plain loops and by hand, the edges of the windows, both penalties."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from sae_widget.config import TrainConfig
from sae_widget.sae import JumpReLUSAE
from sae_widget.training import Trainer
from sae_widget.training.gradients import Losses
from sae_widget.training.jumprelu import JumpReLUWorkspace
from tests.training_runs import finish, generator, over_pairs, small_data

D_IN, D_SAE, BATCH = 5, 9, 7
both_ways = pytest.mark.parametrize("way", ["matrices", "pairs"])


@pytest.fixture(autouse=True)
def at_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    over_pairs(monkeypatch)


def made(way: str, d_in: int = D_IN, d_sae: int = D_SAE, *, center: bool = True, **changes: Any) -> JumpReLUWorkspace:
    own = {"architecture": "jumprelu", "d_sae": d_sae, "bandwidth": 3.0, "precision": "float32"}
    work = JumpReLUWorkspace(d_in, d_sae, BATCH, TrainConfig(**(own | changes)), center)
    work.fresh()
    work.params.vector.normal_(generator=generator(1))
    work.params.extra["threshold"].abs_()
    work.memory["pays"].fill_(2.0)
    work.memory["share"].fill_(0.0 if way == "pairs" else 9.0)
    return work


def as_told(way: str, thresholds: list[float], **changes: Any) -> JumpReLUWorkspace:
    """One whose ``hidden_pre`` are its inputs, one feature each, and whose decoder gives them back."""
    work = made(way, len(thresholds), len(thresholds), **changes)
    work.params.vector.zero_()
    work.params.W_enc.fill_diagonal_(1.0)
    work.params.W_dec.fill_diagonal_(1.0)
    work.params.extra["threshold"].copy_(torch.tensor(thresholds))
    return work


def rows(n: int = BATCH, d_in: int = D_IN) -> torch.Tensor:
    return torch.randn(n, d_in, generator=generator(2))


def step(work: JumpReLUWorkspace, x: torch.Tensor, penalty: float) -> Losses:
    work.forward(x)
    losses = work.backward(x, penalty, None)
    assert work.is_sparse is (float(work.memory["share"]) == 0)
    return losses


def thresholds_of(work: JumpReLUWorkspace) -> torch.Tensor:
    return work.grads.extra["threshold"]


@both_ways
@pytest.mark.parametrize("target", [0.0, 2.5])
@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize(("n", "d_in", "d_sae"), [(7, 5, 9), (1, 5, 9), (3, 5, 9), (7, 1, 9), (7, 5, 3)])
def test_estimators_by_plain_loops(
    n: int, d_in: int, d_sae: int, center: bool, reduction: str, target: float, way: str
) -> None:
    changes = {"loss_reduction": reduction, "target_l0": target, "center": center}
    work, x, penalty = made(way, d_in, d_sae, **changes), rows(n, d_in), 0.3
    losses = step(work, x, penalty)
    names = ("W_enc", "b_enc", "W_dec", "b_dec")
    p = {name: getattr(work.params, name).double().requires_grad_() for name in names}
    threshold, x = work.params.extra["threshold"].double(), x.double()
    pre = (x - p["b_dec"] * center) @ p["W_enc"].t() + p["b_enc"]
    acts = pre * (pre > threshold)  # of which autograd knows all but the thresholds' part
    acts.retain_grad()
    error = (acts @ p["W_dec"] + p["b_dec"] - x).square().sum() / (n * d_in if reduction == "mean" else n)
    error.backward()
    count, each = int((pre > threshold).sum()), penalty / (d_sae if reduction == "mean" else 1)
    if target:
        sparsity = each * d_in * (count / n / target - 1) ** 2
        slope = each * d_in * 2 * (count / n / target - 1) / (n * target)
    else:
        sparsity, slope = each * count / n, each / n
    wanted, near, above, grad = [0.0] * d_sae, 0, (pre.detach() - threshold).tolist(), acts.grad.tolist()
    for i in range(n):
        for j in range(d_sae):
            if abs(above[i][j]) < 3.0 / 2:
                near += 1
                wanted[j] -= (float(threshold[j]) * grad[i][j] + slope) / 3.0
    assert near > 0
    assert losses.reconstruction == pytest.approx(float(error.detach()), rel=1e-5)
    assert losses.sparsity == pytest.approx(sparsity, rel=1e-5)
    assert losses.fired.tolist() == (pre > threshold).sum(0).tolist()
    torch.testing.assert_close(thresholds_of(work), torch.tensor(wanted), rtol=1e-4, atol=1e-5)
    for name, parameter in p.items():
        found = getattr(work.grads, name).double()
        torch.testing.assert_close(found, parameter.grad, rtol=1e-4, atol=1e-5, msg=name)


@both_ways
def test_one_token_and_three_features_by_hand(way: str) -> None:
    work = as_told(way, [1.0, 1.0, 1.0], bandwidth=0.5)
    work.params.W_dec.mul_(0.5)  # so that something is missing: sae_out - x is -0.6, -0.9, -1.0
    losses = step(work, torch.tensor([[1.2, 0.9, 2.0]]), 0.3)
    assert losses.fired.tolist() == [1, 0, 1]
    assert losses.reconstruction == pytest.approx(0.36 + 0.81 + 1.0)
    assert losses.sparsity == pytest.approx(0.6)
    # The gradient of feature_acts is twice that times 0.5: -0.6, -0.9, -1.0; the last is outside of its window.
    assert thresholds_of(work).tolist() == pytest.approx([(-0.6 + 0.3) / -0.5, (-0.9 + 0.3) / -0.5, 0.0])
    assert work.grads.b_enc.tolist() == pytest.approx([-0.6, 0.0, -1.0])
    assert losses.n_pairs == (3 if way == "pairs" else 4)  # 2 fire, 2 are in their windows


@both_ways
@pytest.mark.parametrize(
    ("pre", "fires", "learns"),
    [
        (0.75, False, False),  # half the width below: the end of the window is outside
        (0.7500001, False, True),
        (1.0, False, True),  # not above its threshold
        (1.0000001, True, True),
        (1.2499999, True, True),
        (1.25, True, False),
        (-1.0, False, False),
    ],
)
def test_the_edges_of_a_window(pre: float, fires: bool, learns: bool, way: str) -> None:
    work = as_told(way, [1.0, 50.0], bandwidth=0.5)
    losses = step(work, torch.tensor([[pre, 0.0]]), 0.3)
    assert losses.fired.tolist() == [float(fires), 0.0]
    assert [bool(slope) for slope in thresholds_of(work)] == [learns, False]


@both_ways
def test_below_a_threshold_of_zero_nothing_fires_and_the_window_is_whole(way: str) -> None:
    work = as_told(way, [0.0, 0.0, 0.0], bandwidth=0.5)
    losses = step(work, torch.tensor([[-0.2, 0.0, 0.2]]), 0.3)
    assert losses.fired.tolist() == [0, 0, 1]
    assert thresholds_of(work).tolist() == pytest.approx([-0.6] * 3)  # the penalty's part: 0.3 / -0.5


@both_ways
@pytest.mark.parametrize(("bias", "l0"), [(-1e3, 0.0), (1e3, 9.0)])
def test_the_penalty_of_a_target_where_nothing_or_everything_fires(bias: float, l0: float, way: str) -> None:
    work = made(way, target_l0=4.0)
    work.params.b_enc.fill_(bias)
    losses = step(work, rows(), 0.3)
    assert float(losses.fired.sum()) / BATCH == l0
    assert losses.sparsity == pytest.approx(0.3 * D_IN * (l0 / 4 - 1) ** 2, rel=1e-5)
    assert not thresholds_of(work).any()  # far from every window


@both_ways
@pytest.mark.parametrize("target", [1.0, 3.0])
def test_a_target_raises_thresholds_above_it_and_lowers_them_below(target: float, way: str) -> None:
    work = as_told(way, [1.0, 1.0, 1.0], bandwidth=0.5, target_l0=target)
    step(work, torch.tensor([[1.1, 1.1, 0.9]]), 1e3)  # two fire; the error's part is small beside the penalty's
    assert bool((thresholds_of(work) < 0).all()) is (target < 2)
    assert bool((thresholds_of(work) > 0).all()) is (target > 2)


@both_ways
def test_at_its_target_the_penalty_is_nothing(way: str) -> None:
    work = as_told(way, [1.0, 1.0, 1.0], bandwidth=0.5, target_l0=2.0)
    assert step(work, torch.tensor([[1.1, 1.1, 0.9]]), 0.3).sparsity == 0.0


@both_ways
def test_what_fires_is_what_the_sae_says(way: str) -> None:
    work, x = made(way), rows()
    p = work.params
    sae = JumpReLUSAE(p.W_enc.t(), p.b_enc, p.W_dec, p.b_dec, threshold=p.extra["threshold"])
    assert step(work, x, 0.3).fired.tolist() == (sae.encode(x) > 0).sum(0).tolist()
    work.forward(x)
    torch.testing.assert_close(work.error, sae(x) - x, rtol=1e-5, atol=1e-5)


@both_ways
def test_another_bandwidth_is_taken_from_the_next_step_on(way: str) -> None:
    work = as_told(way, [1.0, 1.0], bandwidth=0.5)
    x = torch.tensor([[1.2, 0.5]])
    step(work, x, 0.3)
    assert thresholds_of(work).tolist() == pytest.approx([-0.6, 0.0])  # 0.3 / -0.5
    work.configure(work.config.changed(bandwidth=2.0), BATCH)
    step(work, x, 0.3)
    assert thresholds_of(work).tolist() == pytest.approx([-0.15, (2 * -0.5 + 0.3) / -2.0])  # 0.5 is missed now


def test_a_new_threshold_is_small_and_none_falls_below_zero() -> None:
    work = made("matrices")
    work.fresh()
    assert work.params.extra["threshold"].tolist() == pytest.approx([0.1] * D_SAE)
    work.params.extra["threshold"][:4] = torch.tensor([-1e-7, -3.0, 0.0, 2.0])
    work.applied(0.25)
    assert work.params.extra["threshold"][:4].tolist() == [0.0, 0.0, 0.0, 2.0]
    assert float(work.memory["share"]) == 0.25


def test_adam_remembers_no_gradient() -> None:
    config = TrainConfig(architecture="jumprelu", d_sae=20, steps=5, batch_size=16)
    trainer = Trainer(*small_data(), config)
    finish(trainer)
    engine = trainer._engine
    assert engine.adam.beta1 == 0.0 and bool(engine.work.grads.vector.any())
    assert torch.equal(engine.moments[0].vector, engine.work.grads.vector)  # of the last step alone


@pytest.mark.parametrize("where", ["b_enc", "threshold", "x"])
@both_ways
def test_what_is_no_number_is_not_lost(where: str, way: str) -> None:
    work, x = made(way), rows()
    if where == "x":
        x[2, 1] = math.nan
    else:
        (work.params.b_enc if where == "b_enc" else work.params.extra[where])[3] = math.nan
    total = step(work, x, 0.3).total
    # Nothing is above a threshold that is none: the step is refused for its gradient.
    assert math.isnan(float(thresholds_of(work)[3]) if where == "threshold" else total)


@both_ways
def test_a_batch_that_grows_and_shrinks(way: str) -> None:
    work, whole, x = made(way), made(way), rows()
    wanted = step(whole, x, 0.3).total, whole.grads.vector
    for size in (3, 3 * BATCH, BATCH):
        work.configure(work.config, size)
        assert len(work.window) == len(work.scratch2) == size
        step(work, rows(size), 0.3)
    assert step(work, x, 0.3).total == wanted[0] and torch.equal(work.grads.vector, wanted[1])
