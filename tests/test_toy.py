"""sae_widget.toy and recovery: what is drawn, what is trained, what is refused. What comes out is in test_toy_facts."""

from __future__ import annotations

import threading

import pytest
import torch
import torch._dynamo  # autograd and torch.optim import it at their first use, and that changes the environment

from sae_widget.recovery import measure_recovery
from sae_widget.sae import StandardSAE
from sae_widget.toy import (
    SuperpositionConfig,
    ToyConfig,
    feature_dimensionality,
    interference,
    run_superposition,
    toy_data,
    train_superposition,
)
from sae_widget.toy.superposition import _Training

PAIRS = SuperpositionConfig(
    n_features=7, d_hidden=3, n_models=4, density=(0.1, 0.2, 0.3, 0.5), correlated_pairs=1, anticorrelated_pairs=2
)


class TestMeasuresOfAToyModel:
    def test_dimensionality_by_hand(self):
        # One alone, two opposite, one left out; and the five of a pentagon of any size.
        W = torch.tensor([[3.0, 0.0], [0.0, 2.0], [0.0, -2.0], [0.0, 0.0]])
        assert feature_dimensionality(W).tolist() == [1.0, 0.5, 0.5, 0.0]
        angle = torch.arange(5) * 2 * torch.pi / 5
        pentagon = torch.stack([angle.cos(), angle.sin()], 1) * 1.7
        assert feature_dimensionality(torch.stack([pentagon, 2 * pentagon])).flatten().tolist() == pytest.approx(
            [0.4] * 10
        )

    def test_interference_by_hand(self):
        W = torch.tensor([[2.0, 0.0], [3.0, 3.0], [0.0, 0.0]])
        half = 0.5**0.5
        expected = torch.tensor([[0.0, half, 0.0], [half, 0.0, 0.0], [0.0, 0.0, 0.0]])
        torch.testing.assert_close(interference(W), expected)

    def test_of_the_record(self):
        models = train_superposition(n_features=5, d_hidden=2, n_models=3, steps=2, batch_size=16)
        assert models.W.shape == (3, 5, 2) and models.b.shape == (3, 5)
        assert models.steps.tolist() == [1, 2] and models.losses.shape == (2, 3)
        assert models.norms.shape == models.dimensionality.shape == (3, 5)
        assert models.interference.shape == (3, 5, 5)
        expected = [2 / float(w.square().sum()) for w in models.W]
        assert models.dimensions_per_feature.tolist() == pytest.approx(expected)
        x = torch.rand(6, 5, generator=torch.Generator().manual_seed(1))
        by_hand = (x @ models.W[1] @ models.W[1].T + models.b[1]).relu()
        torch.testing.assert_close(models(x)[1], by_hand)


