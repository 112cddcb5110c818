"""What is known of toy models and of SAEs on known features: FACTS sections 1 and 2, and the repair ladder.

The SAEs train for a third of the steps of FACTS here, with slack; ``make soak`` has them as they stand there.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch._dynamo  # torch.optim imports it at its first use, and that changes warning filters

from sae_widget.config import TrainConfig
from sae_widget.metrics import mmcs, recovered
from sae_widget.recovery import Recovery, measure_recovery
from sae_widget.toy import SuperpositionModels, ToyConfig, ToyData, toy_data, train_superposition
from sae_widget.training import Trainer


def gaps(W: torch.Tensor) -> torch.Tensor:
    """Degrees between neighbours, of the directions ``[n_features, 2]`` that are longer than 0.5."""
    kept = W[W.norm(dim=1) > 0.5]
    angles = torch.atan2(kept[:, 1], kept[:, 0]).sort().values
    return torch.diff(angles, append=angles[:1] + 2 * math.pi).rad2deg()


@pytest.fixture(scope="module")
def fives() -> SuperpositionModels:
    """Five features of equal importance: six models of middle density, three that are sparse."""
    return train_superposition(density=(*[0.3] * 6, *[0.02] * 3), n_models=9)


class TestSuperposition:
    """Section 1 (Elhage et al. 2022)."""

    def test_dense_features_keep_the_two_most_important_at_right_angles(self):
        models = train_superposition(density=1.0, importance=0.9, n_models=3)
        long = models.norms > 0.5
        assert long.sum(1).tolist() == [2, 2, 2]
        assert long[:, :2].all() and float(models.norms[:, 2:].max()) < 0.15
        assert float(models.interference[:, 0, 1].abs().max()) < 0.05
        assert models.dimensionality[:, :2].flatten().tolist() == pytest.approx([1.0] * 6, abs=0.02)

    def test_in_the_middle_two_opposite_pairs(self, fives):
        kept = (fives.norms[:6] > 0.5).sum(1)
        four = (kept == 4).nonzero()[:, 0].tolist()
        assert len(four) >= 4  # some are stuck with a pair and one alone
        for model in four:
            assert gaps(fives.W[model]).tolist() == pytest.approx([90] * 4, abs=6)
            shares = fives.dimensionality[model].sort().values
            assert shares.tolist() == pytest.approx([0.0, 0.5, 0.5, 0.5, 0.5], abs=0.02)

    def test_sparse_features_form_a_pentagon(self, fives):
        for W in fives.W[6:]:
            assert gaps(W).tolist() == pytest.approx([72] * 5, abs=6)
        shares, norms = fives.dimensionality[6:], fives.norms[6:]
        assert shares.flatten().tolist() == pytest.approx([0.4] * 15, abs=0.02)
        assert shares.sum(1).tolist() == pytest.approx([2.0] * 3, abs=0.02)
        assert 1.10 < float(norms.min()) <= float(norms.max()) < 1.20

    def test_four_features_are_opposite_pairs(self):
        models = train_superposition(n_features=4, density=0.01, n_models=4)
        assert models.dimensionality.flatten().tolist() == pytest.approx([0.5] * 16, abs=0.02)

    def test_of_three_features_one_is_alone_and_two_are_opposite(self):
        models = train_superposition(n_features=3, density=0.01, n_models=4)
        for shares in models.dimensionality:
            assert shares.sort().values.tolist() == pytest.approx([0.5, 0.5, 1.0], abs=0.02)

    def test_more_features_than_a_pentagon_holds(self):
        models = train_superposition(n_features=6, density=0.02, n_models=4)
        assert int((models.norms > 0.5).sum(1).min()) >= 5

    def test_shares_never_sum_to_more_than_the_dimensions(self):
        models = train_superposition(
            n_features=9, d_hidden=3, density=(1.0, 0.4, 0.2, 0.1, 0.05, 0.02), n_models=6, steps=3000
        )
        assert float(models.dimensionality.sum(1).max()) <= 3.02
        assert float(models.dimensionality.sum(1).min()) > 2.7

    @pytest.mark.slow
    def test_plateaus(self):
        """In small: 80 features in 8 dimensions, at 1 / (1 - S) of 1 and 3. The whole sweep is in ``make soak``."""
        models = train_superposition(
            n_features=80, d_hidden=8, density=(1.0, 1 / 3), n_models=2, steps=1500, learning_rate=3e-3
        )
        flat, half = models.dimensions_per_feature.tolist()
        assert flat == pytest.approx(1.0, abs=0.03) and 0.47 < half < 0.54
        kept = models.norms[1] > 0.5
        assert int(kept.sum()) == 16
        assert models.dimensionality[1][kept].tolist() == pytest.approx([0.5] * 16, abs=0.05)

    def test_correlated_pairs_stand_at_right_angles(self):
        models = train_superposition(n_features=4, density=0.02, correlated_pairs=2, n_models=8)
        within = models.interference[:, [0, 2], [1, 3]].abs()  # [n_models, 2]
        assert int((within < 0.02).all(1).sum()) >= 7 and float(within.max()) < 0.25

    def test_anticorrelated_pairs_are_often_opposite(self):
        models = train_superposition(n_features=4, density=0.2, anticorrelated_pairs=2, n_models=8)
        within = models.interference[:, [0, 2], [1, 3]].flatten()
        opposite, square = within < -0.98, within.abs() < 0.02
        assert 2 <= int(opposite.sum()) < 16 and bool((opposite | square).all())


RECIPE: dict[str, Any] = {
    "architecture": "standard",
    "d_sae": 64,
    "l1_coefficient": 0.1,
    "normalize": False,
    "learning_rate": 4e-3,
    "steps": 1500,
    "batch_size": 512,
    "l1_warmup": 0.125,
    "lr_warmup": 0.0,
    "center": False,
    "max_grad_norm": 0.0,
}
"""Section 2's recipe, shorter: unit-norm decoder, sum of squares + l1_coefficient x sum of activations."""


