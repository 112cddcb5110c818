"""Steps over the pairs that fire: when they are taken, and that a run is the same with and without them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from sae_widget.config import ARCHITECTURES, TrainConfig
from sae_widget.training import Trainer, TrainStep, largest, pairs, rare, topk
from sae_widget.training.mesh import Alone
from sae_widget.training.pairs import pairs_where
from sae_widget.training.sums import share_that_pays
from sae_widget.training.workspaces import workspace
from tests.test_mesh import together
from tests.training_runs import finish, generator, ladder, over_pairs, same_state, untimed

KINDS = ("gated", "jumprelu", "standard")
N, D_IN, D_SAE = 60, 6, 40
PAYS = 0.8  # share of the pairs below which these runs go over pairs; their first step never does


@pytest.fixture(autouse=True)
def at_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rare, "SMALLEST", 0)
    monkeypatch.setattr("sae_widget.training.small.SMALL", 0)
    monkeypatch.setattr(rare, "share_that_pays", lambda *_: PAYS)


def made(architecture: str, **changes: object) -> Trainer:
    values, position, _ = ladder(1500)
    config = TrainConfig(architecture=architecture, d_sae=160, steps=60, batch_size=256, target_l0=8.0, **changes)
    return Trainer(values, position, config)


def watched(trainer: Trainer, look: Callable[[Any], Any]) -> list[Any]:
    """What is seen of the workspace after every ``forward``, as soon as the trainer runs."""
    work, seen = trainer._engine.work, []
    forward = work.forward

    def and_look(x: torch.Tensor) -> None:
        forward(x)
        seen.append(look(work))

    work.forward = and_look  # type: ignore[method-assign]
    return seen


def started(architecture: str, pays: float = 2.0, **changes: object) -> Any:
    """A workspace whose features fire on half of the rows, and whose first step may be over pairs."""
    work = workspace(D_IN, N, TrainConfig(architecture=architecture, d_sae=D_SAE, **changes), True)
    work.fresh()
    work.params.W_enc.normal_(generator=generator(1))
    work.params.W_dec.normal_(generator=generator(3))
    if "pays" in work.memory:
        work.memory["pays"].fill_(pays)
    return work


class TestPairs:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    @pytest.mark.parametrize("chunk", [1, 3 * 40, 2**20])
    def test_are_where_it_is_true(self, dtype: torch.dtype, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(largest, "CHUNK", chunk)
        values = torch.randn(N, D_SAE, generator=generator(1)).to(dtype)
        values[[0, 7, N - 1]] = -1.0  # tokens on which nothing fires: the first, one within, the last
        found = pairs_where(values > 0.5, values)
        token, feature = (values > 0.5).nonzero().unbind(1)
        assert torch.equal(pairs.token_of(found), token) and torch.equal(found.feature, feature)
        assert torch.equal(found.value, values[token, feature].float())

    def test_none(self) -> None:
        found = pairs_where(torch.zeros(3, 5, dtype=torch.bool), torch.zeros(3, 5))
        assert found.starts.tolist() == [0, 0, 0, 0] and len(found.feature) == len(found.value) == 0


class TestWhen:
    @pytest.mark.parametrize("architecture", KINDS)
    def test_once_few_enough_fire(self, architecture: str) -> None:
        trainer = made(architecture)
        seen = watched(trainer, lambda work: (float(work.memory["share"]) < PAYS, work.is_sparse))
        finish(trainer)
        assert seen[0] == (False, False)  # nothing is known yet
        assert set(seen) == {(False, False), (True, True)}

    @pytest.mark.parametrize("architecture", KINDS)
    def test_both_ways_count_the_same_pairs(self, architecture: str) -> None:
        work, shares = started(architecture), []
        x = torch.randn(N, D_IN, generator=generator(2))
        for pays in (0.01, 2.0):
            work.memory["pays"].fill_(pays)
            work.forward(x)
            losses = work.backward(x, 0.1, None)
            assert work.is_sparse is (pays > 1)
            shares.append(losses.n_pairs / (N * D_SAE))
        matrices, over_pairs = shares
        # A JumpReLU feature that fires just above its threshold is counted twice: it fires, and is in the window.
        assert over_pairs <= matrices <= (2 * over_pairs if architecture == "jumprelu" else over_pairs)
        assert float(work.memory["share"]) == 1.0  # until the step is applied
        work.applied(over_pairs)
        assert float(work.memory["share"]) == pytest.approx(over_pairs)

    def test_never_in_small_steps_nor_on_a_gpu(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.undo()
        assert share_that_pays(torch.float32, "cuda") == 0.0
        assert 0.0 < share_that_pays(torch.float32) < 1.0
        work = workspace(D_IN, N, TrainConfig(architecture="jumprelu", d_sae=D_SAE), True)
        work.fresh()
        work.memory["pays"].fill_(2.0)
        work.forward(torch.randn(N, D_IN, generator=generator(2)))
        assert not work.is_sparse

    @pytest.mark.parametrize("architecture", KINDS)
    def test_not_when_more_fire_than_in_the_step_before(self, architecture: str) -> None:
        # After a resampling, or with other settings, the share of the step before says nothing.
        x, found = torch.randn(N, D_IN, generator=generator(2)), []
        for share in (1.0, 0.0):
            work = started(architecture, pays=0.05)
            work.memory["share"].fill_(share)
            work.forward(x)
            losses = work.backward(x, 0.1, None)
            assert not work.is_sparse and losses.n_pairs > 0.05 * N * D_SAE
            found.append((losses.total, work.grads.vector.clone()))
        assert found[0][0] == found[1][0] and torch.equal(found[0][1], found[1][1])

    @pytest.mark.parametrize("architecture", [*KINDS, "topk"])
    def test_a_run_of_a_cpu_goes_on_elsewhere(self, architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
        over_pairs(monkeypatch)
        monkeypatch.setattr(topk, "places_of_largest", None)  # through numpy
        monkeypatch.setattr(rare, "pairs_where", None)
        work = started(architecture, k=4)
        work.memory.get("divides", torch.zeros(())).fill_(1.0)
        work.device = torch.device("cuda")  # where it says it is; its tensors are still here
        x = torch.randn(N, D_IN, generator=generator(2))
        work.forward(x)
        losses = work.backward(x, 0.1, None)
        assert math.isinf(losses.n_pairs) and float(losses.fired.sum()) > 0

    def test_pairs_are_not_counted_where_none_can_follow(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(rare, "SMALLEST", 2**40)
        for architecture in KINDS:
            work = workspace(D_IN, N, TrainConfig(architecture=architecture, d_sae=D_SAE), True)
            work.fresh()
            x = torch.randn(N, D_IN, generator=generator(2))
            work.forward(x)
            assert math.isinf(work.backward(x, 0.1, None).n_pairs)

    def test_a_batch_that_grows_is_measured_then(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(rare, "SMALLEST", 1000 * D_IN * D_SAE)
        monkeypatch.setattr("sae_widget.training.sparse.multiplying_is_fast", lambda _: True)
        work = workspace(D_IN, N, TrainConfig(architecture="standard", d_sae=D_SAE), True)
        work.fresh()
        assert not work.memory["pays"] and work.memory["multiplies"]
        work.resize(1000)
        assert float(work.memory["pays"]) == pytest.approx(PAYS)
        monkeypatch.setattr(rare, "share_that_pays", lambda *_: 0.1)
        work.resize(2000)  # of a run: measured once
        assert float(work.memory["pays"]) == pytest.approx(PAYS)


class TestEdges:
    @pytest.mark.parametrize("pays", [0.0, 2.0], ids=["matrices", "pairs"])
    @pytest.mark.parametrize("architecture", KINDS)
    def test_what_is_not_a_number_is_not_lost(self, architecture: str, pays: float) -> None:
        work, x = started(architecture, pays), torch.randn(N, D_IN, generator=generator(2))
        work.params.b_enc[3] = torch.nan
        work.forward(x)
        assert work.is_sparse is bool(pays)
        assert math.isnan(work.backward(x, 0.1, None).total)

    @pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
    def test_a_step_without_a_pair(self, architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
        over_pairs(monkeypatch)
        work, x = started(architecture, k=4), torch.randn(N, D_IN, generator=generator(2))
        work.params.b_enc.fill_(-100.0)
        dead = torch.arange(5) if work.kind.revives_dead else None
        work.forward(x)
        losses = work.backward(x, 0.1, dead)
        work.keep_norms()
        assert work.is_sparse and len(work.pairs.feature) == 0
        assert losses.fired.dtype == torch.float32 and not losses.fired.any()
        assert math.isfinite(losses.total) and bool(work.grads.vector.isfinite().all())
        assert not work.grads.W_enc.any() and bool(work.grads.b_dec.any())

    @pytest.mark.parametrize("bandwidth", [1e-3, 0.01, 0.3])
    @pytest.mark.parametrize("precision", ["float32", "bfloat16"])
    def test_windows_are_whole_however_they_are_rounded(self, precision: str, bandwidth: float) -> None:
        n, d_sae, found = 400, 64, []
        thresholds = 0.05 + 0.1 * torch.rand(d_sae, generator=generator(1))
        pre = thresholds + bandwidth * (torch.rand(n, d_sae, generator=generator(2)) - 0.5)
        for pays in (0.0, 2.0):
            config = TrainConfig(architecture="jumprelu", d_sae=d_sae, bandwidth=bandwidth, precision=precision)
            work: Any = workspace(d_sae, n, config, False)
            work.fresh()
            work.memory["pays"].fill_(pays)
            work.memory["share"].fill_(0.0)
            work.params.W_enc.copy_(torch.eye(d_sae))
            work.params.W_dec.copy_(torch.eye(d_sae))
            work.params.extra["threshold"].copy_(thresholds)
            work.forward(pre)
            work.backward(pre, 0.3, None)
            assert work.is_sparse is bool(pays)
            found.append(work.grads.extra["threshold"].clone())
        over_matrices, over_pairs = found
        assert float(over_matrices.abs().min()) > 0
        torch.testing.assert_close(over_pairs, over_matrices, rtol=0.02, atol=0)


@pytest.mark.parametrize("architecture", KINDS)
class TestRuns:
    def test_are_the_same_without_pairs(self, architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
        trainer = made(architecture)
        over_pairs = finish(trainer)
        assert trainer._engine.work.is_sparse
        monkeypatch.setattr(rare, "share_that_pays", lambda *_: 0.0)
        over_matrices = finish(made(architecture))
        for one, other in zip(over_pairs, over_matrices, strict=True):
            assert one.loss == pytest.approx(other.loss, rel=1e-3) and math.isfinite(one.loss)
            assert one.l0 == pytest.approx(other.l0, rel=0.01, abs=0.02)

    @pytest.mark.parametrize("split", [1, 30, 59])
    def test_go_on_bit_for_bit(self, architecture: str, split: int) -> None:
        whole, begun, later = (made(architecture) for _ in range(3))
        wanted = finish(whole)
        for record in begun.run():
            if record.step == split:
                break
        later.load_state_dict(begun.state_dict())
        assert untimed(finish(later)) == untimed(wanted[split:])
        assert same_state(later, whole)

    def test_are_the_same_in_two_processes_of_which_one_never_takes_pairs(
        self, architecture: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        values, position, _ = ladder(1500)
        config = TrainConfig(architecture=architecture, d_sae=160, steps=40, batch_size=255, target_l0=8.0)
        expected = finish(Trainer(values, position, config))
        monkeypatch.setattr(rare, "SMALLEST", 128 * values.shape[1] * 160)  # one has 128 rows, the other 127

        def work(mesh: Alone) -> tuple[list[TrainStep], Trainer, list[bool]]:
            trainer = Trainer(values, position, config, mesh=mesh)
            went = watched(trainer, lambda work: work.is_sparse)
            return finish(trainer), trainer, went

        (records, first, went), (_, second, other_went) = together(2, work)
        assert any(went) and not any(other_went)
        for record, wanted in zip(records, expected, strict=True):
            assert record.loss == pytest.approx(wanted.loss, rel=1e-3)
            assert record.l0 == pytest.approx(wanted.l0, rel=0.01, abs=0.02)
        assert same_state(first, second)
