"""The original tutorial, reproduced: the same start, the same loss at every epoch."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch._dynamo  # torch.optim imports it at its first use, and that changes warning filters
from torch import nn

from sae_widget.activations.extract import get_activations
from sae_widget.activations.models import load_model
from sae_widget.config import START, TrainConfig
from sae_widget.training import Trainer, TrainingFault, TrainStep, explained_variance, original, train

N, D_IN, D_SAE = 14, 768, 16


@pytest.fixture(scope="module")
def x() -> torch.Tensor:
    values = torch.randn(N, D_IN, generator=torch.Generator().manual_seed(5)) * 3
    values[0] *= 20  # GPT-2's first position
    return values


def plain_loop(
    x: torch.Tensor, seed: int, epochs: int = 500, dtype: torch.dtype = torch.float32
) -> tuple[nn.Linear, nn.Linear, list[float]]:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        encoder, decoder = nn.Linear(x.shape[1], D_SAE), nn.Linear(D_SAE, x.shape[1])
    x, encoder, decoder = x.to(dtype), encoder.to(dtype), decoder.to(dtype)  # from the same start
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=1e-3)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 100, 0.5)
    losses = []
    for _ in range(epochs):
        optimizer.zero_grad()
        acts = torch.relu(encoder(x))
        loss = nn.functional.mse_loss(decoder(acts), x) + 0.01 * acts.abs().mean()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    return encoder, decoder, losses


def test_start_is_that_of_two_linear_layers(x: torch.Tensor) -> None:
    encoder, decoder, _ = plain_loop(x, seed=3, epochs=0)
    sae = Trainer(x, torch.arange(N), TrainConfig.original_tutorial(seed=3)).sae()
    assert torch.equal(sae.W_enc, encoder.weight.T)
    assert torch.equal(sae.b_enc, encoder.bias)
    assert torch.equal(sae.W_dec, decoder.weight.T)
    assert torch.equal(sae.b_dec, decoder.bias)
    assert not sae.apply_b_dec_to_input and sae.scale == 1.0


@pytest.mark.parametrize("fast", [True, False])
def test_loss_at_every_epoch_equals_the_plain_loop(
    x: torch.Tensor, fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not fast:
        monkeypatch.setattr(original, "MOST_FEATURES", 0)
    encoder, _, losses = plain_loop(x, seed=0)
    trainer = Trainer(x, torch.arange(N), TrainConfig.original_tutorial())
    records = list(trainer.run())
    assert [r.step for r in records] == list(range(1, 501))
    assert max(abs(r.loss - loss) / loss for r, loss in zip(records, losses, strict=True)) < 1e-4
    assert torch.allclose(trainer.sae().W_enc, encoder.weight.T, atol=1e-3)
    assert (trainer._engine.fast is not None) == fast
    assert {r.learning_rate for r in records} == {1e-3, 5e-4, 2.5e-4, 1.25e-4, 6.25e-5}


def test_on_the_tutorials_sentence_it_is_the_exact_loop() -> None:
    """Against float64: there the float32 loop itself drifts, by 1e-4 with seed 0 (a ReLU's edge is rounded over)."""
    model = load_model("bundled")
    acts = get_activations(model, START.text, model.n_layer - 1, "final_norm", prepend_bos=False)
    drift = []
    for seed in range(3):
        records = train(acts.values, acts.position, TrainConfig.original_tutorial(seed=seed))
        exact = plain_loop(acts.values, seed, dtype=torch.float64)[2]
        drift.append(max(abs(r.loss - loss) / loss for r, loss in zip(records, exact, strict=True)))
    assert sorted(drift)[1] < 1e-5  # 8e-7 were seen
    assert max(drift) < 1e-3  # another model's weights may put one seed on such an edge


def test_every_record_is_true(x: torch.Tensor) -> None:
    # The record of step s describes the weights after step s - 1.
    position = torch.arange(N)
    trainer = Trainer(x, position, TrainConfig.original_tutorial(steps=60))
    before, rest = trainer.sae(), position != 0
    for record in trainer.run():
        acts, out = before.encode(x), before(x)
        assert record.reconstruction == pytest.approx(float((out - x).square().mean()), rel=1e-4)
        assert record.sparsity == pytest.approx(0.01 * float(acts.mean()), rel=1e-4)
        assert record.loss == pytest.approx(record.reconstruction + record.sparsity)
        assert record.l0 == pytest.approx(float((acts > 0).sum()) / N, abs=1e-9)
        assert record.explained_variance == pytest.approx(explained_variance(x[rest], out[rest]), abs=1e-4)
        assert record.explained_variance_with_first == pytest.approx(explained_variance(x, out), abs=1e-4)
        assert record.dead == int((~(acts > 0).any(0)).sum())
        assert record.tokens == N * record.step == trainer.tokens
        assert record.tokens_per_second > 0
        before = trainer.sae()


def test_general_path_gives_the_same_records(x: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    config = TrainConfig.original_tutorial(steps=120)
    fast = list(train(x, torch.arange(N), config))
    monkeypatch.setattr(original, "MOST_FEATURES", 0)
    for a, b in zip(fast, train(x, torch.arange(N), config), strict=True):
        for name in ("loss", "l0", "explained_variance", "explained_variance_with_first"):
            assert getattr(a, name) == pytest.approx(getattr(b, name), rel=1e-4, abs=1e-4), (name, a.step)
        assert (a.dead, a.tokens, a.learning_rate) == (b.dead, b.tokens, b.learning_rate)


def test_both_libraries_products_give_the_same_records(x: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    config = TrainConfig.original_tutorial(steps=60)
    small = [record.loss for record in train(x, torch.arange(N), config)]
    monkeypatch.setattr(original, "SMALL_PRODUCT", 0)
    assert small == pytest.approx([record.loss for record in train(x, torch.arange(N), config)], rel=1e-5)


def test_looking_at_the_weights_changes_nothing(x: torch.Tensor) -> None:
    config = TrainConfig.original_tutorial(steps=90)
    whole = Trainer(x, torch.arange(N), config)
    expected = list(whole.run())
    looked_at = Trainer(x, torch.arange(N), config)
    for record, wanted in zip(looked_at.run(), expected, strict=True):
        assert record.loss == wanted.loss
        if record.step % 7 == 0:
            looked_at.sae()
            assert looked_at.step == record.step
    assert torch.equal(looked_at.sae().W_dec, whole.sae().W_dec)


def test_pause_is_at_the_record(x: torch.Tensor) -> None:
    trainer = Trainer(x, torch.arange(N), TrainConfig.original_tutorial())
    run = trainer.run()
    for _ in range(13):
        next(run)
    run.close()
    assert trainer.step == 13
    short = Trainer(x, torch.arange(N), TrainConfig.original_tutorial(steps=13))
    list(short.run())
    assert torch.equal(trainer.sae().W_enc, short.sae().W_enc)
    assert next(trainer.run()).step == 14


def test_settings_change_at_the_record(x: torch.Tensor) -> None:
    trainer = Trainer(x, torch.arange(N), TrainConfig.original_tutorial(steps=60))
    rates: list[float] = []
    for record in trainer.run():
        rates.append(record.learning_rate)
        if record.step == 10:
            trainer.reconfigure(trainer.config.changed(learning_rate=0.5e-3))
    assert rates == [1e-3] * 10 + [0.5e-3] * 50


@pytest.mark.parametrize("at", [1, 2, 13, 25, 26, 49])
def test_nan_rolls_back_to_the_step_before(x: torch.Tensor, at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    good = Trainer(x, torch.arange(N), TrainConfig.original_tutorial(steps=at - 1 or 1))
    if at > 1:
        list(good.run())
    broken = Trainer(x, torch.arange(N), TrainConfig.original_tutorial(steps=60))
    train_epochs = original.FastEpochs._train

    def poisoned(self: Any, step: int, rates: list[float], l1: list[float]) -> None:
        for i, (rate, weight) in enumerate(zip(rates, l1, strict=True)):
            train_epochs(self, step + i, [rate], [math.nan if step + i == at else weight])
            if i:  # one epoch at a time lands in the first slot; the caller reads them all
                self.errors[i].copy_(self.errors[0])
                self.acts[i].copy_(self.acts[0])

    monkeypatch.setattr(original.FastEpochs, "_train", poisoned)
    seen: list[TrainStep] = []
    with pytest.raises(TrainingFault, match=f"at step {at} .*Rolled back to step {at - 1}, the last good"):
        for record in broken.run():
            seen.append(record)
    monkeypatch.undo()
    assert [r.step for r in seen] == list(range(1, at))
    assert broken.step == at - 1
    assert torch.equal(broken.sae().W_dec, good.sae().W_dec)
    assert bool(torch.isfinite(broken.state_dict()["exp_avg_sq"]).all())
    assert [r.step for r in broken.run()] == list(range(at, 61))


def test_tokens_since_fired() -> None:
    fired = np.array([[1, 0, 0], [0, 0, 1], [1, 0, 0], [0, 0, 0]], dtype=bool)
    since = original.tokens_since_fired(fired, np.array([5, 7, 0]), n=14)
    assert since.tolist() == [[0, 21, 14], [14, 35, 0], [0, 49, 14], [14, 63, 28]]


@pytest.mark.parametrize("changes", [{"loss_reduction": "sum"}, {"normalize": True}, {"l1_warmup": 0.5}])
def test_other_plain_recipes_take_the_same_path(changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    values = torch.randn(9, 33, generator=torch.Generator().manual_seed(1))
    config = TrainConfig.original_tutorial(steps=40, **changes)
    fast = [r.loss for r in train(values, torch.arange(9), config)]
    monkeypatch.setattr(original, "MOST_FEATURES", 0)
    assert fast == pytest.approx([r.loss for r in train(values, torch.arange(9), config)], rel=1e-4)
