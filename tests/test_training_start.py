"""Before the first step: on how many tokens the features fire, and why it matters."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from sae_widget.config import TrainConfig
from sae_widget.metrics import l0, recovered
from sae_widget.toy import ToyConfig, ToyData, toy_data
from sae_widget.training import Trainer
from tests.training_runs import RECIPES, finish, small_data


def shares(values: torch.Tensor, **changes: Any) -> torch.Tensor:
    """On which share of the rows each feature of a new ``standard`` SAE fires, ``[d_sae]``."""
    config = TrainConfig(**({"architecture": "standard", "d_sae": 300, "normalize": False} | changes))
    trainer = Trainer(values, torch.ones(len(values), dtype=torch.long), config)
    return (trainer.sae().encode(values) > 0).float().mean(0)


def rows(n: int, d_in: int = 16) -> torch.Tensor:
    return torch.randn(n, d_in, generator=torch.Generator().manual_seed(4)) + 2.0


class TestShareAtTheStart:
    @pytest.mark.parametrize("changes", [{}, {"center": False}, {"normalize": True}, {"unit_norm_decoder": False}])
    def test_every_feature_fires_on_that_share(self, changes: dict[str, Any]) -> None:
        for share in (0.03, 0.2):
            found = shares(rows(1000), start_firing=share, **changes)
            assert torch.allclose(found, torch.full((300,), share), atol=1e-6)

    def test_a_sample_of_many_rows_is_near_it(self) -> None:
        assert float(shares(rows(20_000)).mean()) == pytest.approx(0.03, abs=0.003)

    @pytest.mark.parametrize("n", [2, 5, 14])
    def test_few_rows_have_each_feature_on_one(self, n: int) -> None:
        assert torch.allclose(shares(rows(n), batch_size=0), torch.full((300,), 1 / n), atol=1e-6)

    def test_rows_that_are_repeated_do_not_silence_it(self) -> None:
        found = shares(rows(5).repeat(200, 1))
        assert float(found.min()) > 0 and float(found.max()) < 0.5

    def test_rows_that_are_all_the_same_leave_the_biases(self) -> None:
        values, position = rows(1).repeat(20, 1), torch.ones(20, dtype=torch.long)
        assert not Trainer(values, position, RECIPES["standard"]).sae().b_enc.any()

    @pytest.mark.parametrize(
        "config",
        [
            RECIPES["topk"],
            RECIPES["standard"].changed(start_firing=0.0),
            RECIPES["standard"].changed(l1_coefficient=0.0),
            TrainConfig(architecture="gated", d_sae=20),
        ],
    )
    def test_others_start_at_no_bias(self, config: TrainConfig) -> None:
        assert not Trainer(*small_data(), config).sae().b_enc.any()

    def test_the_tutorial_starts_as_torch_does(self) -> None:
        assert TrainConfig.original_tutorial().start_firing == 0.0
        recipe = RECIPES["tutorial"]
        b_enc = [Trainer(*small_data(), recipe.changed(start_firing=p)).sae().b_enc for p in (0.0, 0.03)]
        assert torch.equal(*b_enc) and bool(b_enc[0].any())

    def test_going_on_takes_the_biases_that_are_there(self) -> None:
        trainer = Trainer(*small_data(), RECIPES["standard"])
        finish(trainer)
        before = trainer.sae()
        assert torch.allclose(Trainer(*small_data(), RECIPES["standard"], start=before).sae().b_enc, before.b_enc)


@pytest.fixture(scope="module")
def ladder() -> ToyData:
    return toy_data(ToyConfig.ladder(), n_tokens=30_000)


@pytest.mark.slow
@pytest.mark.parametrize("weight", [0.5, 1.0])
def test_fewer_features_share_a_direction(ladder: ToyData, weight: float) -> None:
    # 192 features for 128 directions, of which 2.6 are on: the spare ones double others, or keep still.
    held, found = ladder.held_out(6000), {}
    for share in (0.0, TrainConfig().start_firing):
        config = TrainConfig(
            architecture="standard", d_sae=192, batch_size=512, l1_coefficient=weight, start_firing=share
        )
        trainer = Trainer(*ladder.training_input, config)
        for _ in trainer.run():
            pass
        sae, kept = trainer.sae(), held.values[held.position != 0]
        cosines = torch.nn.functional.normalize(sae.W_dec, dim=1) @ ladder.directions.T
        doubled = int(((cosines > 0.9).sum(0) > 1).sum())
        assert recovered(sae.W_dec, ladder.directions) == 128
        found[share] = doubled, l0(sae.encode(kept)), sae.decode(sae.encode(kept)).sub(kept).square().mean()
    (before, often, error), (after, seldom, other) = found.values()
    assert after < 0.75 * before and seldom < 0.8 * often
    assert float(other) < 1.15 * float(error)  # of what is missing
