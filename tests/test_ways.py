"""Which way TopK steps go, and that another k takes the other."""

from __future__ import annotations

import pytest
import torch

from sae_widget import ways
from sae_widget.config import TrainConfig
from sae_widget.training import Trainer
from sae_widget.training.dense import DenseWorkspace
from sae_widget.training.gradients import Workspace
from sae_widget.training.workspaces import workspace
from sae_widget.ways import over_pairs, saved_by_pairs
from tests.training_runs import finish, generator, same_state, untimed

D_IN, D_SAE, ROWS = 12, 64, 16


class TestWhich:
    @pytest.mark.parametrize("rows", [64, 256, 1024, 4096])
    def test_tiny_dictionaries_take_whole_matrices_at_every_batch_size(self, rows: int) -> None:
        assert not over_pairs(rows, 32, 64, 3)

    @pytest.mark.parametrize(("rows", "d_sae"), [(4096, 1024), (4096, 4096), (1024, 16_384)])
    def test_real_ones_take_pairs(self, rows: int, d_sae: int) -> None:
        assert over_pairs(rows, 768, d_sae, 32)

    @pytest.mark.parametrize(
        "size", [(256, 32, 2048, 8), (256, 64, 1024, 4), (256, 256, 512, 8), (4096, 16, 512, 8), (4096, 64, 1024, 40)]
    )
    def test_where_pairs_were_measured_to_be_faster_by_a_quarter(self, size: tuple[int, int, int, int]) -> None:
        assert over_pairs(*size)

    @pytest.mark.parametrize(
        "size",
        [
            (256, 128, 256, 4),
            (1024, 64, 128, 2),
            (256, 128, 512, 32),
            (64, 64, 1024, 32),
            (256, 64, 512, 8),
            (1024, 64, 16_384, 3600),
            (256, 32, 16_384, 2000),
        ],
    )
    def test_where_matrices_were_measured_to_be_faster_by_a_quarter(self, size: tuple[int, int, int, int]) -> None:
        assert not over_pairs(*size)

    def test_never_where_many_features_fire(self) -> None:
        assert not any(over_pairs(rows, 768, d_sae, d_sae // 4) for rows in (64, 4096) for d_sae in (256, 1024))

    def test_more_features_that_fire_save_less(self) -> None:
        saved = [saved_by_pairs(256, 128, 1024, k) for k in (1, 8, 64, 1024)]
        assert saved == sorted(saved, reverse=True) and saved[0] > 0 > saved[-1]

    @pytest.mark.parametrize("pairs", [True, False])
    def test_a_step_goes_the_way_that_the_rule_says(self, pairs: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        least = saved_by_pairs(ROWS, D_IN, D_SAE, 1)
        monkeypatch.setattr(ways, "LEAST", least if pairs else least + 1)
        work = workspace(D_IN, ROWS, TrainConfig(architecture="topk", d_sae=D_SAE, k=1), True)
        work.fresh()
        work.forward(torch.randn(ROWS, D_IN, generator=generator(1)))
        assert work.is_sparse is pairs  # type: ignore[attr-defined]


class TestAnotherK:
    CONFIG = TrainConfig(architecture="topk", d_sae=D_SAE, k=1, steps=30, batch_size=ROWS)

    @pytest.fixture(autouse=True)
    def between(self, monkeypatch: pytest.MonkeyPatch) -> None:
        few, many = (saved_by_pairs(ROWS, D_IN, D_SAE, k) for k in (1, 9))
        monkeypatch.setattr(ways, "LEAST", (few + many) / 2)

    def trainer(self, config: TrainConfig) -> Trainer:
        values = torch.randn(400, D_IN, generator=generator(2))
        return Trainer(values, torch.arange(400) % 10, config)

    @pytest.mark.parametrize(("before", "after"), [(1, 9), (9, 1)])
    @pytest.mark.parametrize("setting", ["k", "target_l0"])
    def test_goes_the_other_way_from_the_next_step(self, before: int, after: int, setting: str) -> None:
        trainer = self.trainer(self.CONFIG.changed(**{setting: before}))
        for record in trainer.run():
            assert trainer._engine.work.is_sparse is ((before if record.step <= 10 else after) == 1)  # type: ignore[attr-defined]
            if record.step == 10:
                trainer.reconfigure(trainer.config.changed(**{setting: after}))
        assert record.step == 30 and record.l0 <= after

    @pytest.mark.parametrize(("before", "after"), [(1, 9), (9, 1)])
    def test_without_memory_for_it_the_run_goes_on_as_it_was(
        self, before: int, after: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        trainer, other = (self.trainer(self.CONFIG.changed(k=before)) for _ in range(2))
        resize, left = DenseWorkspace.resize, iter([True])

        def full(self: DenseWorkspace, batch_size: int) -> None:
            Workspace.resize(self, batch_size)  # half of it is done
            if next(left, False):
                raise MemoryError("no memory")
            resize(self, batch_size)

        for record in trainer.run():
            if record.step == 10:
                with monkeypatch.context() as patch, pytest.raises(MemoryError):
                    patch.setattr(DenseWorkspace, "resize", full)
                    trainer.reconfigure(trainer.config.changed(k=after, batch_size=ROWS // 2))
                assert next(left, None) is None and trainer.config.k == before and trainer.batch_size == ROWS
            if record.step == 20:  # and then there is
                trainer.reconfigure(trainer.config.changed(k=after))
        for record in other.run():
            if record.step == 20:
                other.reconfigure(other.config.changed(k=after))
        assert same_state(trainer, other)

    def test_even_where_there_is_no_memory_to_go_back_the_next_change_is_whole(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        work = workspace(D_IN, ROWS, self.CONFIG, True)
        work.fresh()
        resize, left = Workspace.resize, iter([True, True])

        def full(self: Workspace, batch_size: int) -> None:
            resize(self, batch_size)
            if next(left, False):
                raise MemoryError("no memory")

        monkeypatch.setattr(Workspace, "resize", full)
        with pytest.raises(MemoryError):
            work.configure(self.CONFIG, 2 * ROWS)
        assert next(left, None) is None
        for rows in (2 * ROWS, ROWS):
            work.configure(self.CONFIG, rows)
            x = torch.randn(rows, D_IN, generator=generator(1))
            work.forward(x)
            assert work.backward(x, 0.0, None).total > 0

    def test_is_refused_where_its_way_does_not_fit_into_memory(self, monkeypatch: pytest.MonkeyPatch) -> None:
        trainer = self.trainer(self.CONFIG)
        monkeypatch.setattr("sae_widget.training.trainer.free_memory", lambda: 0)
        trainer.reconfigure(trainer.config.changed(k=2))  # the same way
        with pytest.raises(ValueError, match="width 64 needs about"):
            trainer.reconfigure(trainer.config.changed(k=9))
        assert trainer.config.k == 2

    @pytest.mark.parametrize(("before", "after"), [(1, 9), (9, 1)])
    def test_a_resumed_run_goes_the_same_way_to_a_bit(self, before: int, after: int) -> None:
        whole = self.trainer(self.CONFIG.changed(k=before, steps=10))
        finish(whole)
        whole.reconfigure(whole.config.changed(k=after, steps=30))
        state = whole.state_dict()
        resumed = self.trainer(whole.config)
        resumed.load_state_dict(state)
        assert untimed(finish(resumed)) == untimed(finish(whole))
        assert same_state(whole, resumed)
