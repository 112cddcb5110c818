"""The hand-derived gradients against autograd, and the step against torch.optim.Adam."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch._dynamo  # torch.optim imports it at its first use, and that changes warning filters

from sae_widget.config import TrainConfig
from sae_widget.sae import REGISTRY
from sae_widget.training import (
    Trainer,
    pairs,
    products,
    schedule,
    small,
)
from sae_widget.training.gradients import AUX_COEFFICIENT, Workspace
from sae_widget.training.workspaces import workspace
from tests.training_runs import (
    RECIPES,
    generator,
    over_pairs,
    small_data,
)

N, D_IN, D_SAE, K, PENALTY = 9, 6, 40, 4, 0.3
DEAD = [1, 4, 5, 9, 13]
WIDTHS = (5, 10, 20, 40)  # of the nested dictionaries with four levels


class Jump(torch.autograd.Function):
    """``z * (z > threshold)`` with the published estimator for the threshold, in a window of width 0.8."""

    @staticmethod
    def forward(ctx: Any, z: torch.Tensor, threshold: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(z, threshold)
        return z * (z > threshold)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        z, threshold = ctx.saved_tensors
        window = ((z - threshold).abs() < 0.4) / 0.8
        return grad * (z > threshold), (-threshold * window * grad).sum(0)


class Step(torch.autograd.Function):
    """``z > threshold`` with the published estimator for the threshold."""

    @staticmethod
    def forward(ctx: Any, z: torch.Tensor, threshold: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(z, threshold)
        return (z > threshold).float()

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[None, torch.Tensor]:
        z, threshold = ctx.saved_tensors
        return None, (-((z - threshold).abs() < 0.4).float() / 0.8 * grad).sum(0)


class Reference:
    """The loss of each architecture as its paper writes it, for autograd."""

    def __init__(self, work: Workspace, x: torch.Tensor, dead: list[int]) -> None:
        names = ("W_enc", "b_enc", "W_dec", "b_dec")
        self.weights = {name: getattr(work.params, name).clone().requires_grad_() for name in names}
        self.weights |= {name: vector.clone().requires_grad_() for name, vector in work.params.extra.items()}
        self.x, self.mean, self.config = x, work.config.loss_reduction == "mean", work.config
        u = x - self.weights["b_dec"] if work.center_input else x
        self.z = u @ self.weights["W_enc"].T
        self.pre = self.z + self.weights["b_enc"]
        self.acts, self.sparsity = getattr(self, f"_{self.config.architecture}")()
        out = self._out(self.acts)
        levels = WIDTHS if self.config.architecture == "matryoshka_batchtopk" else (D_SAE,)
        cut = (self._out(self.acts * (torch.arange(D_SAE) < width)) for width in levels)
        self.loss = self._share(sum((x - part).square().sum() for part in cut) / len(levels)) + self.sparsity
        if dead and REGISTRY[self.config.architecture].revives_dead:
            strongest = self.pre[:, dead].topk(min(len(dead), D_IN // 2))
            revived = torch.zeros(N, len(dead)).scatter(1, strongest.indices, strongest.values.relu())
            missing = (x - out).detach() - revived @ self.weights["W_dec"][dead]
            self.loss = self.loss + AUX_COEFFICIENT * self._share(missing.square().sum())
        self.loss.backward()

    def _out(self, acts: torch.Tensor) -> torch.Tensor:
        return acts @ self.weights["W_dec"] + self.weights["b_dec"]

    def _share(self, errors: torch.Tensor) -> torch.Tensor:
        return errors / (N * D_IN if self.mean else N)

    def _penalty(self, acts: torch.Tensor) -> torch.Tensor:
        return PENALTY * acts.sum() / (N * D_SAE if self.mean else N)

    def _standard(self) -> tuple[torch.Tensor, torch.Tensor]:
        return self.pre.relu(), self._penalty(self.pre.relu())

    def _topk(self) -> tuple[torch.Tensor, Any]:
        values, indices = self.pre.topk(K)
        return torch.zeros_like(self.pre).scatter(1, indices, values.relu()), 0.0

    def _batchtopk(self) -> tuple[torch.Tensor, Any]:
        values, indices = self.pre.view(-1).topk(K * N)
        return torch.zeros(N * D_SAE).scatter(0, indices, values.relu()).view(N, D_SAE), 0.0

    _matryoshka_batchtopk = _batchtopk

    def _jumprelu(self) -> tuple[torch.Tensor, torch.Tensor]:
        threshold, target = self.weights["threshold"], self.config.target_l0
        count = Step.apply(self.pre, threshold).sum()
        if target:
            penalty = PENALTY * (1.0 / D_SAE if self.mean else 1.0) * D_IN * (count / N / target - 1).square()
        else:
            penalty = self._penalty(count)
        return Jump.apply(self.pre, threshold), penalty

    def _gated(self) -> tuple[torch.Tensor, torch.Tensor]:
        magnitude = self.z * self.weights["r_mag"].exp() + self.weights["b_mag"]
        gate = self.pre.relu()
        alone = gate @ self.weights["W_dec"].detach() + self.weights["b_dec"].detach()
        auxiliary = self._share((self.x - alone).square().sum())
        return magnitude.relu() * (self.pre > 0), self._penalty(gate) + auxiliary


def random_workspace(architecture: str, *, center: bool = True, **changes: Any) -> Workspace:
    own = {"architecture": architecture, "d_sae": D_SAE, "k": K, "unit_norm_decoder": False, "bandwidth": 0.8}
    work = workspace(D_IN, N, TrainConfig(**(own | changes)), center)
    work.fresh()
    if "pays" in work.memory:
        work.memory["pays"].fill_(2.0)  # from the first step on, where a batch is large enough for pairs
    work.params.vector.normal_(generator=generator(8))
    for name, vector in work.params.extra.items():
        vector.mul_(0.3)
        if name == "threshold":
            vector.abs_()
    return work


def has_penalty(architecture: str) -> bool:
    return schedule.penalty(TrainConfig(architecture=architecture, l1_warmup=0.0), 1) > 0


class TestGradients:
    """By hand against autograd, in the worst case: everything on, features dead."""

    @pytest.mark.parametrize("architecture", sorted(REGISTRY))
    @pytest.mark.parametrize("center", [True, False])
    @pytest.mark.parametrize("reduction", ["sum", "mean"])
    @pytest.mark.parametrize("dead", [[], DEAD[:3], DEAD], ids=["none dead", "few dead", "more dead than d_in / 2"])
    @pytest.mark.parametrize("way", ["pairs", "matrices", "numpy", "numpy's products"])
    def test_equal_autograd(
        self, architecture: str, center: bool, reduction: str, dead: list[int], way: str, monkeypatch: Any
    ) -> None:
        over_pairs(monkeypatch, way == "pairs")
        monkeypatch.setattr(small, "SMALL", 2**40 if way.startswith("numpy") else 0)
        monkeypatch.setattr(small, "numpy_is_faster", lambda *_: way == "numpy's products")
        self.check(architecture, dead, way, center=center, loss_reduction=reduction)

    @pytest.mark.parametrize("reduction", ["sum", "mean"])
    @pytest.mark.parametrize("way", ["pairs", "matrices"])
    def test_jumprelu_with_a_target(self, reduction: str, way: str, monkeypatch: Any) -> None:
        over_pairs(monkeypatch, way == "pairs")
        self.check("jumprelu", [], way, loss_reduction=reduction, target_l0=7.0)

    def test_without_the_sampled_product_of_this_build(self, monkeypatch: Any) -> None:
        over_pairs(monkeypatch)
        monkeypatch.setattr(pairs, "samples", lambda: False)
        monkeypatch.setattr(pairs, "GATHERED", 10)
        self.check("topk", DEAD)

    def check(self, architecture: str, dead: list[int], way: str = "", **changes: Any) -> None:
        work = random_workspace(architecture, **changes)
        x = torch.randn(N, D_IN, generator=generator(9))
        expected = Reference(work, x, dead)
        work.forward(x)
        if way:
            assert getattr(work, "is_sparse", False) is (way == "pairs" or "batchtopk" in architecture)
        wanted = torch.tensor(dead) if dead and work.kind.revives_dead else None
        losses = work.backward(x, PENALTY if has_penalty(architecture) else 0.0, wanted)
        assert losses.total == pytest.approx(float(expected.loss.detach()), rel=1e-5)
        assert torch.equal(losses.fired, (expected.acts > 0).sum(0).float())
        for name, weight in expected.weights.items():
            found = work.grads.extra.get(name, getattr(work.grads, name, None))
            assert torch.allclose(found, weight.grad, atol=2e-4, rtol=1e-5), name

    @pytest.mark.parametrize("architecture", sorted(REGISTRY))
    @pytest.mark.parametrize("way", ["pairs", "matrices"])
    def test_bfloat16_is_near_float32(self, architecture: str, way: str, monkeypatch: Any) -> None:
        # Entries of a product of bfloat16 are right to 2^-8 of their size.
        over_pairs(monkeypatch, way == "pairs")
        monkeypatch.setattr(small, "SMALL", 0)
        x = torch.randn(N, D_IN, generator=generator(9))
        found = {}
        for precision in ("float32", "bfloat16"):
            work = random_workspace(architecture, precision=precision)
            work.params.vector.copy_(work.params.vector.bfloat16())  # so that the same features fire
            work.forward(x.bfloat16().float())
            assert work.is_sparse is (way == "pairs" or "batchtopk" in architecture)  # type: ignore[attr-defined]
            losses = work.backward(x, PENALTY if has_penalty(architecture) else 0.0, None)
            found[precision] = losses, work.grads
        (exact, wanted), (near, grads) = found["float32"], found["bfloat16"]
        assert near.total == pytest.approx(exact.total, rel=0.02)
        assert (near.fired - exact.fired).abs().sum() <= 3
        for name in ("W_enc", "W_dec", "b_dec", "b_enc", *wanted.extra):
            a, b = (flat.extra.get(name, getattr(flat, name, None)).view(-1) for flat in (wanted, grads))
            assert float(a @ b / (a.norm() * b.norm())) > 0.995, name
            assert float(b.norm() / a.norm()) == pytest.approx(1.0, abs=0.05), name

    def test_bfloat16_counts_exactly(self) -> None:
        work = workspace(3, 1000, TrainConfig(architecture="standard", d_sae=5, precision="bfloat16"), True)
        acts = torch.rand(1000, 5, generator=generator(1)) * (torch.rand(1000, 5, generator=generator(2)) < 0.9)
        counted = work.products.count(acts.bfloat16(), torch.empty(1000, 5, dtype=torch.bfloat16))
        assert torch.equal(counted, (acts > 0).sum(0).float())

    @pytest.mark.parametrize("precision", ["float32", "bfloat16"])
    @pytest.mark.parametrize("rows", [1, 128, 300])
    def test_wide_matrices_are_counted_and_summed(self, precision: str, rows: int, monkeypatch: Any) -> None:
        monkeypatch.setattr(products, "COUNTED", 0)
        work = workspace(3, 300, TrainConfig(architecture="standard", d_sae=5, precision=precision), True)
        acts = torch.randn(rows, 5, generator=generator(1)).clamp_min(0.0).to(work.products.dtype)
        acts[:, 2] = 1.0  # on every row: more than a byte can count
        counted = work.products.count(acts, torch.full_like(acts, 7.0))
        assert counted.dtype == torch.float32 and torch.equal(counted, (acts > 0).sum(0).float())
        summed = torch.full((5,), torch.nan)
        work.products.columns(acts, summed)
        close = 2**-8 if precision == "bfloat16" else 1e-6
        torch.testing.assert_close(summed, acts.double().sum(0).float(), rtol=close, atol=0)
        assert work.products.total(acts) == pytest.approx(float(acts.double().sum()), rel=close)

    @pytest.mark.parametrize("way", ["matrices", "numpy"])
    def test_parallel_part_is_removed_and_norms_stay(self, way: str, monkeypatch: Any) -> None:
        monkeypatch.setattr(small, "SMALL", 2**40 if way == "numpy" else 0)
        work = workspace(6, 9, TrainConfig(d_sae=15, k=4), True)
        work.params.vector.normal_(generator=generator(8))
        work.grads.vector.normal_(generator=generator(7))
        work.unit_norm()
        work.keep_norms()
        assert torch.allclose((work.grads.W_dec * work.params.W_dec).sum(1), torch.zeros(15), atol=1e-6)
        assert torch.allclose(work.params.W_dec.norm(dim=1), torch.ones(15))

    def test_adam_is_torchs(self, monkeypatch: Any) -> None:
        # A run of the trainer against torch.optim.Adam fed with the trainer's own gradients.
        monkeypatch.setattr("sae_widget.training.trainer.MOST_STEPS", 1)  # the weights behind each record are looked at
        values, position = small_data()
        trainer = Trainer(values, position, RECIPES["standard"].changed(unit_norm_decoder=False))
        work = trainer._engine.work
        weights = work.params.vector.clone().requires_grad_()
        optimizer = torch.optim.Adam([weights])
        for record in trainer.run():
            weights.grad = work.grads.vector.clone()
            optimizer.param_groups[0]["lr"] = record.learning_rate
            optimizer.step()
            assert torch.allclose(weights, work.params.vector, atol=1e-6)
            if record.step == 30:
                break
