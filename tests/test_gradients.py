"""The hand-derived gradients against autograd, and the step against torch.optim.Adam."""

from __future__ import annotations

import pytest
import torch
import torch._dynamo  # torch.optim imports it at its first use, and that changes warning filters

from sae_widget.config import ARCHITECTURES, TrainConfig
from sae_widget.sae import REGISTRY
from sae_widget.training import (
    Trainer,
)
from sae_widget.training.gradients import AUX_COEFFICIENT, Workspace
from tests.training_runs import (
    RECIPES,
    generator,
    small_data,
)


class TestGradients:
    """By hand against autograd, in the worst case: everything on, features dead."""

    @pytest.mark.parametrize("architecture", sorted(REGISTRY))
    @pytest.mark.parametrize("center", [True, False])
    @pytest.mark.parametrize("reduction", ["sum", "mean"])
    @pytest.mark.parametrize("dead", [[], [1, 4, 5, 9, 13]])
    def test_equal_autograd(self, architecture: str, center: bool, reduction: str, dead: list[int]) -> None:
        n, d_in, d_sae, k, l1 = 9, 6, 15, 4, 0.3
        config = TrainConfig(
            architecture=architecture, d_sae=d_sae, k=k, loss_reduction=reduction, unit_norm_decoder=False
        )
        work = Workspace(d_in, d_sae, n, config, center)
        work.params.vector.normal_(generator=generator(8))
        x = torch.randn(n, d_in, generator=generator(9))
        weights = {k: v.clone().requires_grad_() for k, v in vars(work.params).items() if k[:2] in ("W_", "b_")}
        W_enc, b_enc, W_dec, b_dec = (weights[k] for k in ("W_enc", "b_enc", "W_dec", "b_dec"))
        pre = (x - b_dec if center else x) @ W_enc.T + b_enc
        kind, penalised = REGISTRY[architecture], "l1_coefficient" in ARCHITECTURES[architecture]
        own = {"k": k} if "k" in ARCHITECTURES[architecture] else {}
        parts = {name: weight.detach() for name, weight in weights.items()}
        acts = kind(**parts | {"W_enc": parts["W_enc"].T}, **own).activate(pre)
        out = acts @ W_dec + b_dec
        share = n if reduction == "sum" else n * d_in
        loss = (out - x).square().sum() / share
        if penalised:
            loss = loss + l1 * acts.sum() / (n if reduction == "sum" else n * d_sae)
        if kind.revives_dead and dead:
            strongest = pre[:, dead].topk(min(len(dead), d_in // 2))
            revived = torch.zeros(n, len(dead)).scatter(1, strongest.indices, strongest.values.relu())
            missing = (x - out).detach() - revived @ W_dec[dead]
            loss = loss + AUX_COEFFICIENT * missing.square().sum() / share
        loss.backward()

        work.forward(x)
        wanted = torch.tensor(dead) if dead and kind.revives_dead else None
        losses = work.backward(x, l1 if penalised else 0.0, wanted)
        assert losses.total == pytest.approx(float(loss.detach()), rel=1e-5)
        assert torch.equal(losses.fired, (acts > 0).sum(0).float())
        for name, weight in weights.items():
            assert torch.allclose(getattr(work.grads, name), weight.grad, atol=1e-5), name

    def test_parallel_part_is_removed_and_norms_stay(self) -> None:
        work = Workspace(6, 15, 9, TrainConfig(d_sae=15, k=4), True)
        work.params.vector.normal_(generator=generator(8))
        work.grads.vector.normal_(generator=generator(7))
        work.unit_norm()
        work.keep_norms()
        assert torch.allclose((work.grads.W_dec * work.params.W_dec).sum(1), torch.zeros(15), atol=1e-6)
        assert torch.allclose(work.params.W_dec.norm(dim=1), torch.ones(15))

    def test_adam_is_torchs(self) -> None:
        # A run of the trainer against torch.optim.Adam fed with the trainer's own gradients.
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
