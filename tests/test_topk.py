"""TopK steps over pairs or over whole matrices: which way is taken, and that a change of k takes the other."""

from __future__ import annotations

import pytest
import torch

from sae_widget.config import TrainConfig
from sae_widget.training import Trainer, topk
from sae_widget.training.topk import saved_by_pairs
from sae_widget.training.workspaces import workspace
from tests.training_runs import finish, generator, same_state, untimed

D_IN, D_SAE, ROWS = 12, 64, 16


def over_pairs(n: int, d_in: int, d_sae: int, k: int) -> bool:
    return saved_by_pairs(n, d_in, d_sae, k) >= topk.LEAST


class TestWhich:
    @pytest.mark.parametrize("rows", [64, 256, 1024, 4096])
    def test_tiny_dictionaries_take_whole_matrices_at_every_batch_size(self, rows: int) -> None:
        assert not over_pairs(rows, 32, 64, 3)

    @pytest.mark.parametrize(("rows", "d_sae"), [(4096, 1024), (4096, 4096), (1024, 16_384)])
    def test_real_ones_take_pairs(self, rows: int, d_sae: int) -> None:
        assert over_pairs(rows, 768, d_sae, 32)

    def test_never_where_many_features_fire(self) -> None:
        assert not any(over_pairs(rows, 768, d_sae, d_sae // 4) for rows in (64, 4096) for d_sae in (256, 1024))

    def test_more_features_that_fire_save_less(self) -> None:
        saved = [saved_by_pairs(256, 128, 1024, k) for k in (1, 8, 64, 1024)]
        assert saved == sorted(saved, reverse=True) and saved[0] > 0 > saved[-1]

    @pytest.mark.parametrize("pairs", [True, False])
    def test_a_step_goes_the_way_that_the_rule_says(self, pairs: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        least = saved_by_pairs(ROWS, D_IN, D_SAE, 1)
        monkeypatch.setattr(topk, "LEAST", least if pairs else least + 1)
        work = workspace(D_IN, ROWS, TrainConfig(architecture="topk", d_sae=D_SAE, k=1), True)
        work.fresh()
        work.forward(torch.randn(ROWS, D_IN, generator=generator(1)))
        assert work.is_sparse is pairs  # type: ignore[attr-defined]


class TestAnotherK:
    CONFIG = TrainConfig(architecture="topk", d_sae=D_SAE, k=1, steps=30, batch_size=ROWS)

    @pytest.fixture(autouse=True)
    def between(self, monkeypatch: pytest.MonkeyPatch) -> None:
        few, many = (saved_by_pairs(ROWS, D_IN, D_SAE, k) for k in (1, 9))
        monkeypatch.setattr(topk, "LEAST", (few + many) / 2)

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
    def test_a_resumed_run_goes_the_same_way_to_a_bit(self, before: int, after: int) -> None:
        whole = self.trainer(self.CONFIG.changed(k=before, steps=10))
        finish(whole)
        whole.reconfigure(whole.config.changed(k=after, steps=30))
        state = whole.state_dict()
        resumed = self.trainer(whole.config)
        resumed.load_state_dict(state)
        assert untimed(finish(resumed)) == untimed(finish(whole))
        assert same_state(whole, resumed)
