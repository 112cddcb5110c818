"""Steps over the pairs that fire: when they are taken, and that a run is the same with and without them."""

from __future__ import annotations

import math

import pytest
import torch

from sae_widget.config import TrainConfig
from sae_widget.training import Trainer, pairs, rare
from sae_widget.training.pairs import pairs_where
from sae_widget.training.sums import share_that_pays
from sae_widget.training.workspaces import workspace
from tests.training_runs import finish, generator, ladder, same_state, untimed

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


class TestPairs:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    @pytest.mark.parametrize("chunk", [1, 3 * 40, 2**20])
    def test_are_where_it_is_true(self, dtype: torch.dtype, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(pairs, "CHUNK", chunk)
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
        trainer, seen = made(architecture), []
        work = trainer._engine.work
        forward = work.forward

        def watched(x: torch.Tensor) -> None:
            forward(x)
            seen.append((float(work.memory["share"]) < PAYS, work.is_sparse))

        work.forward = watched  # type: ignore[method-assign]
        finish(trainer)
        assert seen[0] == (False, False)  # nothing is known yet
        assert set(seen) == {(False, False), (True, True)}

    @pytest.mark.parametrize("architecture", KINDS)
    def test_both_ways_count_the_same_pairs(self, architecture: str) -> None:
        work = workspace(D_IN, N, TrainConfig(architecture=architecture, d_sae=D_SAE), True)
        work.fresh()
        work.params.W_enc.normal_(generator=generator(1))
        x, shares = torch.randn(N, D_IN, generator=generator(2)), []
        for pays in (0.0, 2.0):
            work.memory["pays"].fill_(pays)
            work.forward(x)
            losses = work.backward(x, 0.1, None)
            assert work.is_sparse is bool(pays)
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

    def test_a_batch_that_grows_is_measured_then(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(rare, "SMALLEST", 1000 * D_IN * D_SAE)
        work = workspace(D_IN, N, TrainConfig(architecture="standard", d_sae=D_SAE), True)
        work.fresh()
        assert not work.memory["pays"]
        work.resize(1000)
        assert float(work.memory["pays"]) == pytest.approx(PAYS)
        monkeypatch.setattr(rare, "share_that_pays", lambda *_: 0.1)
        work.resize(2000)  # of a run: measured once
        assert float(work.memory["pays"]) == pytest.approx(PAYS)


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

    def test_keep_the_norms_of_the_decoder(self, architecture: str) -> None:
        trainer = made(architecture, unit_norm_decoder=True)
        finish(trainer)
        assert trainer._engine.work.is_sparse
        torch.testing.assert_close(trainer.sae().W_dec.norm(dim=1), torch.ones(160), atol=1e-5, rtol=0)