class TestTrainingOfToyModels:
    def test_gradients_equal_autograd(self):
        config = SuperpositionConfig(
            n_features=6, d_hidden=3, n_models=4, density=0.6, importance=0.8, batch_size=50, seed=2
        )
        training = _Training(config)
        training.b.copy_(torch.linspace(-0.2, 0.2, 24).view(4, 6))
        training.sample()
        W, b = training.W.clone().requires_grad_(), training.b.clone().requires_grad_()
        x = training.x.transpose(1, 2)  # [n_models, batch, n_features]
        out = (x @ W @ W.transpose(1, 2) + b[:, None]).relu()
        losses = (0.8 ** torch.arange(6) * (x - out).square()).mean((1, 2))
        losses.sum().backward()
        torch.testing.assert_close(training.gradients(measure=True), losses.detach())
        torch.testing.assert_close(training.W_grad, W.grad, atol=1e-7, rtol=1e-4)
        torch.testing.assert_close(training.b_grad, b.grad, atol=1e-7, rtol=1e-4)

    def test_steps_equal_those_of_torch(self):
        config = SuperpositionConfig(n_models=2, batch_size=30, density=0.5, steps=3)
        training, other = _Training(config), _Training(config)
        params = other.params.clone().requires_grad_()
        torch_ones = torch.optim.AdamW([params], lr=1e-3)
        for step in (1, 2, 3):
            training.one_step(step, measure=False)
            other.sample()
            other.params.copy_(params.detach())
            other.gradients(measure=False)
            params.grad = other.grads.clone()
            torch_ones.step()
        torch.testing.assert_close(training.params, params.detach(), atol=1e-6, rtol=1e-5)

    def test_samples_are_as_often_on_and_as_strong_as_was_asked(self):
        training = _Training(PAIRS)
        parts = []
        for _ in range(20):
            training.sample()
            parts.append(training.x.clone())
        x = torch.cat(parts, 2)  # [n_models, n_features, 20,480]
        for model, p in enumerate(PAIRS.densities()):
            on = x[model] > 0
            assert on.float().mean(1).tolist() == pytest.approx([p] * 7, abs=0.015)
            assert float(x[model][on].mean()) == pytest.approx(0.5, abs=0.01)
            assert 0.99 < float(x[model].max()) <= 1.0
            assert torch.equal(on[0], on[1]) and not torch.equal(x[model, 0], x[model, 1])
            assert not bool((on[2] & on[3]).any()) and not bool((on[4] & on[5]).any())
            assert float((on[4] & on[6]).float().mean()) == pytest.approx(p * p, abs=0.01)
        strengths = torch.corrcoef(x[3, :2][:, x[3, 0] > 0])
        assert abs(float(strengths[0, 1])) < 0.05

    def test_records_come_when_they_should(self):
        config = SuperpositionConfig(steps=25, batch_size=8)
        assert [r.step for r in run_superposition(config, record_every=10)] == [1, 10, 20, 25]
        assert [r.step for r in run_superposition(config, record_every=100)] == [1, 25]
        first = next(run_superposition(config, record_every=10))
        assert first.losses.shape == (1,) and first.dimensionality.shape == (1, 5)

    def test_the_loss_falls_and_the_same_seed_gives_the_same(self):
        made = [train_superposition(n_models=2, steps=600, seed=seed) for seed in (3, 3, 4)]
        assert float(made[0].losses[-5:].mean()) < 0.5 * float(made[0].losses[:5].mean())
        assert torch.equal(made[0].W, made[1].W) and not torch.equal(made[0].W, made[2].W)

    def test_a_record_keeps_its_weights_while_training_goes_on(self):
        run = run_superposition(SuperpositionConfig(steps=20, batch_size=8), record_every=10)
        first = next(run)
        before = first.W.clone()
        list(run)
        assert torch.equal(first.W, before)

    def test_threads_are_as_before_also_between_records(self):
        found: list[int] = []

        def look():
            torch.set_num_threads(3)  # of this thread
            try:
                for _ in run_superposition(SuperpositionConfig(steps=20, batch_size=8), record_every=10):
                    found.append(torch.get_num_threads())
            finally:
                torch.set_num_threads(1)

        thread = threading.Thread(target=look)
        thread.start()
        thread.join()
        assert found == [3, 3, 3]

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"n_features": 0}, "n_features must be at least 1, got 0"),
            ({"d_hidden": -1}, "d_hidden must be at least 1, got -1"),
            ({"density": 0.0}, "density must be above 0 and at most 1, got 0"),
            ({"density": (0.1, 0.2), "n_models": 3}, "one number or 3, one for each model; got 2"),
            ({"importance": (1.0, 2.0)}, "one number or 5, one for each feature; got 2"),
            ({"correlated_pairs": 2, "anticorrelated_pairs": 1}, "the pairs need 6 features, but n_features is 5"),
            ({"anticorrelated_pairs": 1, "density": 0.6}, "at most 0.5 with anticorrelated pairs, got 0.6"),
            ({"batch_size": 10**8}, "must be at most 100,000,000, got 500,000,000"),
        ],
    )
    def test_what_is_refused(self, changes, words):
        with pytest.raises(ValueError, match=words):
            SuperpositionConfig(**changes)

    def test_of_the_wrong_type(self):
        with pytest.raises(TypeError, match=r"steps must be a whole number, got 2\.5"):
            SuperpositionConfig(steps=2.5)
        with pytest.raises(TypeError, match="density must be a number, got 'low'"):
            SuperpositionConfig(density="low")
        with pytest.raises(TypeError, match="unknown setting 'n'; known: n_features"):
            train_superposition(n=5)
        with pytest.raises(TypeError, match="not both: got steps as well"):
            train_superposition(SuperpositionConfig(), steps=5)
        with pytest.raises(TypeError, match="config must be a SuperpositionConfig, got dict"):
            run_superposition({})
        with pytest.raises(ValueError, match="record_every must be at least 1, got 0"):
            run_superposition(SuperpositionConfig(), record_every=0)


