"""What the language model loses with an SAE that was shown and not trained here, and where that is not defined."""

from __future__ import annotations

import threading
import time
from dataclasses import asdict, replace

import pytest
import torch

from sae_widget import measure_fidelity
from sae_widget.checkpoint import save_sae
from sae_widget.runner.desk import Desk
from sae_widget.runner.opened import opened_from
from sae_widget.sae import StandardSAE
from tests.running import QUICK, train, until

D_IN = 32


def identity(**metadata):
    """It gives back what it reads: each dimension has a feature for its positive part and one for its negative."""
    both = torch.cat([torch.eye(D_IN), -torch.eye(D_IN)])  # [64, 32]
    parts = {"W_enc": both.T.contiguous(), "W_dec": both, "b_enc": torch.zeros(2 * D_IN), "b_dec": torch.zeros(D_IN)}
    return StandardSAE(**parts, metadata=metadata)


def nothing(**metadata):
    """It reconstructs zero, whatever it reads."""
    parts = identity()
    return replace(parts, b_enc=torch.full((2 * D_IN,), -1e9), metadata=metadata)


def show(runner, sae, **options):
    runner.open(replace(opened_from(sae), **options))
    assert runner.wait(60)


def test_an_sae_that_loses_nothing_recovers_all_and_one_that_gives_zero_nothing(start):
    state, runner = start()
    assert state.fidelity is None
    show(runner, identity())
    found = state.fidelity
    assert found.recovered_zero == pytest.approx(1.0, abs=1e-4) and found.kl == pytest.approx(0.0, abs=1e-5)
    assert found.n_tokens >= 100 and state.unmeasured == ""
    show(runner, nothing())
    assert state.fidelity.recovered_zero == pytest.approx(0.0, abs=1e-6)
    assert state.fidelity.ce_clean == found.ce_clean and state.fidelity.ce_zero == found.ce_zero


@pytest.mark.parametrize("corpus", ["documentation", "text"])
def test_it_is_the_number_of_the_same_sae_when_it_is_trained_here(start, tmp_path, corpus):
    state, runner = start(corpus=corpus, settings=QUICK.changed(batch_size=8))
    train(runner)
    trained = state.fidelity
    assert trained.n_tokens > 10
    sae = state.features.sae
    save_sae(sae, tmp_path / "run")
    other, another = start(corpus=corpus)  # where nothing was ever trained
    assert other.fidelity is None
    for shown, worker in ((state, runner), (other, another)):
        show(worker, tmp_path / "run")
        assert shown.features.sae is not sae
        assert asdict(shown.fidelity) == pytest.approx(asdict(trained), rel=1e-5)  # a file has the scale folded in
        show(worker, sae)
        assert shown.features.source == "the SAE from Python, after block 2" and shown.fidelity == trained


def test_it_is_the_number_of_the_public_function(start):
    state, runner = start(corpus="text", text="It was the best of times, it was the worst of times.")
    sae = identity()
    sae = replace(sae, b_dec=torch.full((D_IN,), 0.1))
    show(runner, sae)
    assert state.fidelity == measure_fidelity(sae, state.language_model, state.activations)
    state.text = "Another text, and the same SAE."
    assert runner.wait(60)
    assert state.fidelity == measure_fidelity(sae, state.language_model, state.activations)


def test_an_sae_of_another_model_or_place_has_none_and_a_sentence(start):
    state, runner = start()
    sae = identity(model_name="gpt2", layer=8, hook_name="resid_pre")
    show(runner, sae, anyway=True)
    assert state.features.sae is sae and state.fidelity is None
    assert state.unmeasured == (
        f"this SAE was trained on gpt2 resid_pre 8, the explorer reads {state.language_model.name} resid_pre 2, "
        "and what a model loses is only defined for an SAE of its own place"
    )
    show(runner, identity())
    assert state.fidelity is not None and state.unmeasured == ""


def test_a_text_without_a_token_to_predict_has_none_and_a_sentence(start):
    state, runner = start(corpus="text", text="a")
    show(runner, identity())
    assert state.fidelity is None
    assert state.unmeasured == "no window has a token to predict behind the first ones; give a longer text"
    state.text = "abc"
    assert runner.wait(60)
    assert state.fidelity.n_tokens == 2 and state.unmeasured == ""


