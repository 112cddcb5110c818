"""The trainer: exact gradients, known features found, bit-identical resumption, faults that lose nothing."""

from __future__ import annotations

import dataclasses
import itertools
import math
import signal
import threading
from typing import Any

import pytest
import torch
import torch._dynamo  # torch.optim imports it at its first use, and that changes warning filters

from sae_widget.config import TrainConfig
from sae_widget.sae import StandardSAE, TopKSAE
from sae_widget.training import (
    Trainer,
    TrainingFault,
    TrainStep,
    engine,
    explained_variance,
    original,
    train,
)
from sae_widget.training.gradients import AUX_COEFFICIENT, Workspace

SMALL: dict[str, Any] = {"d_sae": 20, "k": 3, "steps": 400, "batch_size": 16}
RECIPES = {
    "topk": TrainConfig(**SMALL),
    "standard": TrainConfig(architecture="standard", **SMALL),
    "all rows": TrainConfig(architecture="standard", **(SMALL | {"batch_size": 0})),
    "tutorial": TrainConfig.original_tutorial(steps=400, d_sae=20),
}
every_recipe = pytest.mark.parametrize("recipe", sorted(RECIPES))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def planted(n: int = 20_000, n_true: int = 64, d_in: int = 32, p: float = 0.05) -> tuple[torch.Tensor, torch.Tensor]:
    """Unit directions, each on with probability ``p`` and strength U(0, 1) (FACTS of superposition)."""
    g = generator(11)
    true = torch.nn.functional.normalize(torch.randn(n_true, d_in, generator=g), dim=1)
    strength = torch.rand(n, n_true, generator=g) * (torch.rand(n, n_true, generator=g) < p)
    return strength @ true, true


def recovery(W_dec: torch.Tensor, true: torch.Tensor) -> tuple[float, int]:
    """Mean over the true directions of the best cosine with a decoder row, and how many are above 0.9."""
    best = (true @ torch.nn.functional.normalize(W_dec, dim=1).T).max(dim=1).values
    return float(best.mean()), int((best > 0.9).sum())