class TestActivationsWithKnownFeatures:
    def test_the_default(self):
        data = toy_data(n_tokens=20_000)
        assert data.values.shape == (20_000, 32) and data.directions.shape == (64, 32)
        torch.testing.assert_close(data.directions.norm(dim=1), torch.ones(64))
        torch.testing.assert_close(data.values, data.acts @ data.directions)
        assert data.position.tolist() == [1] * 20_000
        assert data.l0 == pytest.approx(3.2, abs=0.05)
        on = data.acts[data.acts > 0]
        assert float(on.mean()) == pytest.approx(0.5, abs=0.01) and float(on.max()) <= 1.0
        overlap = interference(data.directions).abs()
        assert float(overlap.sum()) / (64 * 63) == pytest.approx(0.140, abs=0.005)  # FACTS section 2

    def test_the_ladder(self):
        data = toy_data(ToyConfig.ladder(), n_tokens=14_000)
        assert data.values.shape == (14_000, 64) and data.directions.shape == (128, 64)
        assert data.position[:30].tolist() == [*range(14), *range(14), 0, 1]
        first = data.position == 0
        assert float(data.values[first].norm(dim=1).sub(233).abs().max()) < 1e-3
        assert torch.equal(data.values[0], data.values[14]) and not bool(data.acts[first].any())
        mean = data.values[~first] - data.acts[~first] @ data.directions
        assert mean.norm(dim=1).tolist() == pytest.approx([6.0] * 13_000, abs=1e-3)
        assert float((mean - mean[0]).abs().max()) < 1e-4
        on = data.acts[data.acts > 0]
        assert 1 <= float(on.min()) < 1.01 and 3.99 < float(on.max()) <= 4
        assert data.l0 == pytest.approx(2.56, abs=0.05)

    def test_noise_and_right_angles(self):
        config = ToyConfig(n_features=6, d_in=9, orthogonal=True, noise=0.3, probability=0.5)
        data = toy_data(config, n_tokens=4000)
        torch.testing.assert_close(data.directions @ data.directions.T, torch.eye(6), atol=1e-5, rtol=0)
        noise = data.values - data.acts @ data.directions
        assert float(noise.std()) == pytest.approx(0.3, abs=0.01)

    def test_held_out_has_the_same_directions_and_other_samples(self):
        data = toy_data(ToyConfig.ladder(seed=5), n_tokens=300)
        other, same = data.held_out(), toy_data(ToyConfig.ladder(seed=5), n_tokens=300)
        assert torch.equal(data.values, same.values)
        assert torch.equal(data.directions, other.directions) and torch.equal(data.values[0], other.values[0])
        assert not torch.equal(data.acts, other.acts) and len(other.values) == 300
        assert len(data.held_out(20).values) == 20
        assert not torch.equal(data.directions, toy_data(ToyConfig.ladder(seed=6), n_tokens=3).directions)

    def test_directions_of_a_toy_model_are_kept_with_their_lengths(self):
        W = torch.tensor([[2.0, 0.0], [0.0, 3.0], [1.0, 1.0]])
        data = toy_data(ToyConfig(n_features=3, d_in=2, probability=0.5), n_tokens=50, directions=W)
        torch.testing.assert_close(data.values, data.acts @ W)
        assert torch.equal(data.held_out().directions, W)

    def test_what_is_drawn_in_pieces_is_drawn_as_often(self, monkeypatch):
        monkeypatch.setattr("sae_widget.toy.known.CHUNK", 64 * 100)
        data = toy_data(n_tokens=4050)
        assert data.l0 == pytest.approx(3.2, abs=0.1) and bool(torch.isfinite(data.values).all())

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"n_features": 0}, "n_features must be at least 1, got 0"),
            ({"probability": 1.5}, r"probability must be between 0 and 1, got 1\.5"),
            ({"noise": -1.0}, "noise must be at least 0, got -1"),
            ({"low": 2.0}, r"high must be above low \(2\), got 1"),
            ({"orthogonal": True}, "at most 32 directions are at right angles, got n_features 64"),
            ({"outlier_norm": 9.0}, "outlier_norm needs a window"),
            ({"mean_norm": float("nan")}, "mean_norm must be at least 0, got nan"),
        ],
    )
    def test_what_is_refused(self, changes, words):
        with pytest.raises(ValueError, match=words):
            ToyConfig(**changes)

    def test_arguments_that_are_refused(self):
        with pytest.raises(TypeError, match="window must be a whole number, got True"):
            ToyConfig(window=True)
        with pytest.raises(TypeError, match="config must be a ToyConfig, got int"):
            toy_data(14)
        with pytest.raises(ValueError, match="n_tokens must be at least 1, got 0"):
            toy_data(n_tokens=0)
        with pytest.raises(ValueError, match=r"directions must be \[64, 32\] as in the config, got \[3, 2\]"):
            toy_data(directions=torch.ones(3, 2))