def test_a_corpus_that_is_gone_is_a_sentence(start, tmp_path):
    train(runner := start()[1])
    save_sae(runner.state.features.sae, tmp_path / "run", runner.state.features.stats.tensors())
    state, runner = start(corpus=str(tmp_path / "gone"))
    show(runner, tmp_path / "run")
    assert state.features.stats is not None and state.fidelity is None
    assert "gone" in state.unmeasured and state.status.phase == "ready" and not state.status.trouble


def test_each_place_has_its_own_number(start):
    state, runner = start()
    sae = replace(identity(), b_dec=torch.full((D_IN,), 0.5))  # it says of no place
    show(runner, sae)
    first = state.fidelity
    state.layer = 0
    assert runner.wait(60)
    assert state.features is None and state.fidelity is None
    show(runner, sae)
    assert state.fidelity is not None and state.fidelity.kl != first.kl
    state.layer = 2
    assert runner.wait(60)
    assert state.features.sae is sae and state.fidelity == first


def test_the_sae_that_ships_is_measured_when_its_texts_were_read(start):
    state, runner = start(model="bundled", corpus_tokens=600)
    assert state.features.sae.metadata["model_name"] == "bundled"
    assert state.fidelity is None  # reading them takes its time, which nobody has asked for
    state.selected = 3
    assert runner.wait(60)
    assert state.fidelity.recovered_zero > 0.5 and state.fidelity.n_tokens > 100


def test_a_person_does_not_wait_for_it(start, tmp_path, monkeypatch):
    train(runner := start()[1])
    save_sae(runner.state.features.sae, tmp_path / "run", runner.state.features.stats.tensors())
    read, parts = Desk.read_training_data, []

    def slowly(desk, *wanted):
        while len(parts) < 60:
            parts.append(0)
            time.sleep(0.05)
            yield 0
        yield from read(desk, *wanted)

    monkeypatch.setattr(Desk, "read_training_data", slowly)
    state, runner = start()
    runner.open(opened_from(tmp_path / "run"))
    until(lambda: state.status.message.endswith("Measuring what the model loses with it."))
    state.text = "Another text."
    until(lambda: state.activations.texts == ("Another text.",))
    assert len(parts) < 60 and state.fidelity is None
    assert runner.wait(60)
    assert state.fidelity.n_tokens > 100 and state.status.message.startswith("Showing the SAE of run")
    assert "Measuring" not in state.status.message and state.status.phase == "ready"


def test_a_training_that_was_stopped_before_it_began_does_not_leave_it_unmeasured(start, tmp_path, monkeypatch):
    train(runner := start()[1])
    save_sae(runner.state.features.sae, tmp_path / "run", runner.state.features.stats.tensors())
    state, runner = start()
    read, go = Desk.read_training_data, threading.Event()

    def slowly(desk, *wanted):
        while not go.is_set():
            time.sleep(0.01)
            yield 0
        yield from read(desk, *wanted)

    monkeypatch.setattr(Desk, "read_training_data", slowly)
    runner.open(opened_from(tmp_path / "run"))
    runner.command("train")
    until(lambda: state.status.message.startswith("Reading the corpus"))
    time.sleep(0.3)  # the measuring has its turn, and waits
    runner.command("stop")
    until(lambda: state.status.phase == "ready")
    assert state.fidelity is None
    go.set()
    assert runner.wait(60)
    assert state.fidelity is not None


def test_a_training_that_failed_is_measured_as_far_as_it_came(start, monkeypatch):
    state, runner = start(settings=QUICK.changed(steps=100_000))
    runner.command("train")
    until(lambda: state.status.phase == "training" and state.status.step > 5)
    monkeypatch.setattr(runner, "_progress", lambda _record: 1 / 0)
    assert runner.wait(60)
    assert state.status.phase == "failed" and state.features.sae.metadata["training"]["steps"] > 5
    assert state.fidelity is not None


def test_a_trained_sae_that_was_saved_and_is_shown_again_has_its_number(start):
    state, runner = start()
    train(runner)
    first = state.fidelity
    runner.command("restore")
    assert runner.wait(60)
    assert state.fidelity.n_tokens == first.n_tokens
