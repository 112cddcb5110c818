"""What the recipes find, and what their records say."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch._dynamo  # torch.optim imports it at its first use, and that changes warning filters

from sae_widget.config import TrainConfig
from sae_widget.training import (
    Trainer,
    explained_variance,
)
from tests.training_runs import (
    RECIPES,
    SMALL,
    finish,
    ladder,
    planted,
    recovery,
    small_data,
)


class TestKnownFeatures:
    """What the recipes must find, and what they must not (FACTS section 2)."""

    def test_standard_finds_them(self) -> None:
        x, true = planted()
        config = TrainConfig(
            architecture="standard",
            d_sae=64,
            normalize=False,
            l1_coefficient=0.1,
            learning_rate=5e-3,
            steps=2000,
            batch_size=512,
        )
        trainer = Trainer(x, torch.ones(len(x), dtype=torch.long), config)
        last = finish(trainer)[-1]
        mmcs, found = recovery(trainer.sae().W_dec, true)
        assert mmcs > 0.97 and found >= 58
        assert 0.85 < last.explained_variance < 0.99
        assert 4 < last.l0 < 10

    def test_no_penalty_reconstructs_and_finds_nothing(self) -> None:
        x, true = planted()
        config = TrainConfig(
            architecture="standard", d_sae=64, l1_coefficient=0.0, learning_rate=2e-3, steps=1000, batch_size=512
        )
        trainer = Trainer(x, torch.ones(len(x), dtype=torch.long), config)
        last = finish(trainer)[-1]
        mmcs, found = recovery(trainer.sae().W_dec, true)
        assert last.explained_variance > 0.99
        assert mmcs < 0.55 and found == 0

    def test_topk_finds_them(self) -> None:
        x, true = planted()
        config = TrainConfig(d_sae=64, k=4, steps=1000, batch_size=512, learning_rate=2e-3)
        trainer = Trainer(x, torch.ones(len(x), dtype=torch.long), config)
        last = finish(trainer)[-1]
        mmcs, found = recovery(trainer.sae().W_dec, true)
        assert mmcs > 0.97 and found >= 58
        assert last.l0 <= 4 and last.dead <= 3

    @pytest.mark.parametrize("seed", [0, 11])
    def test_start_is_chance(self, seed: int) -> None:
        # Even with the seed of the data (11): a start that is the answer would prove nothing.
        x, true = planted(n=100)
        trainer = Trainer(x, torch.ones(100, dtype=torch.long), TrainConfig(d_sae=64, seed=seed))
        mmcs, found = recovery(trainer.sae().W_dec, true)
        assert mmcs == pytest.approx(0.40, abs=0.02) and found == 0

    def test_dead_features_come_back(self) -> None:
        # Half the features start where no token can wake them; the loss of the dead wakes most.
        x, _ = planted(n=5000)
        position = torch.ones(len(x), dtype=torch.long)
        config = TrainConfig(d_sae=64, k=4, steps=800, batch_size=500, learning_rate=2e-3)
        trainer = Trainer(x, position, config)
        trainer._engine.work.params.b_enc[:32] = -3.0
        records = finish(trainer)
        assert max(r.dead for r in records) >= 10
        assert records[-1].dead <= 4


class TestDefaults:
    """The recipes as they ship, on the ladder's data (FACTS: 128 known features in 64 dimensions)."""

    @pytest.mark.parametrize(
        ("recipe", "least", "most"),
        [({"architecture": "standard"}, 124, 128), ({"architecture": "topk", "k": 4}, 120, 128), ({}, 60, 110)],
        ids=["standard", "topk, k that fits", "topk, k far too large"],
    )
    def test_known_features(self, recipe: dict[str, Any], least: int, most: int) -> None:
        values, position, true = ladder()
        trainer = Trainer(values, position, TrainConfig(d_sae=192, steps=1000, **recipe))
        last = finish(trainer)[-1]
        _, found = recovery(trainer.sae().W_dec, true)
        assert least <= found <= most
        assert last.dead <= 2
        assert last.explained_variance > 0.9  # a penalty of 2 keeps no more than 0.84

    def test_the_original_tutorial_finds_nothing(self) -> None:
        values, position, true = ladder(14)
        trainer = Trainer(values, position, TrainConfig.original_tutorial())
        finish(trainer)
        assert recovery(trainer.sae().W_dec, true)[1] == 0


