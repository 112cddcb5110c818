"""Faults that lose nothing, and manners towards the rest of the process."""

from __future__ import annotations

import itertools
import math
import signal
from typing import Any

import pytest
import torch
import torch._dynamo  # torch.optim imports it at its first use, and that changes warning filters

from sae_widget.config import TrainConfig
from sae_widget.training import (
    Trainer,
    TrainingFault,
    engine,
    original,
    schedule,
    train,
)
from tests.training_runs import (
    RECIPES,
    every_recipe,
    finish,
    same_state,
    small_data,
    untimed,
)


class TestFaults:
    @pytest.mark.parametrize("recipe", ["topk", "standard"])
    def test_nan_at_every_step_keeps_the_last_good_weights(self, recipe: str) -> None:
        values, position = small_data()
        config = RECIPES[recipe].changed(steps=200)
        good = Trainer(values, position, config)
        broken = Trainer(values, position, config)
        kept = 0
        for step in range(1, 201):
            following = broken._engine.feed.next
            broken._engine.feed.next = lambda count, following=following: following(count).fill_(math.nan)
            with pytest.raises(TrainingFault, match=f"became NaN at step {step} .*Rolled back to step {step - 1},"):
                next(broken.run())
            broken._engine.feed.next = following
            sae, wanted = broken.sae(), good.sae()
            kept += all(
                torch.equal(getattr(sae, name), getattr(wanted, name))
                and bool(torch.isfinite(getattr(sae, name)).all())
                for name in ("W_enc", "b_enc", "W_dec", "b_dec")
            )
            next(good.run()), next(broken.run())
        assert kept == 200
        assert same_state(good, broken)

    @pytest.mark.parametrize("recipe", ["standard", "all rows", "tutorial"])
    def test_a_loss_of_nan_at_every_step_of_every_path(self, recipe: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """The same through the penalty's weight, which the path of the tutorial's recipe reads as well."""
        values, position = small_data()
        config, weight = RECIPES[recipe].changed(steps=200), schedule.penalty
        good, broken, kept = Trainer(values, position, config), Trainer(values, position, config), 0
        for step in range(1, 201):
            with monkeypatch.context() as patch:
                patch.setattr(schedule, "penalty", lambda c, at, bad=step: math.nan if at == bad else weight(c, at))
                with pytest.raises(TrainingFault, match=f"became NaN at step {step} .*Rolled back to step {step - 1},"):
                    next(broken.run())
            found, wanted = broken.state_dict()["params"], good.state_dict()["params"]
            kept += bool(torch.isfinite(found).all()) and torch.equal(found, wanted)
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
        monkeypatch.setattr("sae_widget.memory.free_memory", lambda: 140_000_000)
        values, position = small_data()
        with pytest.raises(ValueError, match=r"width 131,072 needs about 0.3 GB, 0.1 GB free; largest that fits: "):
            Trainer(values, position, TrainConfig(d_sae=131_072))

    def test_a_batch_larger_than_the_data_is_the_data(self) -> None:
        values, position = small_data()
        trainer = Trainer(values, position, TrainConfig(d_sae=20, k=3, steps=3, batch_size=4096))
        assert trainer.batch_size == 90 and finish(trainer)[-1].tokens == 270

    def test_what_is_no_recipe_is_refused_at_once(self) -> None:
        values, position = small_data()
        for use in (train, Trainer):
            with pytest.raises(TypeError, match=r"config must be a TrainConfig, got dict: TrainConfig\(steps="):
                use(values, position, {})


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

        measure = engine.Engine.measure_now_and_then
        monkeypatch.setattr(engine.Engine, "measure_now_and_then", interrupting(measure))  # once in a step, or group
        monkeypatch.setattr(original.FastEpochs, "_measure", interrupting(original.FastEpochs._measure))
        trainer, interrupts = Trainer(values, position, RECIPES[recipe].changed(steps=40)), 0
        while trainer.step < 40:
            try:
                finish(trainer)
            except KeyboardInterrupt:
                interrupts += 1
        assert interrupts == 10
        assert same_state(trainer, alone)
