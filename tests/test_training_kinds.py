"""Every architecture on data whose features are known: it finds them, and it fires as much as it was asked to."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from sae_widget.config import ARCHITECTURES, TrainConfig
from sae_widget.metrics import mmcs, recovered
from sae_widget.sae import REGISTRY
from sae_widget.training import Trainer
from sae_widget.training.resample import resample
from tests.training_runs import generator, ladder, small_data

TARGET = 3  # features on a token; the truth is 2.6
WAYS: dict[str, dict[str, Any]] = {
    "topk": {"k": TARGET},
    "batchtopk": {"k": TARGET},
    "matryoshka_batchtopk": {"k": TARGET, "matryoshka_levels": 2},
    "standard": {"target_l0": float(TARGET)},
    "gated": {"target_l0": float(TARGET)},
    "jumprelu": {"target_l0": float(TARGET)},
}
LEAST_FOUND = {"matryoshka_batchtopk": 100}  # the first half of the features learns mixtures of the rest

every_architecture = pytest.mark.parametrize("architecture", sorted(REGISTRY))


def run(architecture: str, data: tuple[torch.Tensor, torch.Tensor, torch.Tensor], **changes: Any) -> Trainer:
    own = {"d_sae": 192, "steps": 1200, "batch_size": 512, "learning_rate": 2e-3} | WAYS[architecture] | changes
    trainer = Trainer(data[0], data[1], TrainConfig(architecture=architecture, **own))
    list(trainer.run())
    return trainer


@pytest.mark.parametrize("architecture", [name for name, own in sorted(ARCHITECTURES.items()) if "k" in own])
@pytest.mark.parametrize("target", [0.0, 7.0])
def test_the_sae_has_the_k_that_was_trained(architecture: str, target: float) -> None:
    config = TrainConfig(architecture=architecture, d_sae=20, k=3, target_l0=target, steps=20, batch_size=16)
    trainer = Trainer(*small_data(), config)
    l0 = list(trainer.run())[-1].l0
    k = 7 if target else 3
    assert trainer.sae().k == k and k - 1 < l0 <= k  # type: ignore[attr-defined]


@pytest.mark.slow
@every_architecture
def test_it_finds_the_known_features_and_fires_as_asked(architecture: str) -> None:
    values, position, true = data = ladder(20_000)
    sae = run(architecture, data).sae()
    acts = sae.encode(values[position != 0])
    live = (acts > 0).any(0)
    assert mmcs(sae.W_dec, true, live) > 0.94
    assert recovered(sae.W_dec, true, live) >= LEAST_FOUND.get(architecture, 115)
    assert float((acts > 0).float().sum(1).mean()) == pytest.approx(TARGET, rel=0.12)


@every_architecture
def test_the_same_seed_gives_the_same_sae(architecture: str) -> None:
    data = ladder(2_000)
    first, second = (run(architecture, data, steps=30).state_dict() for _ in range(2))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


@every_architecture
def test_a_run_goes_on_bit_for_bit_from_its_state(architecture: str) -> None:
    values, position, _ = ladder(2_000)
    config = TrainConfig(architecture=architecture, d_sae=48, steps=60, batch_size=128, **WAYS[architecture])
    whole = Trainer(values, position, config)
    records = [record.loss for record in whole.run()]
    for split in (1, 7, 30, 59):
        first = Trainer(values, position, config)
        for record in first.run():
            if record.step == split:
                break
        second = Trainer(values, position, config)
        second.load_state_dict(first.state_dict())
        assert [record.loss for record in second.run()] == records[split:]
        ended = second.state_dict()
        assert all(torch.equal(tensor, ended[name]) for name, tensor in whole.state_dict().items())


@every_architecture
def test_a_target_can_change_while_it_trains(architecture: str) -> None:
    values, position, _ = ladder(6_000)
    config = TrainConfig(
        architecture=architecture, d_sae=96, steps=900, batch_size=256, learning_rate=2e-3, target_l0=6.0
    )
    trainer = Trainer(values, position, config)
    for record in trainer.run():
        if record.step == 400:
            trainer.reconfigure(config.changed(target_l0=3.0))
    fired = [record.l0 for record in Trainer(values, position, config.changed(steps=400)).run()][-1]
    assert fired == pytest.approx(6.0, rel=0.2)
    assert record.l0 == pytest.approx(3.0, rel=0.2)


def test_features_that_are_dead_start_again_from_the_worst_tokens() -> None:
    values, position = small_data()
    trainer = Trainer(values, position, TrainConfig(architecture="standard", d_sae=24, steps=5, batch_size=64))
    list(trainer.run())
    engine = trainer._engine
    work, dead = engine.work, torch.tensor([3, 11])
    kept = [n for n in range(24) if n not in dead.tolist()]
    before = {name: getattr(work.params, name).clone() for name in ("W_enc", "W_dec", "b_enc")}
    work.error.zero_()
    work.error[7] = 1.0  # one token has all the loss
    resample(work, engine.moments, dead, seed=1)
    token = work.target[7] / work.target[7].norm()
    size = 0.2 * before["W_enc"][kept].norm(dim=1).mean()
    assert torch.allclose(work.params.W_dec[dead], token.expand(2, -1))
    assert torch.allclose(work.params.W_enc[dead], (token * size).expand(2, -1))
    assert not work.params.b_enc[dead].any() and not engine.moments[0].W_dec[dead].any()
    assert all(torch.equal(getattr(work.params, name)[kept], tensor[kept]) for name, tensor in before.items())


def test_a_resampled_feature_gets_the_threshold_of_a_new_one_and_no_threshold_is_ever_negative() -> None:
    values, position = small_data()
    trainer = Trainer(values, position, TrainConfig(architecture="jumprelu", d_sae=24, steps=2, batch_size=64))
    engine, threshold = trainer._engine, trainer._engine.work.params.extra["threshold"]
    threshold[:5] = 1e-7  # a step of Adam takes them below zero
    engine.work.params.b_enc[:] = 5.0  # everything fires, so every threshold has a gradient or none
    list(trainer.run())
    assert float(threshold.min()) >= 0
    assert float(trainer.sae().threshold.min()) >= 0
    threshold.fill_(9.0)
    for moment in engine.moments:
        moment.extra["threshold"].fill_(1.0)
    engine.work.error.fill_(1.0)
    resample(engine.work, engine.moments, torch.tensor([2, 7]), seed=0)
    assert threshold[[2, 7]].tolist() == pytest.approx([0.1, 0.1]) and threshold[3] == 9.0
    assert not engine.moments[1].extra["threshold"][[2, 7]].any() and engine.moments[1].extra["threshold"][3] == 1.0


def test_resampling_brings_dead_features_back() -> None:
    # An encoder bias far below zero kills half of the features for good, unless they start again.
    values, position, _ = ladder(4_000)
    dead = []
    for every in (0, 50):
        config = TrainConfig(architecture="standard", d_sae=64, steps=300, batch_size=256, resample_every=every)
        trainer = Trainer(values, position, config)
        trainer._engine.work.params.b_enc[:32] = -1e3
        dead.append(list(trainer.run())[-1].dead)
    assert dead[0] >= 32
    assert dead[1] <= 8


def test_a_bfloat16_run_goes_on_as_one_from_its_state() -> None:
    x = torch.randn(300, 8, generator=generator(4))
    position = torch.ones(300, dtype=torch.int64)
    config = TrainConfig(d_sae=32, k=3, steps=12, batch_size=100, precision="bfloat16")
    whole = Trainer(x, position, config)
    losses = [record.loss for record in whole.run()]
    first = Trainer(x, position, config)
    records = first.run()
    for _ in range(5):
        next(records)
    second = Trainer(x, position, config.changed(precision="auto"))  # another machine would choose float32
    assert not second._engine.work.bfloat16
    second.load_state_dict(first.state_dict())
    assert [record.loss for record in second.run()] == losses[5:]


def test_the_number_of_threads_goes_with_a_run() -> None:
    x, position = torch.randn(64, 8, generator=generator(5)), torch.ones(64, dtype=torch.int64)
    config = TrainConfig(d_sae=16, k=2, steps=4, batch_size=32)
    first = Trainer(x, position, config)
    next(first.run())
    state = first.state_dict()
    assert int(state["threads"]) == 1  # the product is small
    second = Trainer(x, position, config)
    assert second._engine.threads == 0
    second.load_state_dict(state)
    assert second._engine.threads == 1
