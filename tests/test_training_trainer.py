"""The trainer from outside: the smallest runs, settings that change in the middle, what is refused, what is copied."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
import torch

from sae_widget.config import ARCHITECTURES, FIXED_SETTINGS, TrainConfig
from sae_widget.sae import REGISTRY, BatchTopKSAE
from sae_widget.training import Trainer, train
from sae_widget.training.base import Adam
from sae_widget.training.trainer import WAYS
from tests.training_runs import finish, same_state, small_data, untimed

CONFIG = TrainConfig(d_sae=20, k=3, steps=30, batch_size=16)
every_architecture = pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))


def made(**changes: Any) -> Trainer:
    return Trainer(*small_data(), CONFIG.changed(**changes))


def until(trainer: Trainer, step: int) -> Trainer:
    """The same, after so many records."""
    for record in trainer.run():
        if record.step == step:
            break
    return trainer


class TestSmallest:
    @every_architecture
    @pytest.mark.parametrize(
        ("n", "d_in", "d_sae", "batch_size"), [(2, 1, 1, 1), (2, 1, 1, 0), (3, 2, 1, 2), (2, 3, 4, 1), (5, 1, 7, 9)]
    )
    def test_runs_of_one_token_or_one_feature(
        self, architecture: str, n: int, d_in: int, d_sae: int, batch_size: int
    ) -> None:
        values = 1.0 + torch.arange(n * d_in, dtype=torch.float32).view(n, d_in)
        config = CONFIG.changed(architecture=architecture, d_sae=d_sae, k=1, steps=8, batch_size=batch_size)
        trainer = Trainer(values, torch.ones(n, dtype=torch.int64), config)
        records = finish(trainer)
        assert [record.step for record in records] == list(range(1, 9))
        assert trainer.batch_size == (min(batch_size, n) or n) and records[-1].tokens == 8 * trainer.batch_size
        for record in records:
            assert math.isfinite(record.loss) and 0 <= record.l0 <= d_sae and 0 <= record.dead <= d_sae
            assert math.isnan(record.explained_variance) is (trainer.batch_size == 1)
        sae = trainer.sae()
        assert sae.W_dec.shape == (d_sae, d_in) and bool(sae(values).isfinite().all())

    @every_architecture
    def test_no_step_at_all_gives_the_start(self, architecture: str) -> None:
        trainer = made(architecture=architecture)
        start, again = trainer.sae(), made(architecture=architecture).sae()
        assert trainer.step == trainer.tokens == 0 and start.metadata["training"]["steps"] == 0
        assert torch.equal(start.W_enc, again.W_enc) and torch.equal(start.b_enc, again.b_enc)
        trainer.run()  # nobody asks for a record
        assert trainer.step == 0 and torch.equal(trainer.sae().W_enc, start.W_enc)


class TestReconfigure:
    @every_architecture
    @pytest.mark.parametrize("batch_size", [16, 0])
    def test_the_same_settings_again_change_nothing(self, architecture: str, batch_size: int) -> None:
        own = {"architecture": architecture, "batch_size": batch_size, "target_l0": 4.0, "resample_every": 7}
        disturbed, alone = made(**own), made(**own)
        records = []
        for record in disturbed.run():
            records.append(record)
            if record.step % 4 == 1:
                disturbed.reconfigure(disturbed.config.changed())
        assert untimed(records) == untimed(finish(alone))
        assert same_state(disturbed, alone)

    @every_architecture
    def test_two_that_change_alike_stay_alike_also_over_a_state(self, architecture: str) -> None:
        change = {"batch_size": 30, "learning_rate": 4e-3, "bandwidth": 0.9, "l1_coefficient": 0.2, "steps": 25}
        whole, begun = (until(made(architecture=architecture), 9) for _ in range(2))
        for trainer in (whole, begun):
            trainer.reconfigure(trainer.config.changed(**change))
        later = made(architecture=architecture, **change)
        later.load_state_dict(begun.state_dict())
        assert untimed(finish(whole)) == untimed(finish(later))
        assert whole.step == 25 and same_state(whole, later)

    def test_fewer_steps_than_are_done_end_it(self) -> None:
        trainer, seen = made(), []
        for record in trainer.run():
            seen.append(record.step)
            if record.step == 5:
                trainer.reconfigure(trainer.config.changed(steps=3))
        assert seen == [1, 2, 3, 4, 5] and trainer.step == 5 and finish(trainer) == []

    def test_all_that_is_fixed_is_named_at_once(self) -> None:
        trainer = made()
        changed = trainer.config.changed(precision="bfloat16", seed=4, d_sae=40, k=2, matryoshka_levels=2)
        told = "d_sae, seed, matryoshka_levels, precision cannot change while this SAE trains; stop first"
        with pytest.raises(ValueError, match=f"^{told}$"):
            trainer.reconfigure(changed)
        assert trainer.config == CONFIG

    @pytest.mark.parametrize(
        "change",
        [{"start_firing": 0.2}, {"validation_share": 0.2}, {"max_norm_multiple": 3.0}, {"precision": "float32"}],
    )
    def test_what_is_fixed_stays(self, change: dict[str, Any]) -> None:
        trainer, (name,) = made(), change
        assert name in FIXED_SETTINGS
        with pytest.raises(ValueError, match=f"^{name} cannot change"):
            trainer.reconfigure(trainer.config.changed(**change))

    @pytest.mark.parametrize("given", [{"k": 2}, None])
    def test_what_is_no_settings_is_refused(self, given: Any) -> None:
        trainer = made()
        with pytest.raises(TypeError, match=r"^config must be a TrainConfig, got (dict|NoneType): TrainConfig\(steps="):
            trainer.reconfigure(given)
        assert trainer.config == CONFIG and len(finish(trainer)) == 30

    def test_a_batch_that_does_not_fit_into_memory_changes_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        values, position = torch.randn(9000, 3, generator=torch.Generator().manual_seed(1)), torch.ones(9000).long()
        config = CONFIG.changed(d_sae=4096)
        trainer, alone = Trainer(values, position, config), Trainer(values, position, config)
        until(trainer, 7)
        monkeypatch.setattr("sae_widget.training.trainer.free_memory", lambda: 10_000_000)
        with pytest.raises(ValueError, match=r"width 4,096 needs about .* GB, .* GB free; largest that fits: "):
            trainer.reconfigure(config.changed(batch_size=9000, learning_rate=0.5))
        assert trainer.config == config and trainer.batch_size == 16
        until(trainer, 9), until(alone, 9)
        assert same_state(trainer, alone)

    def test_what_takes_no_more_memory_is_not_held_against_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        trainer = made()
        monkeypatch.setattr("sae_widget.training.trainer.free_memory", lambda: 0)
        trainer.reconfigure(trainer.config.changed(batch_size=8, learning_rate=0.5))
        assert trainer.batch_size == 8 and len(finish(trainer)) == 30

    def test_what_is_free_and_what_it_has_may_be_used(self, monkeypatch: pytest.MonkeyPatch) -> None:
        trainer, asked = made(), []
        monkeypatch.setattr("sae_widget.training.trainer.free_memory", lambda: 1000)
        monkeypatch.setattr("sae_widget.training.trainer.needed_memory", lambda d_in, d_sae, rows, *_: 10 * rows)
        monkeypatch.setattr("sae_widget.training.trainer.check_memory", lambda *size, free: asked.append((size, free)))
        trainer.reconfigure(trainer.config.changed(batch_size=4096))  # all 90 that there are
        assert asked == [((12, 20, 90, "topk", 3), 1000 + 160)]


class TestStates:
    @pytest.mark.parametrize("architecture", ["batchtopk", "jumprelu", "topk"])
    def test_one_that_is_loaded_while_it_runs_is_gone_on_from(self, architecture: str) -> None:
        whole, moved, records = until(made(architecture=architecture), 11), made(architecture=architecture), []
        for record in moved.run():
            records.append(record.step)
            if len(records) == 7:
                moved.load_state_dict(whole.state_dict())
        assert records == [*range(1, 8), *range(12, 31)]
        finish(whole)
        assert same_state(moved, whole)

    def test_the_kind_of_its_numbers_is_looked_at(self) -> None:
        trainer = made()
        state = trainer.state_dict()
        state["exp_avg"] = state["exp_avg"].double()
        told = r"exp_avg is \[\d+\] torch.float64, needs \[\d+\] torch.float32. The run stays as it was.$"
        with pytest.raises(ValueError, match=told):
            trainer.load_state_dict(state)

    @pytest.mark.parametrize(
        ("own", "other", "what"),
        [
            ("topk", "jumprelu", "params is"),
            ("topk", "gated", "params is"),
            ("jumprelu", "topk", "params is"),
            ("gated", "standard", "params is"),
            ("batchtopk", "topk", "memory.threshold is missing"),
        ],
    )
    def test_that_of_another_kind_is_refused(self, own: str, other: str, what: str) -> None:
        trainer, given = until(made(architecture=own), 3), until(made(architecture=other), 5)
        before = trainer.state_dict()
        with pytest.raises(ValueError, match=rf"^This state is of another run: {what}.* The run stays as it was\.$"):
            trainer.load_state_dict(given.state_dict())
        after = trainer.state_dict()
        assert all(torch.equal(after[name], before[name]) for name in before)

    @pytest.mark.parametrize("architecture", ["topk", "standard", "gated"])
    def test_without_the_ways_it_goes_on_in_those_of_here(self, architecture: str) -> None:
        first, second = until(made(architecture=architecture), 5), made(architecture=architecture)
        state, ways = first.state_dict(), second.state_dict()
        dropped = [name for name in WAYS if state.pop(name, None) is not None]
        assert "memory.multiplies" in dropped and "memory.pressure" in state
        second.load_state_dict(state)
        found = second.state_dict()
        assert all(torch.equal(found[name], ways[name]) for name in dropped)
        assert all(torch.equal(found[name], state[name]) for name in state)

    def test_a_damaged_generator_changes_nothing(self) -> None:
        trainer, alone = until(made(), 7), until(made(), 7)
        state = until(made(), 13).state_dict()  # two epochs further
        state["generator"].fill_(255)
        told = "This state is damaged: its generator is none. The run stays as it was."
        with pytest.raises(ValueError, match=f"^{re.escape(told)}$"):
            trainer.load_state_dict(state)
        assert untimed(finish(trainer)) == untimed(finish(alone))
        assert same_state(trainer, alone)


class TestSae:
    @every_architecture
    def test_it_is_the_kind_with_all_its_parts_as_copies(self, architecture: str) -> None:
        trainer = until(made(architecture=architecture, target_l0=4.0), 6)
        sae, kept = trainer.sae(), trainer.state_dict()
        assert type(sae) is REGISTRY[architecture] and (sae.d_in, sae.d_sae) == (12, 20)
        p = trainer._engine.work.params
        own = {name: getattr(p, name) for name in ("W_enc", "b_enc", "W_dec", "b_dec")} | p.extra
        for name, tensor in own.items():
            given = getattr(sae, name)
            assert torch.equal(given, tensor.t() if name == "W_enc" else tensor) and given.is_contiguous(), name
            given.fill_(7.0)
        assert torch.equal(trainer.state_dict()["params"], kept["params"])
        if "k" in ARCHITECTURES[architecture]:
            assert sae.k == 4  # type: ignore[attr-defined]
        assert sae.scale == trainer.scale and sae.apply_b_dec_to_input

    def test_its_threshold_is_the_one_of_its_training(self) -> None:
        trainer = until(made(architecture="batchtopk"), 6)
        sae = trainer.sae()
        assert isinstance(sae, BatchTopKSAE)
        assert sae.threshold == float(trainer.state_dict()["memory.threshold"]) > 0

    def test_its_metadata_say_how_it_was_made_and_are_its_own(self) -> None:
        given = {"layer": 2, "training": "of before"}
        trainer = Trainer(*small_data(), CONFIG, metadata=given)
        given["layer"] = 9
        until(trainer, 6)
        found = trainer.sae().metadata
        assert found["layer"] == 2 and found["training"]["steps"] == 6 and found["training"]["tokens"] == 96
        assert TrainConfig(**found["training"]["settings"]) == CONFIG
        found["layer"] = 5
        assert trainer.sae().metadata["layer"] == 2

    @pytest.mark.parametrize("center", [True, False])
    def test_it_reads_as_it_was_trained(self, center: bool) -> None:
        assert made(center=center, normalize=False).sae().apply_b_dec_to_input is center
        assert made(normalize=False).sae().scale == 1.0


class TestTrain:
    def test_options_are_the_trainers(self) -> None:
        values, position = small_data()
        start = made().sae()
        records = list(train(values, position, CONFIG, start=start, metadata={"layer": 1}))
        assert untimed(records) == untimed(finish(Trainer(values, position, CONFIG, start=start)))

    def test_what_is_wrong_is_told_at_the_call(self) -> None:
        values, position = small_data()
        with pytest.raises(TypeError, match="unexpected keyword argument 'strat'"):
            train(values, position, CONFIG, strat=None)
        with pytest.raises(
            ValueError, match="The SAE to start from is topk, 12 x 20; these settings need topk, 12 x 21"
        ):
            train(values, position, CONFIG.changed(d_sae=21), start=made().sae())
        with pytest.raises(TypeError, match="config must be a TrainConfig, got NoneType"):
            train(values, position)
        with pytest.raises(TypeError, match="position must be a torch tensor, got NoneType"):
            train(values, None, CONFIG)

    def test_nothing_is_trained_before_a_record_is_asked_for(self, monkeypatch: pytest.MonkeyPatch) -> None:
        adam, done = Adam.__call__, []

        def counted(self: Adam, step: int, *rest: Any) -> None:
            done.append(step)
            adam(self, step, *rest)

        monkeypatch.setattr(Adam, "__call__", counted)
        records = train(*small_data(), CONFIG)
        assert done == []
        assert next(records).step == 1 and done == [1]