class TestRecovery:
    def test_of_an_sae_that_is_the_truth(self):
        """Right angles: decoder and encoder are the directions, in other units, less 0.1 of each strength."""
        data = toy_data(ToyConfig(n_features=6, d_in=9, orthogonal=True, probability=0.3, low=0.5), n_tokens=500)
        order = torch.tensor([3, 1, 5, 0, 4, 2])
        rows = torch.cat([data.directions[order] * 2, torch.ones(2, 9)])  # two more that never fire
        W_enc = torch.cat([data.directions[order] / 2, torch.zeros(2, 9)]).T.contiguous()
        b_enc = torch.tensor([-0.2] * 6 + [-1.0] * 2)  # scale 4: 0.1 * 4 / 2
        found = measure_recovery(StandardSAE(W_enc, b_enc, rows, torch.zeros(9), scale=4.0), data)
        assert found.recovered == found.n_true == 6 and found.mmcs == pytest.approx(1.0)
        assert found.l0 == found.true_l0 and found.dead == 2 and found.n_tokens == 500
        assert found.shrinkage == pytest.approx(0.1, abs=1e-5)
        strength = data.acts[data.acts > 0]
        small = strength - 0.1
        assert found.relative_reconstruction_bias == pytest.approx(
            float(small.square().sum() / (small * strength).sum())
        )
        assert 0.5 < found.explained_variance == found.explained_variance_with_first < 1.0
        assert str(found).startswith("6 of 6 found, MMCS 1.000, l0 ")

    def test_an_outlier_rules_only_the_measure_that_keeps_it(self):
        data = toy_data(ToyConfig.ladder(), n_tokens=1400)
        outlier = data.values[0]
        unit = outlier / outlier.norm()
        sae = StandardSAE(unit[:, None].clone(), torch.zeros(1), unit[None].clone(), torch.zeros(64))
        found = measure_recovery(sae, data)
        assert found.explained_variance_with_first > 0.98 and found.explained_variance < 0.1
        assert found.recovered == 0 and found.n_tokens == 1300

    def test_what_is_refused(self):
        data = toy_data(ToyConfig.ladder(), n_tokens=1)
        with pytest.raises(ValueError, match=r"values must be \[n_tokens, 3\]"):
            measure_recovery(StandardSAE(torch.ones(3, 2), torch.zeros(2), torch.ones(2, 3), torch.zeros(3)), data)
        with pytest.raises(ValueError, match="at least one token behind position 0"):
            measure_recovery(StandardSAE(torch.ones(64, 2), torch.zeros(2), torch.ones(2, 64), torch.zeros(64)), data)
