"""Small steps that are done some at a time: when they are, and that nobody can tell."""

from __future__ import annotations

import math
import warnings
from typing import Any

import pytest
import torch

from sae_widget.config import TrainConfig
from sae_widget.training import Trainer, TrainingFault, schedule, several
from sae_widget.training.base import Adam
from sae_widget.training.data import Gathered
from sae_widget.training.engine import Engine
from sae_widget.training.gradients import Losses
from sae_widget.training.several import Several
from sae_widget.training.small import Passes, SmallWorkspace
from tests.test_feed import Blocks
from tests.training_runs import RECIPES, finish, generator, ladder, same_state, small_data, untimed

ONE_BY_ONE = "sae_widget.training.trainer.MOST_STEPS"


def data(n: int = 700) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(n, 12, generator=generator(3)), torch.arange(n) % 10


def made(recipe: str = "standard", n: int = 700, **changes: Any) -> Trainer:
    return Trainer(*data(n), RECIPES[recipe].changed(**({"steps": 100} | changes)))


def at_once(trainer: Trainer) -> int:
    """How many steps come together after the first, which is measured by itself."""
    next(trainer.run())
    trainer.sae()
    return several.steps_at_once(trainer._engine, several.MOST_STEPS)


@pytest.fixture
def one_by_one(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Finish a trainer with no two steps together."""

    def run(trainer: Trainer) -> list[Any]:
        with monkeypatch.context() as patch:
            patch.setattr(ONE_BY_ONE, 1)
            return finish(trainer)

    return run


class TestWhen:
    @pytest.mark.parametrize("recipe", ["standard", "topk"])
    def test_small_steps_are_done_together(self, recipe: str) -> None:
        assert at_once(made(recipe)) > 1

    @pytest.mark.parametrize(
        "changes",
        [
            {"batch_size": 0},
            {"batch_size": 512, "d_sae": 512},
            {"skip_first": False},
            {"resample_every": 50},
            {"target_l0": 4.0},
            {"architecture": "batchtopk"},
            {"architecture": "jumprelu"},
        ],
        ids=str,
    )
    def test_not_what_is_large_or_depends_on_the_step_before(self, changes: dict[str, Any]) -> None:
        assert at_once(made(**changes)) <= 1

    def test_a_group_ends_with_its_epoch_and_in_front_of_the_end(self) -> None:
        assert at_once(made()) == several.MOST_STEPS
        assert at_once(made(n=100)) == 4  # 90 rows are five batches of 16
        assert at_once(made(steps=8)) == 7

    def test_a_group_ends_where_the_fixed_sets_are_measured(self) -> None:
        interval = math.ceil(20 * 700 / 50)
        trainer = made(n=700, batch_size=50, steps=2000)
        assert trainer._engine._fixed_set.interval(50) == interval
        assert [trainer._engine.until_measured(step, 50) for step in (1, 2, interval, interval + 1)] == [
            1,
            interval - 1,
            1,
            interval,
        ]

    def test_a_group_ends_where_a_feature_may_die(self) -> None:
        trainer = made("topk", steps=2000)
        assert at_once(trainer) > 1
        engine = trainer._engine
        engine.since[3] = engine.dead_after - 1 - 2 * 16
        assert several.steps_at_once(engine, several.MOST_STEPS) == 3
        engine.since[3] = engine.dead_after - 1
        assert several.steps_at_once(engine, several.MOST_STEPS) == 1
        engine.since[3] = engine.dead_after  # dead in all of them
        assert several.steps_at_once(engine, several.MOST_STEPS) == several.MOST_STEPS
        engine.since[5] = engine.dead_after - 17
        assert several.steps_at_once(engine, several.MOST_STEPS) == 2
        engine.since.fill_(engine.dead_after)
        assert several.steps_at_once(engine, several.MOST_STEPS) == several.MOST_STEPS

    def test_with_more_dead_features_than_are_revived_each_step_chooses(self, monkeypatch: pytest.MonkeyPatch) -> None:
        trainer = made("topk", steps=2000)
        assert at_once(trainer) > 1
        trainer._engine.since[:5] = trainer._engine.dead_after
        monkeypatch.setattr(several, "MOST_REVIVED", 4)
        assert several.steps_at_once(trainer._engine, several.MOST_STEPS) == 0


class TestNobodyCanTell:
    @pytest.mark.parametrize("recipe", ["standard", "topk"])
    @pytest.mark.parametrize(
        "changes",
        [
            {},
            {"validation_share": 0.2, "batch_size": 40},
            {"k": 1, "steps": 400},
            {"max_grad_norm": 0.0},
            {"max_grad_norm": 1e-3},
            {"unit_norm_decoder": False},
            {"l1_coefficient": 0.0},
            {"loss_reduction": "mean", "center": False},
            {"lr_schedule": "halving", "steps": 250, "normalize": False},
        ],
        ids=str,
    )
    def test_a_run_is_the_same(self, recipe: str, changes: dict[str, Any], one_by_one: Any) -> None:
        together, alone = made(recipe, **changes), made(recipe, **changes)
        assert untimed(finish(together)) == untimed(one_by_one(alone))
        assert same_state(together, alone)

    @pytest.mark.parametrize("recipe", ["standard", "topk"])
    def test_a_run_over_a_corpus_in_blocks(self, recipe: str, one_by_one: Any) -> None:
        together, alone = (Trainer(Blocks(), config=RECIPES[recipe].changed(steps=60)) for _ in range(2))
        assert at_once(together) > 1
        assert untimed(finish(together)) == untimed(one_by_one(alone))[1:]
        assert same_state(together, alone)

    def test_features_that_die_are_revived(self, one_by_one: Any) -> None:
        values, position, _ = ladder(2000)
        config = TrainConfig(architecture="topk", d_sae=256, k=4, steps=300, batch_size=64)
        together, alone = Trainer(values, position, config), Trainer(values, position, config)
        records = finish(together)
        assert max(record.dead for record in records) > 0
        assert untimed(records) == untimed(one_by_one(alone))

    def test_a_group_ends_where_a_dead_feature_fires(self, one_by_one: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        cuts, begin = [], Several._begin

        def noted(self: Several, engine: Engine, count: int) -> None:
            begin(self, engine, count)
            asleep = [] if self.revived is None else self.revived.tolist()
            fired = [[on for on in asleep if done.losses.fired[on] > 0] for done in self.done]
            assert not any(fired[:-1]) and self.cut == bool(fired[-1] and len(self.records) < count)
            cuts.append((count, len(self.records)))

        monkeypatch.setattr(Several, "_begin", noted)
        values, position, _ = ladder(2000)
        config = TrainConfig(architecture="topk", d_sae=256, k=4, steps=600, batch_size=64)
        together, alone, looked = (Trainer(values, position, config) for _ in range(3))
        records = finish(together)
        assert sum(done < count for count, done in cuts) > 2
        asked = [count for count, _ in cuts]
        assert any(after == done for (count, done), after in zip(cuts, asked[1:], strict=False) if done < count)
        assert untimed(records) == untimed(one_by_one(alone))
        assert same_state(together, alone)
        for record in looked.run():
            if record.step % 5 == 0:
                looked.sae()
        assert same_state(looked, alone)

    @pytest.mark.parametrize("recipe", ["standard", "topk"])
    def test_whoever_looks_sees_the_weights_of_the_last_record(self, recipe: str, one_by_one: Any) -> None:
        looked, alone = made(recipe), made(recipe)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ONE_BY_ONE, 1)
            wanted = [alone.state_dict()["params"] for _ in alone.run()]
        for record in looked.run():
            if record.step % 3:
                found = looked.state_dict()
                assert torch.equal(found["params"], wanted[record.step - 1])
                assert found["counters"].tolist() == [record.step, record.tokens] == [looked.step, looked.tokens]
        assert same_state(looked, alone)

    def test_a_state_in_the_middle_goes_on(self) -> None:
        whole, begun, goes_on = (made() for _ in range(3))
        records = finish(whole)
        for record in begun.run():
            if record.step == 21:
                break
        goes_on.load_state_dict(begun.state_dict())
        assert untimed(finish(goes_on)) == untimed(records[21:])
        assert same_state(goes_on, whole)

    def test_two_generators_of_one_trainer_share_its_steps(self) -> None:
        trainer, alone = made(), made()
        first, second = trainer.run(), trainer.run()
        records = [next(first) for _ in range(5)] + [next(second) for _ in range(3)] + list(first)
        assert untimed(records) == untimed(finish(alone))
        assert same_state(trainer, alone)
        assert list(second) == []

    @pytest.mark.parametrize(("batch_size", "d_in"), [(1, 5), (3, 5), (3, 33), (2, 50)])
    def test_rows_that_do_not_begin_on_a_cache_line(self, batch_size: int, d_in: int, one_by_one: Any) -> None:
        values, position = torch.randn(300, d_in, generator=generator(3)), torch.arange(300) % 10
        config = RECIPES["standard"].changed(steps=100, batch_size=batch_size, center=False)
        together, alone = Trainer(values, position, config), Trainer(values, position, config)
        assert untimed(finish(together)) == untimed(one_by_one(alone))
        assert same_state(together, alone)

    def test_after_a_look_a_group_is_small_and_grows(self, monkeypatch: pytest.MonkeyPatch) -> None:
        trainer, steps, adam = made(steps=60), [], Adam.__call__

        def counted(self: Adam, step: int, *rest: Any) -> None:
            steps.append(step)
            adam(self, step, *rest)

        monkeypatch.setattr(Adam, "__call__", counted)
        for record in trainer.run():
            if record.step <= 20:
                trainer.sae()
        assert steps[:20] == list(range(1, 21))  # none was taken back
        assert steps == list(range(1, 61))


class TestFaults:
    def test_a_fault_while_somebody_looks_is_no_harm(self, monkeypatch: pytest.MonkeyPatch) -> None:
        trainer, good = made(), made()
        records, wanted = [], finish(made())
        for record in trainer.run():
            records.append(record)
            if record.step == 20:
                break
        adam, left = Adam.__call__, iter([False, False, True])

        def full(self: Adam, *arguments: Any) -> None:
            if next(left, False):
                raise MemoryError("no memory")
            adam(self, *arguments)

        monkeypatch.setattr(Adam, "__call__", full)
        with pytest.raises(MemoryError):
            trainer.sae()
        assert next(left, None) is None and trainer.step == 20
        at_twenty = trainer.state_dict()
        for record in good.run():
            if record.step == 20:
                break
        assert torch.equal(at_twenty["params"], good.state_dict()["params"])
        assert untimed(records + finish(trainer)) == untimed(wanted)
        finish(good)
        assert same_state(trainer, good)

    @pytest.mark.parametrize("most", [0.0, 1.0])
    @pytest.mark.parametrize("what", ["loss", "gradient"])
    def test_what_is_not_finite_is_not_applied(self, what: str, most: float, monkeypatch: pytest.MonkeyPatch) -> None:
        """Steps 1; 2 and 3; 4 to 7 come together: it is the fifth."""
        trainer, good, make, calls = made(max_grad_norm=most), made(max_grad_norm=most), Passes._backward, []

        def broken(self: Passes, work: SmallWorkspace) -> Any:
            backward = make(self, work)

            def infinite(*arguments: Any) -> Losses:
                losses = backward(*arguments)
                calls.append(what)
                if len(calls) < 5:
                    return losses
                if what == "loss":
                    return losses._replace(reconstruction=math.inf)
                work.grads.vector[0] = math.inf
                return losses

            return infinite

        records = []
        with monkeypatch.context() as patch:
            patch.setattr(Passes, "_backward", broken)
            with pytest.raises(TrainingFault, match=f"^The {what} became infinite at step 5 "):
                for record in trainer.run():
                    records.append(record)
        trainer.reconfigure(trainer.config.changed(k=2))  # a standard one has no k: the passes are made anew
        assert untimed(records + finish(trainer)) == untimed(finish(good))
        assert same_state(trainer, good)

    @pytest.mark.parametrize("blocks", [False, True])
    def test_a_batch_that_cannot_be_gathered_comes_again(self, blocks: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        config = RECIPES["standard"].changed(steps=40)
        trainer, good = (Trainer(Blocks(), config=config) if blocks else made(steps=40) for _ in range(2))
        records = []
        take, left = Gathered.take, iter([False, True])

        def full(self: Gathered, chosen: Any) -> torch.Tensor:
            if next(left, False):
                raise MemoryError("no memory")
            return take(self, chosen)

        monkeypatch.setattr(Gathered, "take", full)
        with pytest.raises(MemoryError):
            for record in trainer.run():
                records.append(record)
        assert len(records) == trainer.step == 1
        assert untimed(records + finish(trainer)) == untimed(finish(good))
        assert same_state(trainer, good)

    def test_first_tokens_as_large_as_can_be_give_no_warning(self, one_by_one: Any) -> None:
        values, position = data()
        values[position == 0] = 0.0
        values[::10, 0], values[::20, 0] = 3e38, -3e38
        config = RECIPES["standard"].changed(steps=3, normalize=False)
        for run in (finish, one_by_one):
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                assert all(math.isfinite(record.loss) for record in run(Trainer(values, position, config)))

    @pytest.mark.parametrize("bad", [2, 9, 34])
    def test_the_steps_in_front_of_a_fault_are_told_and_kept(self, bad: int, monkeypatch: pytest.MonkeyPatch) -> None:
        trainer, good, weight, seen = made(), made(), schedule.penalty, []
        with monkeypatch.context() as patch:
            patch.setattr(schedule, "penalty", lambda config, step: math.nan if step == bad else weight(config, step))
            with pytest.raises(TrainingFault, match=f"became NaN at step {bad} "):
                for record in trainer.run():
                    seen.append(record)
        assert [record.step for record in seen] == list(range(1, bad))
        assert untimed(seen + finish(trainer)) == untimed(finish(good))
        assert same_state(trainer, good)

    @pytest.mark.parametrize(
        ("owner", "place", "nth", "kept"), [(Adam, "__call__", 5, 3), (Engine, "measure_now_and_then", 2, 1)]
    )
    def test_any_other_fault_takes_the_whole_group_back(
        self, owner: type, place: str, nth: int, kept: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Steps 1; 2 and 3; 4 to 7 come together."""
        trainer, good, calls = made(), made(), []
        work = getattr(owner, place)

        def full(self: Any, *arguments: Any) -> Any:
            calls.append(place)
            if len(calls) == nth:
                raise MemoryError("no memory")
            return work(self, *arguments)

        records = []
        with monkeypatch.context() as patch:
            patch.setattr(owner, place, full)
            with pytest.raises(MemoryError):
                for record in trainer.run():
                    records.append(record)
        assert trainer.step == len(records) == kept
        assert untimed(records + finish(trainer)) == untimed(finish(good))
        assert same_state(trainer, good)


def test_the_last_step_is_measured() -> None:
    records = finish(made(steps=40))
    shown = [record.explained_variance_with_first for record in records]
    assert len(set(shown[:-1])) == 1 and shown[-1] > shown[0]


def test_the_class_is_what_the_trainer_uses(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    make = Several.__init__

    def counted(self: Several, engine: Engine, count: int) -> None:
        make(self, engine, count)
        sizes.append(len(self.done))

    monkeypatch.setattr(Several, "__init__", counted)
    records = finish(Trainer(*small_data(), RECIPES["standard"].changed(steps=31)))
    assert len(records) == 31 and sum(sizes) >= 20 and max(sizes) == 4
