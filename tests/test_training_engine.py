"""The engine of a run: its counters and limits by hand, what a fault leaves, and that a state holds all there is."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from sae_widget.config import ARCHITECTURES, TrainConfig
from sae_widget.metrics import explained_variance
from sae_widget.sae import StandardSAE
from sae_widget.training import TrainingFault, engine
from sae_widget.training.base import BETA1, TrainStep
from sae_widget.training.engine import Engine
from sae_widget.training.feed import MemoryFeed
from sae_widget.training.gradients import Losses
from sae_widget.training.mesh import Alone
from tests.training_runs import generator, small_data, untimed

SETTINGS: dict[str, Any] = {"architecture": "standard", "d_sae": 20, "k": 3, "steps": 100, "batch_size": 16}
every_architecture = pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))


def made(start: Any = None, mesh: Alone | None = None, n: int = 100, **changes: Any) -> Engine:
    config = TrainConfig(**(SETTINGS | changes))
    with torch.no_grad():
        made = Engine(MemoryFeed(*small_data(n), config), config, start, *([mesh] if mesh else []))
        made.agree()
    return made


def steps(engine: Engine, count: int) -> list[TrainStep]:
    with torch.no_grad():
        return [engine.one_step() for _ in range(count)]


def losses(reconstruction: float = 1.0, sparsity: float = 0.5) -> Losses:
    return Losses(reconstruction, sparsity, torch.zeros(20))


class TestDead:
    @pytest.mark.parametrize(
        ("batch_size", "steps", "most", "after"),
        [
            (16, 30, 10**7, 48),  # a tenth of 480 tokens
            (16, 39, 10**7, 62),  # of 624, rounded down
            (16, 400, 10**7, 90),  # one pass over the rows that are kept
            (16, 1, 10**7, 16),  # no less than a batch
            (0, 400, 10**7, 90),
            (16, 400, 50, 50),
        ],
    )
    def test_after_how_many_tokens(
        self, batch_size: int, steps: int, most: int, after: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(engine, "DEAD_TOKENS", most)
        assert made(batch_size=batch_size, steps=steps).dead_after == after

    def test_silence_is_counted_in_tokens_and_ended_by_one(self) -> None:
        running = made()
        running.work.params.b_enc[3] = -1e6
        running.work.params.b_enc[5] = 1e3
        running.work.params.b_enc[7] = -1e6
        running.since[7] = running.dead_after - 32
        for step in range(1, 4):
            running.since[9] = 10**6
            running.work.params.b_enc[9] = 1e3 if step == 3 else -1e6
            (record,) = steps(running, 1)
            assert int(running.since[3]) == 16 * step and int(running.since[5]) == 0
            assert set(running.since.tolist()) - set(running.since[[7, 9]].tolist()) <= {0, 16, 32, 48}
            assert (int(running.since[7]), int(running.since[9])) == (
                running.dead_after - 32 + 16 * step,
                0 if step == 3 else 10**6 + 16,
            )
            assert record.dead == running.n_dead == [1, 2, 1][step - 1]

    def test_l0_is_over_the_tokens_of_the_batch(self) -> None:
        running = made()
        running.work.params.b_enc.fill_(-1e6)
        running.work.params.b_enc[:3] = 1e3
        assert steps(running, 1)[0].l0 == 3.0

    @pytest.mark.parametrize("limit", [5, 3, 1])
    def test_those_that_were_dead_longest_are_revived(self, limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(engine, "MOST_REVIVED", limit)
        running = made(architecture="topk")
        after = running.dead_after
        running.since[[2, 4, 8, 9, 13]] = torch.tensor([after, after + 5, after - 1, after + 9, after + 1])
        found = running.dead_features()
        assert found is not None and set(found.tolist()) == set([9, 4, 13, 2][:limit])
        running.n_dead = 0  # as the last step saw it
        assert running.dead_features() is None

    def test_where_none_is_dead_none_is_revived(self) -> None:
        running = made(architecture="topk")
        assert running.dead_features() is None
        steps(running, 2)
        assert running.n_dead == 0 and running.dead_features() is None

    def test_a_step_revives_those_that_are_dead_before_it(self) -> None:
        running = made(architecture="topk")
        assert steps(running, 1)[0].sparsity == 0.0
        running.work.params.b_enc[[4, 9]] = -1e6
        running.since[[4, 9]] = running.dead_after - 16
        dying, dead = steps(running, 2)
        assert (dying.dead, dying.sparsity) == (2, 0.0) and dead.sparsity > 0

    @pytest.mark.parametrize("architecture", ["standard", "gated", "jumprelu"])
    def test_kinds_with_a_penalty_revive_none(self, architecture: str) -> None:
        running = made(architecture=architecture)
        running.since.fill_(10**6)
        assert running.dead_features() is None

    @pytest.mark.parametrize("change", [{"batch_size": 30}, {"steps": 20}])
    def test_other_settings_change_who_is_dead(self, change: dict[str, int]) -> None:
        running = made(architecture="topk")
        steps(running, 1)
        before = running.dead_after
        running.reconfigure(running.config.changed(**change))
        running.since[4] = running.dead_after
        assert running.dead_after != before or change == {"batch_size": 30}
        found = running.dead_features()
        assert found is not None and found.tolist() == [4]


def test_a_search_for_a_target_sees_the_l0_of_each_step() -> None:
    running, wanted = made(target_l0=4.0, l1_warmup=0.0), 0.0
    for record in (steps(running, 1)[0] for _ in range(3)):
        wanted += 0.02 * max(-1.0, min(1.0, math.log(record.l0 / 4.0)))
        assert float(running.work.memory["pressure"]) == pytest.approx(wanted, rel=1e-5)
    assert wanted != 0.0


class TestClip:
    @pytest.mark.parametrize(
        ("largest", "norm", "divisor"),
        [(1.0, 4.0, 4.0), (2.0, 5.0, 2.5), (2.0, 2.0, None), (2.0, 1.0, None), (0.0, 9e9, None)],
    )
    def test_by_the_norm_above_the_largest(self, largest: float, norm: float, divisor: float | None) -> None:
        assert made(max_grad_norm=largest).clip(3, 1e-3, losses(), norm) == divisor

    @pytest.mark.parametrize("bad", [math.nan, math.inf])
    @pytest.mark.parametrize("largest", [0.0, 1.0])
    def test_what_is_not_finite_is_named(self, bad: float, largest: float) -> None:
        running, word = made(max_grad_norm=largest), "NaN" if math.isnan(bad) else "infinite"
        running.work.grads.vector.zero_()
        for broken in (losses(reconstruction=bad), losses(sparsity=bad)):
            with pytest.raises(
                TrainingFault, match=f"^The loss became {word} at step 3 .*learning rate of at most 0.01"
            ):
                running.clip(3, 0.1, broken, 1.0)
        running.work.grads.vector[7] = bad
        with pytest.raises(TrainingFault, match=f"^The gradient became {word} at step 3 "):
            running.clip(3, 0.1, losses(), bad)

    @pytest.mark.parametrize(("largest", "size"), [(0.5, 0.5), (1e5, None)])
    def test_what_adam_gets_has_at_most_that_norm(self, largest: float, size: float | None) -> None:
        running, free = made(max_grad_norm=largest), made(max_grad_norm=0.0)
        steps(running, 1), steps(free, 1)
        found, whole = running.work.grads.vector, free.work.grads.vector
        wanted = whole * (size / whole.norm()) if size else whole
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-7)


class TestMeasures:
    def test_the_speed_is_a_running_mean_of_a_tenth(self) -> None:
        running = made()
        running.clock(500, 2.0)
        assert running.tokens_per_second == 250.0
        running.clock(500, 1.0)
        assert running.tokens_per_second == pytest.approx(250 + 25)
        running.clock(16, 0.0)
        assert math.isfinite(running.tokens_per_second)

    def test_a_record_says_what_was_seen(self) -> None:
        running = made()
        running.step, running.tokens, running.tokens_per_second = 6, 96, 12.5
        done = engine.Applied(16, 0.25, losses(2.0, 0.5), 0.75, None)
        assert running.record(9, done, 3.5, 4, engine.Measured(0.5, 0.625)) == TrainStep(
            9, 2.5, 2.0, 0.5, 3.5, 0.75, 0.5, 4, 0.25, 12.5, 96 + 3 * 16, 0.625
        )

    @pytest.mark.parametrize("skip_first", [True, False])
    def test_a_batch_is_measured_without_position_0(self, skip_first: bool) -> None:
        running = made(skip_first=skip_first)
        sae = _sae(running)
        x, places = running.feed.next().clone(), running.feed.places()
        running.feed.undo()
        kept, values = x[places != 0], small_data()[0]
        assert bool((places == 0).any()) is not skip_first
        (record,) = steps(running, 1)
        assert record.explained_variance == pytest.approx(explained_variance(kept, sae(kept)), abs=1e-5)
        after = explained_variance(values, _sae(running)(values))
        assert record.explained_variance_with_first == pytest.approx(after, abs=1e-4)  # over the fixed set

    def test_a_batch_that_is_everything_is_its_own_fixed_set(self) -> None:
        running = made(skip_first=False, batch_size=0, max_norm_multiple=0.0)
        values, position = small_data()
        for _ in range(3):
            sae = _sae(running)
            (record,) = steps(running, 1)
            kept = values[position != 0]
            assert record.explained_variance == pytest.approx(explained_variance(kept, sae(kept)), abs=1e-4)
            assert record.explained_variance_with_first == pytest.approx(
                explained_variance(values, sae(values)), abs=1e-4
            )

    def test_the_fixed_sets_are_measured_first_last_and_now_and_then(self, monkeypatch: pytest.MonkeyPatch) -> None:
        running, seen = made(validation_share=0.2, n=400, steps=1000), []
        names = {id(running._fixed_set): "all", id(running._held_out): "held out"}
        monkeypatch.setattr(
            engine.FixedSet, "measure", lambda self, work: seen.append(names[id(self)]) or len(seen) / 8
        )

        def asked(step: int, with_first: float | None = None) -> list[str]:
            seen.clear()
            running.measure_now_and_then(step, 16, with_first)
            return list(seen)

        every, held = (fixed.interval(16) for fixed in (running._fixed_set, running._held_out))
        assert (every, held) == (400, 90)  # 20 times 320 and 72 rows; a batch has 16
        assert asked(1) == asked(1000) == ["all", "held out"]
        assert asked(2) == asked(89) == asked(399) == []
        assert (asked(90), asked(400), asked(360 * 10)) == (["held out"], ["all"], ["all", "held out"])
        assert asked(1, 0.125) == ["held out"] and running.measured == engine.Measured(0.125, 1 / 8)
        assert [running.until_measured(step, 16) for step in (1, 2, 90, 91, 399, 995)] == [1, 89, 1, 90, 2, 6]


def _sae(running: Engine) -> StandardSAE:
    p = running.work.params
    parts = (p.W_enc.t(), p.b_enc, p.W_dec, p.b_dec)
    return StandardSAE(*(part.clone() for part in parts), scale=running.scale)


class TestBatches:
    def test_are_scaled_once(self) -> None:
        running = made()
        raw = running.feed.next(2).clone()
        running.feed.undo(2)
        torch.testing.assert_close(running.next_batch(2), raw * running.scale)
        assert running.scale != 1.0

    def test_of_everything_are_the_same_tensor(self) -> None:
        running, (values, position) = made(batch_size=0), small_data()
        x, places = running.everything()
        torch.testing.assert_close(x, values[position != 0] * running.scale)
        assert places.tolist() == position[position != 0].tolist()
        steps(running, 2)
        assert running.next_batch() is x and running.everything()[0] is x
        torch.testing.assert_close(x, values[position != 0] * running.scale)

    @pytest.mark.parametrize("sizes", [(0, 16), (16, 0), (16, 30, 7, 0, 16)])
    def test_of_another_size_come_from_the_next_step_on(self, sizes: tuple[int, ...]) -> None:
        running, tokens = made(batch_size=sizes[0]), 0
        for size in sizes:
            running.threads = 5
            running.reconfigure(running.config.changed(batch_size=size))
            assert running.threads == (5 if size == sizes[0] and not running.step else 0)  # measured anew
            tokens += size or 90
            assert steps(running, 1)[0].tokens == running.tokens == tokens
            assert len(running.work.error) == (size or 90)
            tokens += size or 90
            assert steps(running, 1)[0].tokens == tokens


class TestStart:
    def test_scale_and_center_are_those_of_the_sae(self) -> None:
        g = generator(5)
        parts = [torch.randn(shape, generator=g) for shape in ((12, 20), (20,), (20, 12), (12,))]
        start = StandardSAE(*parts, scale=0.375, apply_b_dec_to_input=False)
        running = made(start, unit_norm_decoder=False)
        assert running.scale == 0.375 and running.config.center and not running.work.center_input
        names = ("b_enc", "W_dec", "b_dec")
        assert all(torch.equal(getattr(running.work.params, name), getattr(start, name)) for name in names)
        assert torch.equal(running.work.params.W_enc, start.W_enc.t())

    @pytest.mark.parametrize("architecture", ["standard", "topk", "jumprelu"])
    def test_adam_keeps_what_its_kind_wants(self, architecture: str) -> None:
        running = made(architecture=architecture)
        assert running.adam.beta1 == (0.0 if architecture == "jumprelu" else BETA1) == running.work.beta1

    def test_alone_there_is_nobody_to_agree_with(self) -> None:
        running = made()
        before = running.state_dict()
        running.agree()
        assert all(torch.equal(tensor, before[name]) for name, tensor in running.state_dict().items() if name[0] != "w")

    def test_the_first_process_says_what_all_do(self) -> None:
        class Second(Alone):
            rank = 1

            def same_(self, tensor: torch.Tensor) -> torch.Tensor:
                return tensor.fill_(1.0)  # what the first has: all ones, and bfloat16

        running = made(mesh=Second(), architecture="topk")
        work = running.work
        assert work.bfloat16 and work.pre.dtype == torch.bfloat16 and len(work.pre) == 16
        assert bool((work.params.vector == 1).all()) and all(bool(tensor == 1) for tensor in work.memory.values())


class TestResampling:
    @pytest.mark.parametrize("every", [0, 3])
    def test_now_and_then_and_not_while_the_rate_falls(self, every: int, monkeypatch: pytest.MonkeyPatch) -> None:
        running, seen = made(steps=15, resample_every=every, seed=7), []

        def noted(work: Any, moments: Any, dead: torch.Tensor, seed: int) -> None:
            seen.append((running.step, dead.tolist(), seed))

        monkeypatch.setattr(engine, "resample", noted)
        for step in range(1, 16):
            running.work.params.b_enc[[4, 9]] = -1e6
            running.since.zero_()
            running.since[[4, 9]] = running.dead_after - 16  # with this step they are
            (record,) = steps(running, 1)
            again = bool(every) and step in (3, 6, 9, 12)
            assert record.step == step and bool((running.since[[4, 9]] == 0).all()) is again
        assert seen == [(step, [4, 9], 7 + step) for step in (3, 6, 9, 12) if every]


class TestFaults:
    @pytest.mark.parametrize("place", ["forward", "backward", "keep_norms", "gradient_norm"])
    @every_architecture
    def test_a_step_that_fails_leaves_everything_as_it_was(
        self, architecture: str, place: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        running, good = made(architecture=architecture), made(architecture=architecture)
        steps(running, 3), steps(good, 3)
        before = running.state_dict()
        with monkeypatch.context() as patch:
            patch.setattr(running.work, place, _full)
            with pytest.raises(MemoryError):
                steps(running, 1)
        assert all(torch.equal(tensor, before[name]) for name, tensor in running.state_dict().items())
        assert untimed(steps(running, 3)) == untimed(steps(good, 3))

    def test_settings_for_which_there_is_no_memory_leave_everything_as_it_was(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        running, good = made(), made()
        steps(running, 3), steps(good, 3)
        config, left, make = running.config, iter([True]), type(running.work)._more_buffers

        def full(self: Any) -> Any:
            return _full() if next(left, False) else make(self)

        monkeypatch.setattr(type(running.work), "_more_buffers", full)
        with pytest.raises(MemoryError):
            running.reconfigure(config.changed(batch_size=40, learning_rate=0.5))
        assert running.config is config and running.feed.batch_size == 16
        assert untimed(steps(running, 3)) == untimed(steps(good, 3))


def _full(*_: Any) -> Any:
    raise MemoryError("no memory")


class TestState:
    def test_is_a_copy_of_all_that_goes_on(self) -> None:
        running = made(validation_share=0.2)
        steps(running, 3)
        state = running.state_dict()
        kept = {name: tensor.clone() for name, tensor in state.items()}
        assert {name for name in state if "." not in name} == {
            *("params", "exp_avg", "exp_avg_sq", "since_fired", "scale", "with_first", "counters", "bfloat16"),
            *("threads", "validation", "order", "generator", "cursor"),
        }
        assert {name for name in state if "." in name} == {f"memory.{name}" for name in running.work.memory}
        for tensor in state.values():
            tensor.zero_()
        after = running.state_dict()
        assert all(torch.equal(after[name], tensor) for name, tensor in kept.items())

    @pytest.mark.parametrize("share", [0.0, 0.3])
    @every_architecture
    def test_nothing_of_another_run_is_left_where_one_is_loaded(self, architecture: str, share: float) -> None:
        # Whatever an engine keeps from step to step differs in the second one, until the state comes.
        own = {"architecture": architecture, "validation_share": share, "target_l0": 5.0, "resample_every": 4}
        whole, other = made(**own), made(**own)
        steps(whole, 6)
        whole.since[[3, 5, 8]] = torch.tensor([70, 10**5, whole.dead_after])
        whole.threads, whole.n_dead = 2, None
        other.scale, other.threads = 0.5, 3
        steps(other, 3)
        other.n_dead = 0
        other.work.params.vector.add_(1.0)
        other.since.fill_(10**6)
        for tensor in other.work.memory.values():
            tensor.fill_(0.5)
        state = whole.state_dict()
        other.load_state_dict(state)
        loaded = other.state_dict()
        assert torch.equal(state["since_fired"], whole.since) and int(state["threads"]) == 2
        assert loaded.keys() == state.keys() and all(torch.equal(loaded[name], state[name]) for name in state)
        assert (other.step, other.tokens, other.scale) == (6, 96, whole.scale)
        assert untimed(steps(other, 10)) == untimed(steps(whole, 10))
        found, wanted = other.state_dict(), whole.state_dict()
        assert all(torch.equal(found[name], wanted[name]) for name in wanted)

    @pytest.mark.parametrize("bfloat16", [True, False])
    def test_a_run_keeps_its_precision(self, bfloat16: bool) -> None:
        precision = ("bfloat16", "float32") if bfloat16 else ("float32", "bfloat16")
        first, second = (made(architecture="gated", precision=each) for each in precision)
        steps(first, 2)
        second.load_state_dict(first.state_dict())
        assert second.work.bfloat16 is bfloat16 and second.work.pre.dtype == first.work.pre.dtype
        assert untimed(steps(second, 3)) == untimed(steps(first, 3))

    def test_scaled_rows_are_scaled_anew(self) -> None:
        running = made(batch_size=0)
        x, state = running.everything()[0].clone(), running.state_dict()
        state["scale"].mul_(2.0)
        running.load_state_dict(state)
        torch.testing.assert_close(running.everything()[0], 2 * x)
        assert running._fixed_set.scale == running.scale == float(state["scale"])