def found(data: ToyData, **changes: Any) -> Recovery:
    """Train on these data; measured on others with the same directions."""
    trainer = Trainer(*data.training_input, TrainConfig(**RECIPE | changes))
    for _ in trainer.run():
        pass
    return measure_recovery(trainer.sae(), data.held_out(8000))


@pytest.fixture(scope="module")
def often() -> ToyData:
    """64 directions in 32 dimensions, on 5% of the time."""
    return toy_data(n_tokens=40_000)


@pytest.fixture(scope="module")
def seldom() -> ToyData:
    """On 2% of the time."""
    return toy_data(ToyConfig(probability=0.02), n_tokens=40_000)


class TestKnownFeatures:
    """Section 2 (Sharkey, Braun & Millidge 2022)."""

    def test_chance(self, often):
        for seed in range(3):
            rows = torch.randn(64, 32, generator=torch.Generator().manual_seed(100 + seed))
            assert mmcs(rows, often.directions) == pytest.approx(0.40, abs=0.02)
            assert recovered(rows, often.directions) == 0

    def test_principal_components_find_nothing(self, often):
        axes = torch.linalg.svd(often.values - often.values.mean(0), full_matrices=False).Vh
        both = torch.cat([axes, -axes])
        assert mmcs(both, often.directions) == pytest.approx(0.489, abs=0.02)
        assert recovered(both, often.directions) == 0

    def test_a_penalty_finds_them(self, often):
        result = found(often)
        assert result.mmcs > 0.97 and result.recovered >= 58
        assert result.explained_variance == pytest.approx(0.924, abs=0.01)
        assert 5.5 < result.l0 < 7.5 and result.true_l0 == pytest.approx(3.2, abs=0.1)

    def test_no_penalty_reconstructs_everything_and_finds_nothing(self, often):
        result = found(often, l1_coefficient=0.0)
        assert result.explained_variance > 0.99
        assert result.mmcs < 0.55 and result.recovered == 0 and result.l0 > 40

    def test_more_penalty_is_fewer_features_and_less_variance(self, often):
        results = [found(often, l1_coefficient=weight) for weight in (0.03, 0.1, 0.4)]
        assert [r.recovered >= 58 for r in results] == [False, True, True] and results[0].recovered <= 20
        assert results[0].explained_variance > results[1].explained_variance > results[2].explained_variance + 0.05
        assert results[0].l0 > 3 * results[1].l0 and results[1].l0 > 1.5 * results[2].l0

    def test_a_free_decoder_escapes_the_penalty(self, often):
        result = found(often, unit_norm_decoder=False)
        assert result.recovered <= 20 and result.explained_variance > 0.97

    def test_width(self, seldom):
        results = {width: found(seldom, d_sae=width) for width in (16, 32, 64, 128)}
        assert results[16].recovered <= 2 and results[32].recovered <= 15
        assert results[64].recovered >= 58 and results[128].recovered >= 60
        assert results[16].explained_variance == pytest.approx(0.635, abs=0.03)
        assert results[64].explained_variance == pytest.approx(0.943, abs=0.01)

    def test_samples(self):
        config = ToyConfig(probability=0.02)
        results = [found(toy_data(config, n_tokens=n), batch_size=0) for n in (14, 50, 200, 1000)]
        assert results[0].recovered <= 10 and results[1].recovered <= 25
        assert 35 <= results[2].recovered <= 58 and results[3].recovered >= 58
        assert results[0].explained_variance < 0.1 and results[3].explained_variance == pytest.approx(0.91, abs=0.02)

    @pytest.mark.parametrize("weight", [0.05, 0.1, 0.2, 0.4])
    def test_shrinkage_is_half_the_penalty(self, weight):
        data = toy_data(ToyConfig(n_features=20, orthogonal=True), n_tokens=20_000)
        result = found(data, d_sae=20, l1_coefficient=weight)
        assert result.recovered >= 19
        assert result.shrinkage == pytest.approx(weight / 2, rel=0.2)
        assert result.relative_reconstruction_bias < 1 - weight / 2


