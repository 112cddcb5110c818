"""Steps in numpy: when they are taken, and that they are those in torch."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import torch

from sae_widget.config import TrainConfig
from sae_widget.metrics import spread
from sae_widget.training import Trainer, small
from sae_widget.training.small import SmallWorkspace
from sae_widget.training.workspaces import workspace
from tests.training_runs import RECIPES, finish, generator, over_pairs, same_state, small_data


def made(batch_size: int = 12, **changes: Any) -> SmallWorkspace:
    config = TrainConfig(**({"architecture": "standard", "d_sae": 20, "k": 3} | changes))
    work = workspace(6, batch_size, config, True)
    assert isinstance(work, SmallWorkspace)
    work.fresh()
    work.params.vector.normal_(generator=generator(1))
    return work


def rows(n: int = 12) -> torch.Tensor:
    return torch.randn(n, 6, generator=generator(2))


class TestWhen:
    def test_with_few_activations(self) -> None:
        most = small.SMALL // 20
        assert made(most).is_small and not made(most + 1).is_small

    @pytest.mark.parametrize(("d_in", "d_sae", "n"), [(768, 64, 1024), (4096, 65, 16)], ids=["rows", "matrix"])
    def test_not_where_numpy_would_take_threads(self, d_in: int, d_sae: int, n: int) -> None:
        # Its sums over so many numbers wait for torch's threads: a step took 27 ms in place of 4.
        config = TrainConfig(architecture="standard", d_sae=d_sae, precision="float32")
        assert n * d_sae <= small.SMALL and not workspace(d_in, n, config, True).is_small  # type: ignore[attr-defined]
        assert workspace(d_in // 4, n, config, True).is_small  # type: ignore[attr-defined]

    def test_a_batch_that_grows_goes_on_in_torch_and_back(self) -> None:
        work = made()
        for n, wanted in ((small.SMALL, False), (12, True)):
            work.resize(n)
            assert work.is_small is wanted
            work.forward(rows())
            work.backward(rows(), 0.1, None)

    def test_not_in_bfloat16_nor_over_pairs(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert not made(precision="bfloat16").is_small
        assert made(architecture="topk").is_small
        over_pairs(monkeypatch)
        assert not made(architecture="topk").is_small

    @pytest.mark.parametrize("faster", [True, False])
    def test_the_library_of_the_products_is_kept_with_a_run(
        self, faster: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        config = RECIPES["standard"].changed(steps=20)
        monkeypatch.setattr(small, "numpy_is_faster", lambda *_: faster)
        trainer = Trainer(*small_data(), config)
        for record in trainer.run():
            if record.step == 10:
                break
        state = trainer.state_dict()
        finish(trainer)
        monkeypatch.setattr(small, "numpy_is_faster", lambda *_: not faster)
        later = Trainer(*small_data(), config)
        later._engine.work.forward(rows_of(later))  # with the other library, before the state comes
        later.load_state_dict(state)
        finish(later)
        assert later._engine.work.at(later.batch_size).in_numpy is faster  # type: ignore[attr-defined]
        assert same_state(trainer, later)

    @pytest.mark.parametrize("given", [0.0, 1.0, 0.5, float("nan")])
    def test_passes_are_made_once_whatever_a_state_brings(self, given: float) -> None:
        work = made()
        work.memory["in_numpy"].fill_(given)
        assert work.at(12) is work.at(12) and work.at(12).in_numpy is bool(given)


def rows_of(trainer: Trainer) -> torch.Tensor:
    return torch.randn(trainer.batch_size, trainer.d_in, generator=generator(2))


class TestWhat:
    @pytest.mark.parametrize("n", [12, 5])  # a whole batch, and the rest of a fixed set
    def test_measures(self, n: int, monkeypatch: pytest.MonkeyPatch) -> None:
        x, found = rows(n) + 3.0, {}
        for limit in (2**16, 0):
            monkeypatch.setattr(small, "SMALL", limit)
            work = made()
            work.forward(x)
            found[limit] = work.squared_error(n), *work.spread(x)
        assert found[2**16] == pytest.approx(found[0], rel=1e-5)
        assert found[0][1] == pytest.approx(spread(x)[0], rel=1e-4)

    @pytest.mark.parametrize("limit", [2**16, 0])
    def test_rows_that_hardly_vary_are_measured_by_themselves(
        self, limit: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(small, "SMALL", limit)
        x = torch.full((12, 6), 1000.0) + 1e-3 * rows()
        work = made()
        work.forward(x)
        assert work.spread(x) == spread(x)
        constant = torch.full((12, 6), 7.0)
        work.forward(constant)
        assert work.spread(constant)[0] == 0.0

    def test_of_numbers_that_share_the_last_place_k_fire(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(small, "sorting_is_fast", lambda: True)
        work = made(architecture="topk", center=False)
        work.params.W_enc.zero_()
        for bias, fire in ((1.0, 3), (0.0, 0), (-1.0, 0)):
            work.params.b_enc.fill_(bias)
            work.forward(rows())
            assert ((work.acts > 0).sum(1) == fire).all()
        work.params.b_enc[4] = 2.0
        work.params.b_enc[5:9] = 1.0  # two of four
        work.forward(rows())
        assert ((work.acts > 0).sum(1) == 3).all() and (work.acts[:, 4] == 2.0).all() and not work.acts[:, :4].any()

    def test_other_settings_are_taken_from_the_next_step_on(self) -> None:
        found = []
        for work, later in ((made(loss_reduction="mean"), False), (made(), True)):
            x = rows()
            work.forward(x)
            work.backward(x, 0.1, None)
            if later:
                work.configure(work.config.changed(loss_reduction="mean"), 12)
                work.forward(x)
                work.backward(x, 0.1, None)
            found.append(work.grads.vector.clone())
        assert torch.equal(*found)

    @pytest.mark.parametrize("name", ["standard", "topk"])
    def test_a_trainer_that_is_dropped_gives_its_buffers_back_at_once(self, name: str) -> None:
        trainer = Trainer(*small_data(), RECIPES[name].changed(steps=30))
        finish(trainer)
        work = weakref.ref(trainer._engine.work)
        assert work().is_small
        gc.disable()
        try:
            del trainer
            assert work() is None
        finally:
            gc.enable()

    @pytest.mark.parametrize("name", ["standard", "topk"])
    def test_a_run(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        last = {}
        for limit in (2**16, 0):
            monkeypatch.setattr(small, "SMALL", limit)
            trainer = Trainer(*small_data(), RECIPES[name].changed(steps=30))
            assert trainer._engine.work.is_small is bool(limit)
            last[limit] = finish(trainer)[-1]
        for field in ("loss", "reconstruction", "sparsity", "l0", "explained_variance", "dead"):
            assert getattr(last[0], field) == pytest.approx(getattr(last[2**16], field), rel=2e-3), field