def small_data(n: int = 100, d_in: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    values = torch.randn(n, 5, generator=generator(3)).relu() @ torch.randn(5, d_in, generator=generator(4))
    values = values + 0.1 * torch.randn(n, d_in, generator=generator(5))
    position = torch.arange(n) % 10
    values[position == 0] *= 30
    return values, position


def finish(trainer: Trainer) -> list[TrainStep]:
    return list(trainer.run())


def untimed(records: list[TrainStep]) -> list[str]:
    """Records to compare: ``nan`` equal to itself, the speed left out."""
    return [repr(dataclasses.replace(r, tokens_per_second=0.0)) for r in records]


def same_state(a: Trainer, b: Trainer) -> bool:
    first, second = a.state_dict(), b.state_dict()
    first.pop("with_first"), second.pop("with_first")
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


class TestGradients:
    """By hand against autograd, in the worst case: everything on, features dead."""

    @pytest.mark.parametrize("architecture", ["standard", "topk"])
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
        values, index = pre.topk(k)
        acts = pre.relu() if architecture == "standard" else torch.zeros_like(pre).scatter(1, index, values.relu())
        out = acts @ W_dec + b_dec
        share = n if reduction == "sum" else n * d_in
        loss = (out - x).square().sum() / share
        if architecture == "standard":
            loss = loss + l1 * acts.sum() / (n if reduction == "sum" else n * d_sae)
        elif dead:
            strongest = pre[:, dead].topk(min(len(dead), d_in // 2))
            revived = torch.zeros(n, len(dead)).scatter(1, strongest.indices, strongest.values.relu())
            missing = (x - out).detach() - revived @ W_dec[dead]
            loss = loss + AUX_COEFFICIENT * missing.square().sum() / share
        loss.backward()

        work.forward(x)
        wanted = torch.tensor(dead) if dead and architecture == "topk" else None
        losses = work.backward(x, l1 if architecture == "standard" else 0.0, wanted)
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


class TestKnownFeatures:
    """What the recipes must find, and what they must not (FACTS section 2)."""

    def test_standard_finds_them(self) -> None:
        x, true = planted()
        config = TrainConfig(
            architecture="standard",
            d_sae=64,
            normalize=False,
            l1_coefficient=0.1,
            learning_rate=5e-3,
            steps=2000,
            batch_size=512,
        )
        trainer = Trainer(x, torch.ones(len(x), dtype=torch.long), config)
        last = finish(trainer)[-1]
        mmcs, found = recovery(trainer.sae().W_dec, true)
        assert mmcs > 0.97 and found >= 58
        assert 0.85 < last.explained_variance < 0.99
        assert 4 < last.l0 < 10

    def test_no_penalty_reconstructs_and_finds_nothing(self) -> None:
        x, true = planted()
        config = TrainConfig(
            architecture="standard", d_sae=64, l1_coefficient=0.0, learning_rate=2e-3, steps=1000, batch_size=512
        )
        trainer = Trainer(x, torch.ones(len(x), dtype=torch.long), config)
        last = finish(trainer)[-1]
        mmcs, found = recovery(trainer.sae().W_dec, true)
        assert last.explained_variance > 0.99
        assert mmcs < 0.55 and found == 0

    def test_topk_finds_them(self) -> None:
        x, true = planted()
        config = TrainConfig(d_sae=64, k=4, steps=1000, batch_size=512, learning_rate=2e-3)
        trainer = Trainer(x, torch.ones(len(x), dtype=torch.long), config)
        last = finish(trainer)[-1]
        mmcs, found = recovery(trainer.sae().W_dec, true)
        assert mmcs > 0.97 and found >= 58
        assert last.l0 <= 4 and last.dead <= 3

    @pytest.mark.parametrize("seed", [0, 11])
    def test_start_is_chance(self, seed: int) -> None:
        # Even with the seed of the data (11): a start that is the answer would prove nothing.
        x, true = planted(n=100)
        trainer = Trainer(x, torch.ones(100, dtype=torch.long), TrainConfig(d_sae=64, seed=seed))
        mmcs, found = recovery(trainer.sae().W_dec, true)
        assert mmcs == pytest.approx(0.40, abs=0.02) and found == 0

    def test_dead_features_come_back(self) -> None:
        # Half the features start where no token can wake them; the loss of the dead wakes most.
        x, _ = planted(n=5000)
        position = torch.ones(len(x), dtype=torch.long)
        config = TrainConfig(d_sae=64, k=4, steps=800, batch_size=500, learning_rate=2e-3)
        trainer = Trainer(x, position, config)
        trainer._engine.work.params.b_enc[:32] = -3.0
        records = finish(trainer)
        assert max(r.dead for r in records) >= 10
        assert records[-1].dead <= 4


class TestMeasures:
    def test_explained_variance_by_hand(self) -> None:
        x = torch.tensor([[1.0, 0.0], [3.0, 0.0], [5.0, 6.0]])  # means 3, 2; sum of squares 8 + 24
        assert explained_variance(x, x) == 1.0
        assert explained_variance(x, x.mean(0).expand(3, 2)) == 0.0
        assert explained_variance(x, x + 1.0) == pytest.approx(1 - 6 / 32)
        assert explained_variance(x, torch.zeros(3, 2)) == pytest.approx(1 - 71 / 32)

    def test_explained_variance_is_not_defined_without_variance(self) -> None:
        assert math.isnan(explained_variance(torch.ones(5, 2) * 7.3, torch.zeros(5, 2)))
        assert math.isnan(explained_variance(torch.ones(1, 2), torch.zeros(1, 2)))

    @pytest.mark.parametrize("architecture", ["standard", "topk"])
    def test_records_describe_the_batch(self, architecture: str) -> None:
        values, position = small_data()
        config = TrainConfig(architecture=architecture, d_sae=20, k=3, steps=5, batch_size=0)
        trainer, kept = Trainer(values, position, config), position != 0
        before = trainer.sae()
        for record in trainer.run():
            acts, out = before.encode(values[kept]), before(values[kept])
            assert record.explained_variance == pytest.approx(explained_variance(values[kept], out), abs=1e-5)
            squared = float((out - values[kept]).square().sum()) * trainer.scale**2 / int(kept.sum())
            assert record.reconstruction == pytest.approx(squared, rel=1e-4)
            assert record.l0 == pytest.approx(float((acts > 0).sum()) / int(kept.sum()))
            assert record.loss == pytest.approx(record.reconstruction + record.sparsity)
            before = trainer.sae()

    def test_with_first_is_measured_after_the_step_over_all_rows(self) -> None:
        values, position = small_data()
        trainer = Trainer(values, position, TrainConfig(d_sae=20, k=3, steps=7, batch_size=30))
        records = finish(trainer)
        expected = explained_variance(values, trainer.sae()(values))
        assert records[-1].explained_variance_with_first == pytest.approx(expected, abs=1e-4)

    def test_dead_is_counted_over_one_pass_or_a_tenth_of_the_run(self) -> None:
        values, position = small_data()  # 90 rows are kept
        made = {s: Trainer(values, position, TrainConfig(**(SMALL | {"steps": s}))) for s in (1, 30, 400)}
        assert {steps: trainer.dead_after for steps, trainer in made.items()} == {1: 16, 30: 48, 400: 90}
        trainer = made[400]
        trainer._engine.work.params.b_enc[:5] = -1e6
        records = [record for record in trainer.run() if record.step <= 10]
        assert records[4].dead == 0 and records[5].dead >= 5  # 5 x 16 = 80 tokens, 6 x 16 = 96

    def test_scale_leaves_the_first_position_out(self) -> None:
        values, position = small_data()
        trainer = Trainer(values, position, RECIPES["topk"])
        norm = values[position != 0].norm(dim=1).mean() * trainer.scale
        assert float(norm) == pytest.approx(math.sqrt(12), rel=1e-5)
        assert Trainer(values, position, RECIPES["topk"].changed(normalize=False)).scale == 1.0

    def test_center_starts_b_dec_at_the_median(self) -> None:
        values = torch.zeros(101, 4)
        values[:] = torch.tensor([1.0, 2.0, 3.0, 4.0])  # the guess meets every point but one
        values[100] = 1000.0
        trainer = Trainer(values, torch.ones(101, dtype=torch.long), RECIPES["topk"].changed(normalize=False))
        assert trainer.sae().b_dec.tolist() == pytest.approx([1.0, 2.0, 3.0, 4.0], abs=0.02)

    def test_unit_norm_decoder_and_tied_start(self) -> None:
        values, position = small_data()
        trainer = Trainer(values, position, RECIPES["standard"])
        start = trainer.sae()
        assert torch.equal(start.W_enc, start.W_dec.T) and float(start.b_enc.abs().sum()) == 0.0
        finish(trainer)
        assert torch.allclose(trainer.sae().W_dec.norm(dim=1), torch.ones(20), atol=1e-6)

    def test_batches_are_without_replacement(self) -> None:
        from sae_widget.training.data import Batches

        batches = Batches(10, 3, seed=1)
        epochs = [[batches.next().tolist() for _ in range(3)] for _ in range(4)]
        for epoch in epochs:
            assert len({row for batch in epoch for row in batch}) == 9
        assert len({str(epoch) for epoch in epochs}) == 4
        last = epochs[-1][-1]
        batches.undo()
        assert batches.next().tolist() == last


class TestGoingOn:
    @every_recipe
    @pytest.mark.parametrize("split", [1, 10, 137, 200, 399])
    def test_resume_is_bit_identical(self, recipe: str, split: int) -> None:
        values, position = small_data()
        whole = Trainer(values, position, RECIPES[recipe])
        expected = finish(whole)
        first = Trainer(values, position, RECIPES[recipe])
        records = [record for _, record in zip(range(split), first.run(), strict=False)]
        state = first.state_dict()
        second = Trainer(values, position, RECIPES[recipe])
        second.load_state_dict(state)
        assert second.step == split
        records += finish(second)
        assert same_state(second, whole)
        assert untimed(records) == untimed(expected)

    @every_recipe
    def test_state_survives_safetensors(self, recipe: str) -> None:
        from safetensors.torch import load, save

        values, position = small_data()
        trainer = Trainer(values, position, RECIPES[recipe])
        next(trainer.run())
        other = Trainer(values, position, RECIPES[recipe])
        other.load_state_dict(load(save(trainer.state_dict())))
        assert same_state(trainer, other)

    def test_state_of_another_run_is_refused(self) -> None:
        values, position = small_data()
        trainer = Trainer(values, position, RECIPES["topk"])
        other = Trainer(values[:60], position[:60], RECIPES["topk"])
        before = trainer.state_dict()
        with pytest.raises(ValueError, match=r"of another run: order is \[54\] torch.int64, needs \[90\]"):
            trainer.load_state_dict(other.state_dict())
        with pytest.raises(ValueError, match="params is missing"):
            trainer.load_state_dict({})
        assert all(torch.equal(before[k], v) for k, v in trainer.state_dict().items() if k != "with_first")

    @every_recipe
    def test_threads_change_nothing(self, recipe: str) -> None:
        values, position = small_data()
        config = RECIPES[recipe].changed(steps=150)
        alone = Trainer(values, position, config)
        expected = finish(alone)
        together = [Trainer(values, position, config) for _ in range(2)]
        records: dict[int, list[TrainStep]] = {}
        threads = [
            threading.Thread(target=lambda i=i: records.__setitem__(i, finish(together[i]))) for i in range(2)
        ]
        for thread in threads:
            thread.start()
        torch.rand(5, generator=generator(1))
        for thread in threads:
            thread.join()
        for i, trainer in enumerate(together):
            assert same_state(trainer, alone)
            assert untimed(records[i]) == untimed(expected)

    def test_more_steps_after_the_end(self) -> None:
        values, position = small_data()
        trainer = Trainer(values, position, RECIPES["topk"].changed(steps=5))
        assert [r.step for r in finish(trainer)] == [1, 2, 3, 4, 5]
        assert finish(trainer) == []
        trainer.reconfigure(trainer.config.changed(steps=8))
        assert [r.step for r in finish(trainer)] == [6, 7, 8]

    def test_settings_change_between_steps(self) -> None:
        values, position = small_data()
        trainer = Trainer(values, position, RECIPES["topk"])
        seen = []
        for record in trainer.run():
            seen.append(record)
            if record.step == 3:
                trainer.reconfigure(trainer.config.changed(k=2, learning_rate=5e-3, batch_size=30, steps=6))
        assert [r.l0 <= 2 for r in seen[3:]] == [True] * 3 and seen[2].l0 > 2
        assert [r.tokens for r in seen] == [16, 32, 48, 78, 108, 138]
        assert trainer.sae().k == 2

    @pytest.mark.parametrize(
        "change",
        [
            {"architecture": "standard"},
            {"d_sae": 21},
            {"seed": 1},
            {"skip_first": False},
            {"normalize": False},
            {"center": False},
            {"unit_norm_decoder": False},
            {"tied_init": False},
            {"loss_reduction": "mean"},
        ],
    )
    def test_what_is_fixed_is_refused_by_name(self, change: dict[str, Any]) -> None:
        values, position = small_data()
        trainer = Trainer(values, position, RECIPES["topk"])
        with pytest.raises(ValueError, match=f"^{next(iter(change))} cannot change while this SAE trains; stop first$"):
            trainer.reconfigure(trainer.config.changed(learning_rate=0.5, **change))
        assert trainer.config == RECIPES["topk"]

    @pytest.mark.parametrize("kind", [StandardSAE, TopKSAE])
    def test_start_from_an_sae(self, kind: type) -> None:
        values, position = small_data()
        config = RECIPES[kind.architecture].changed(steps=50, batch_size=0)
        first = Trainer(values, position, config)
        finish(first)
        start = first.sae()
        second = Trainer(values, position, config, start=start)
        assert torch.allclose(second.sae()(values), start(values), atol=1e-4)
        kept = values[position != 0]
        wanted = explained_variance(kept, start(kept))
        assert next(second.run()).explained_variance == pytest.approx(wanted, abs=1e-4)
        with pytest.raises(ValueError, match="needs? .*12 x 21. Nothing was trained"):
            Trainer(values, position, config.changed(d_sae=21), start=start)

    def test_sae_is_a_copy(self) -> None:
        values, position = small_data()
        trainer = Trainer(values, position, RECIPES["topk"], metadata={"layer": 2})
        sae = trainer.sae()
        before = sae.W_dec.clone()
        next(trainer.run())
        assert torch.equal(sae.W_dec, before)
        assert sae.metadata["layer"] == 2 and sae.metadata["training"]["steps"] == 0


class TestFaults:
    @pytest.mark.parametrize("recipe", ["topk", "standard"])
    def test_nan_at_every_step_keeps_the_last_good_weights(self, recipe: str) -> None:
        values, position = small_data()
        config = RECIPES[recipe].changed(steps=200)
        good = Trainer(values, position, config)
        broken = Trainer(values, position, config)
        kept = 0
        for step in range(1, 201):
            read = broken._engine.read
            broken._engine.read = lambda rows, read=read: read(rows).fill_(math.nan)
            with pytest.raises(TrainingFault, match=f"became NaN at step {step} .*Rolled back to step {step - 1},"):
                next(broken.run())
            broken._engine.read = read
            sae, wanted = broken.sae(), good.sae()
            kept += all(
                torch.equal(getattr(sae, name), getattr(wanted, name))
                and bool(torch.isfinite(getattr(sae, name)).all())
                for name in ("W_enc", "b_enc", "W_dec", "b_dec")
            )
            next(good.run()), next(broken.run())
        assert kept == 200
        assert same_state(good, broken)

    def test_infinite_gradient_is_not_applied(self) -> None:
        values, position = small_data()
        trainer = Trainer(values, position, RECIPES["standard"].changed(normalize=False, l1_coefficient=0.0))
        trainer._engine.work.params.W_dec.mul_(1e18)
        before = trainer._engine.work.params.vector.clone()
        with pytest.raises(TrainingFault, match="became infinite at step 1"):
            next(trainer.run())
        assert torch.equal(trainer._engine.work.params.vector, before)

    def test_advice_is_a_lower_learning_rate(self) -> None:
        assert str(TrainingFault(512, 1.0, "loss", math.nan)) == (
            "The loss became NaN at step 512 (learning rate 1). Rolled back to step 511, the last good weights. "
            "Try a learning rate of at most 0.1."
        )

    @pytest.mark.parametrize(("n", "said"), [(0, "0, need"), (1, "0 besides the first"), (2, "1 besides the first")])
    def test_too_few_activations(self, n: int, said: str) -> None:
        with pytest.raises(ValueError, match=f"not enough activations: {said}.*at least 2"):
            Trainer(torch.ones(n, 4), torch.arange(n), RECIPES["topk"])

    @every_recipe
    @pytest.mark.parametrize("value", [0.0, 1e-20, 3.5, 1e4])
    def test_constant_activations_give_no_nan_but_their_share(self, recipe: str, value: float) -> None:
        trainer = Trainer(torch.full((30, 12), value), torch.arange(30), RECIPES[recipe].changed(steps=30))
        for record in trainer.run():
            assert math.isfinite(record.loss) and math.isfinite(record.l0)
            assert math.isnan(record.explained_variance) and math.isnan(record.explained_variance_with_first)
        assert bool(torch.isfinite(trainer.state_dict()["params"]).all())

    @pytest.mark.parametrize("bad", [math.nan, math.inf])
    def test_activations_that_are_not_finite_are_refused(self, bad: float) -> None:
        values, position = small_data()
        values[7, 3] = bad
        with pytest.raises(ValueError, match=r"not finite.*token 7\. Nothing was trained"):
            Trainer(values, position, RECIPES["topk"])

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
    def test_other_precisions_become_float32(self, dtype: torch.dtype) -> None:
        values, position = small_data()
        half = values.to(dtype)
        records = finish(Trainer(half, position, RECIPES["topk"].changed(steps=3)))
        assert untimed(records) == untimed(finish(Trainer(half.float(), position, RECIPES["topk"].changed(steps=3))))

    def test_wrong_arguments_are_named(self) -> None:
        values, position = small_data()
        with pytest.raises(TypeError, match="values must be a torch tensor, got list"):
            Trainer([[1.0]], position, RECIPES["topk"])  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="values must be floating point"):
            Trainer(values.long(), position, RECIPES["topk"])
        with pytest.raises(ValueError, match=r"values must be \[n_tokens, d_in\], got shape \[1200\]"):
            Trainer(values.flatten(), position, RECIPES["topk"])
        with pytest.raises(ValueError, match=r"position must be \[100\] like values, got shape \[99\]"):
            Trainer(values, position[1:], RECIPES["topk"])

    def test_width_that_does_not_fit_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("sae_widget.memory.free_memory", lambda: 200_000_000)
        values, position = small_data()
        with pytest.raises(ValueError, match=r"width 131,072 needs about 0.3 GB, 0.2 GB free; largest that fits: "):
            Trainer(values, position, TrainConfig(d_sae=131_072))

    def test_a_batch_larger_than_the_data_is_the_data(self) -> None:
        values, position = small_data()
        trainer = Trainer(values, position, TrainConfig(d_sae=20, k=3, steps=3, batch_size=4096))
        assert trainer.batch_size == 90 and finish(trainer)[-1].tokens == 270


class TestManners:
    @every_recipe
    def test_nothing_global_changes(self, recipe: str) -> None:
        values, position = small_data()
        copy = values.clone()
        before = torch.get_rng_state(), torch.get_num_threads(), torch.get_default_dtype()
        run = train(values, position, RECIPES[recipe].changed(steps=30))
        next(run)
        assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
        list(run)
        assert torch.equal(before[0], torch.get_rng_state())
        assert before[1:] == (torch.get_num_threads(), torch.get_default_dtype())
        assert torch.equal(values, copy)

    @every_recipe
    def test_default_dtype_of_the_person_does_not_matter(self, recipe: str) -> None:
        values, position = small_data()
        config = RECIPES[recipe].changed(steps=30)
        expected = untimed(finish(Trainer(values, position, config)))
        torch.set_default_dtype(torch.float64)
        try:
            trainer = Trainer(values, position, config)
            assert untimed(finish(trainer)) == expected
            assert not [k for k, v in trainer.state_dict().items() if v.dtype == torch.float64]
        finally:
            torch.set_default_dtype(torch.float32)

    @every_recipe
    def test_an_interrupt_finishes_the_step(self, recipe: str, monkeypatch: pytest.MonkeyPatch) -> None:
        values, position = small_data()
        alone = Trainer(values, position, RECIPES[recipe].changed(steps=40))
        finish(alone)

        left = itertools.chain([True] * 10, itertools.repeat(False))

        def interrupting(work: Any) -> Any:
            def interrupted(*arguments: Any) -> Any:
                if next(left):
                    signal.raise_signal(signal.SIGINT)
                return work(*arguments)

            return interrupted

        monkeypatch.setattr(engine, "adam_step", interrupting(engine.adam_step))
        monkeypatch.setattr(original.FastEpochs, "_measure", interrupting(original.FastEpochs._measure))
        trainer, interrupts = Trainer(values, position, RECIPES[recipe].changed(steps=40)), 0
        while trainer.step < 40:
            try:
                finish(trainer)
            except KeyboardInterrupt:
                interrupts += 1
        assert interrupts == 10
        assert same_state(trainer, alone)