@pytest.fixture(scope="module")
def pentagons() -> SuperpositionModels:
    return train_superposition(density=0.02, n_models=2)


def undone(models: SuperpositionModels, number: int, **changes: Any) -> Recovery:
    """An SAE on the hidden vectors of a toy model."""
    config = ToyConfig(n_features=5, d_in=2, probability=0.02, seed=number)
    data = toy_data(config, n_tokens=20_000, directions=models.W[number])
    return found(data, **{"d_sae": 8, "learning_rate": 2e-3, "steps": 4000, "batch_size": 512} | changes)


@pytest.mark.slow
def test_eight_features_and_enough_penalty_undo_a_pentagon(pentagons):
    for number in range(2):
        result = undone(pentagons, number, l1_coefficient=0.3, seed=number)
        assert result.recovered == 5 and result.mmcs >= 0.995


def test_too_little_penalty_does_not(pentagons):
    assert undone(pentagons, 0, l1_coefficient=0.05, steps=2500).mmcs < 0.98


RUNGS: dict[str, dict[str, Any]] = {
    "1 enough tokens": {"batch_size": 512, "steps": 1200, "learning_rate": 5e-3, "lr_schedule": "linear"},
    "2 no first tokens": {"skip_first": True},
    "3 overcomplete": {"d_sae": 192},
    "4 centred": {"center": True},
    "5 unit norm, tied": {"unit_norm_decoder": True, "tied_init": True},
    "6 penalty summed": {"loss_reduction": "sum", "l1_warmup": 0.1, "l1_coefficient": 0.6},
}
"""What each rung adds to the original tutorial's recipe."""


def rung(number: int, n_tokens: int = 21_000, **changes: Any) -> Recovery:
    """The recipe with all rungs up to this one, on the ladder's data; measured on others."""
    config = TrainConfig.original_tutorial()
    for added in list(RUNGS.values())[:number]:
        config = config.changed(**added)
    data = toy_data(ToyConfig.ladder(), n_tokens=n_tokens)
    trainer = Trainer(*data.training_input, config.changed(**changes))
    for _ in trainer.run():
        pass
    return measure_recovery(trainer.sae(), toy_data(ToyConfig.ladder(), n_tokens=7000, sample_seed=1))


class TestLadder:
    """The repair ladder: 128 known features in 64 dimensions, a mean, an outlier at position 0."""

    def test_the_original_recipe(self):
        result = rung(0, n_tokens=14)
        assert result.recovered == 0 and result.mmcs < 0.30
        assert result.explained_variance < 0.0

    def test_more_tokens_let_the_outlier_look_like_success(self):
        result = rung(1)
        assert result.explained_variance_with_first > 0.99 and result.explained_variance < 0.5
        assert result.recovered == 0 and result.mmcs < 0.40

    @pytest.mark.parametrize("number", [3, 4, 5])
    def test_good_reconstruction_finds_nothing(self, number):
        result = rung(number)
        assert result.explained_variance > 0.99
        assert result.recovered == 0 and result.mmcs < 0.55 and result.l0 > 100

    @pytest.mark.slow
    def test_the_penalty_is_the_step_that_matters(self):
        results = {weight: rung(6, l1_coefficient=weight) for weight in (0.1, 0.3, 0.6)}
        assert results[0.3].recovered >= 120 and results[0.6].recovered == 128
        assert results[0.6].mmcs > 0.99 and results[0.1].recovered < results[0.3].recovered
        assert 0.90 < results[0.6].explained_variance < results[0.1].explained_variance < 0.985
        assert results[0.6].l0 < results[0.3].l0 < 15

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("taken_back", "most"),
        [({"n_tokens": 14}, 5), ({"skip_first": False}, 90), ({"d_sae": 16}, 0)],
        ids=["enough tokens", "no outlier", "overcomplete"],
    )
    def test_one_repair_taken_back_breaks_it(self, taken_back, most):
        result = rung(6, **taken_back)
        assert result.recovered <= most and result.mmcs < 0.88
        if "skip_first" in taken_back:
            assert result.explained_variance_with_first > 0.99  # and nobody would see it

    @pytest.mark.slow
    def test_centring_does_nothing_here(self):
        result = rung(6, center=False, steps=2000)
        assert result.recovered >= 124 and result.mmcs > 0.985