class TestMeasures:
    def test_explained_variance_by_hand(self) -> None:
        x = torch.tensor([[1.0, 0.0], [3.0, 0.0], [5.0, 6.0]])  # means 3, 2; sum of squares 8 + 24
        assert explained_variance(x, x) == 1.0
        assert explained_variance(x, x.mean(0).expand(3, 2)) == 0.0
        assert explained_variance(x, x + 1.0) == pytest.approx(1 - 6 / 32)
        assert explained_variance(x, torch.zeros(3, 2)) == pytest.approx(1 - 71 / 32)

    def test_explained_variance_is_not_defined_without_variance(self) -> None:
        assert math.isnan(explained_variance(torch.ones(5, 2) * 7.3, torch.zeros(5, 2)))
        assert math.isnan(explained_variance(torch.ones(1, 2), torch.zeros(1, 2)))

    @pytest.mark.parametrize("architecture", ["standard", "topk"])
    def test_records_describe_the_batch(self, architecture: str) -> None:
        values, position = small_data()
        config = TrainConfig(architecture=architecture, d_sae=20, k=3, steps=5, batch_size=0)
        trainer, kept = Trainer(values, position, config), position != 0
        before = trainer.sae()
        for record in trainer.run():
            acts, out = before.encode(values[kept]), before(values[kept])
            assert record.explained_variance == pytest.approx(explained_variance(values[kept], out), abs=1e-5)
            squared = float((out - values[kept]).square().sum()) * trainer.scale**2 / int(kept.sum())
            assert record.reconstruction == pytest.approx(squared, rel=1e-4)
            assert record.l0 == pytest.approx(float((acts > 0).sum()) / int(kept.sum()))
            assert record.loss == pytest.approx(record.reconstruction + record.sparsity)
            before = trainer.sae()

    def test_with_first_is_measured_after_the_step_over_all_rows(self) -> None:
        values, position = small_data()
        trainer = Trainer(values, position, TrainConfig(d_sae=20, k=3, steps=7, batch_size=30))
        records = finish(trainer)
        expected = explained_variance(values, trainer.sae()(values))
        assert records[-1].explained_variance_with_first == pytest.approx(expected, abs=1e-4)

    def test_dead_is_counted_over_one_pass_or_a_tenth_of_the_run(self) -> None:
        values, position = small_data()  # 90 rows are kept
        made = {s: Trainer(values, position, TrainConfig(**(SMALL | {"steps": s}))) for s in (1, 30, 400)}
        assert {steps: trainer.dead_after for steps, trainer in made.items()} == {1: 16, 30: 48, 400: 90}
        trainer = made[400]
        trainer._engine.work.params.b_enc[:5] = -1e6
        records = [record for record in trainer.run() if record.step <= 10]
        assert records[4].dead == 0 and records[5].dead >= 5  # 5 x 16 = 80 tokens, 6 x 16 = 96

    def test_scale_leaves_the_first_position_out(self) -> None:
        values, position = small_data()
        trainer = Trainer(values, position, RECIPES["topk"])
        norm = values[position != 0].norm(dim=1).mean() * trainer.scale
        assert float(norm) == pytest.approx(math.sqrt(12), rel=1e-5)
        assert Trainer(values, position, RECIPES["topk"].changed(normalize=False)).scale == 1.0

    def test_center_starts_b_dec_at_the_median(self) -> None:
        values = torch.zeros(101, 4)
        values[:] = torch.tensor([1.0, 2.0, 3.0, 4.0])  # the guess meets every point but one
        values[100] = 1000.0
        trainer = Trainer(values, torch.ones(101, dtype=torch.long), RECIPES["topk"].changed(normalize=False))
        assert trainer.sae().b_dec.tolist() == pytest.approx([1.0, 2.0, 3.0, 4.0], abs=0.02)

    def test_unit_norm_decoder_and_tied_start(self) -> None:
        values, position = small_data()
        trainer = Trainer(values, position, RECIPES["standard"])
        start = trainer.sae()
        assert torch.equal(start.W_enc, start.W_dec.T)
        finish(trainer)
        assert torch.allclose(trainer.sae().W_dec.norm(dim=1), torch.ones(20), atol=1e-6)

    def test_batches_are_without_replacement(self) -> None:
        from sae_widget.training.data import Batches

        batches = Batches(10, 3, seed=1)

        def drawn() -> list[int]:
            rows = batches.next()
            return batches.order[rows].tolist()

        epochs = [[drawn() for _ in range(3)] for _ in range(4)]
        for epoch in epochs:
            assert len({row for batch in epoch for row in batch}) == 9
        assert len({str(epoch) for epoch in epochs}) == 4
        last = epochs[-1][-1]
        batches.undo()
        assert drawn() == last
