"""Pause, resume, other settings, other threads: bit for bit the same run."""

from __future__ import annotations

import copy
import pickle
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
import torch._dynamo  # torch.optim imports it at its first use, and that changes warning filters

from sae_widget.checkpoint import load_training_state, save_training_state
from sae_widget.sae import JumpReLUSAE, StandardSAE, TopKSAE
from sae_widget.training import (
    Trainer,
    TrainStep,
    explained_variance,
)
from sae_widget.training.start import going_on
from tests.training_runs import (
    RECIPES,
    every_recipe,
    finish,
    generator,
    same_state,
    small_data,
    untimed,
)


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
    @pytest.mark.parametrize("split", [1, 58, 200, 399])
    def test_resume_from_a_file_is_bit_identical(self, recipe: str, split: int, tmp_path: Path) -> None:
        values, position = small_data()
        whole, first, second = (Trainer(values, position, RECIPES[recipe]) for _ in range(3))
        expected = finish(whole)
        records = [record for _, record in zip(range(split), first.run(), strict=False)]
        save_training_state(tmp_path, first.state_dict(), {"step": split})
        state, info = load_training_state(tmp_path)
        assert info["step"] == split
        second.load_state_dict(state)
        assert untimed(records + finish(second)) == untimed(expected)
        assert same_state(second, whole)

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
        threads = [threading.Thread(target=lambda i=i: records.__setitem__(i, finish(together[i]))) for i in range(2)]
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
        with pytest.raises(ValueError, match=r"needs? .*12 x 21. Nothing was trained"):
            Trainer(values, position, config.changed(d_sae=21), start=start)

    @pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickle.dumps])
    def test_a_trainer_is_not_copied(self, copied: Any) -> None:
        trainer = Trainer(*small_data(), RECIPES["topk"])
        with pytest.raises(TypeError, match=r"cannot be copied or pickled: give its state_dict\(\) to a new one's"):
            copied(trainer)

    def test_sae_is_a_copy(self) -> None:
        values, position = small_data()
        trainer = Trainer(values, position, RECIPES["topk"], metadata={"layer": 2})
        sae = trainer.sae()
        before = sae.W_dec.clone()
        next(trainer.run())
        assert torch.equal(sae.W_dec, before)
        assert sae.metadata["layer"] == 2 and sae.metadata["training"]["steps"] == 0


class TestSettingsOfAnSaeThatGoesOn:
    def test_its_kind_and_size_are_its_own(self) -> None:
        g = generator(3)
        shapes = {"W_enc": (12, 20), "b_enc": (20,), "W_dec": (20, 12), "b_dec": (12,)}
        parts = {name: torch.randn(shape, generator=g) for name, shape in shapes.items()}
        settings = RECIPES["standard"].changed(d_sae=64, k=9, learning_rate=3e-4, center=True)
        found = going_on(TopKSAE(**parts, k=5, apply_b_dec_to_input=False), settings)
        assert found == settings.changed(architecture="topk", d_sae=20, k=5, center=False)
        jumping = JumpReLUSAE(**parts, threshold=torch.ones(20))
        wanted = settings.changed(architecture="jumprelu", d_sae=20)
        assert going_on(jumping, settings) == wanted
        values, position = small_data()
        assert Trainer(values, position, wanted, start=jumping).config == wanted
        with pytest.raises(ValueError, match=r"normalises each token \(center\)"):
            going_on(StandardSAE(**parts, normalize_activations="center"), settings)
