"""The runner, whole: a real (tiny) model, real training, every command in every state (F11-F26, F34, F38)."""

import threading
import time

import psutil
import pytest
import torch

from sae_widget.activations.base import ModelLoadError
from sae_widget.autosave import saved_runs
from sae_widget.config import TrainConfig
from sae_widget.features import feature_stats, top_contexts
from sae_widget.runner import job
from sae_widget.runner.desk import Desk
from sae_widget.training import Trainer
from sae_widget.training.gradients import Workspace
from tests.running import ENDLESS, QUICK, TEXT, begin, train, until, weights


def test_a_text_is_read_and_a_model_without_sae_says_what_to_do(start):
    state, _ = start()
    assert state.activations.n_tokens == len(TEXT) + 1  # one token a byte, and the start token
    assert state.features is None
    assert state.status.phase == "ready"
    assert "press Train" in state.status.message


def test_training_gives_features_of_the_text_and_statistics_of_the_corpus(start):
    state, runner = start()
    train(runner)
    features = state.features
    assert features.sae.d_sae == 48
    assert len(state.history) == 60
    assert state.history_tick == 60
    assert features.source == "your SAE, after block 2, step 60"
    assert features.prompt.mean.shape == (48,)
    assert (features.prompt.indptr[1:] - features.prompt.indptr[:-1]).max() <= 4
    corpus = runner.desk.corpus
    expected = feature_stats(features.sae, corpus.values, corpus.position)
    assert features.stats.frequency.tolist() == expected.frequency.tolist()
    assert 1400 < features.stats.n_tokens <= 1500


def test_only_the_last_of_many_changes_is_read(start):
    state, runner = start()
    reads = []
    original = Desk.read
    runner.desk.read = lambda *a, **k: (reads.append(a[0]), original(runner.desk, *a, **k))
    for n in range(100):
        state.text = f"text number {n}"
        time.sleep(0.005)
    assert runner.wait(30)
    assert reads[-1] == "text number 99"
    assert len(reads) <= 5
    assert state.activations.texts == ("text number 99",)


@pytest.mark.parametrize("text", ["", "   \n"])
def test_an_empty_text_leaves_the_last_one_and_says_so(start, text):
    state, runner = start()
    before = state.activations
    state.text = text
    assert runner.wait(30)
    assert state.activations is before
    assert state.status.trouble
    assert "0 tokens" in state.status.message
    assert "tokens" in state.faults
    state.text = "again"
    assert runner.wait(30)
    assert state.faults == {}
    assert not state.status.trouble


@pytest.mark.parametrize("layer", [99, 3, -1])
def test_a_layer_that_the_model_lacks_is_refused_in_words(start, layer):
    state, runner = start()
    before = state.activations
    state.layer = layer
    assert runner.wait(30)
    assert f"layer must be between 0 and 2, got {layer}" in state.status.message
    assert state.activations is before
    runner.command("train")  # there is nothing to train on at that layer, and another one is not taken instead
    assert runner.wait(30)
    assert state.features is None
    assert f"layer must be between 0 and 2, got {layer}" in state.status.message


def test_a_reading_that_breaks_leaves_the_last_text_marked(start, monkeypatch):
    def broken(*_arguments, **_named):
        raise RuntimeError("the disk is on fire")

    state, runner = start()
    before = state.activations
    with monkeypatch.context() as patch:
        patch.setattr("sae_widget.runner.desk.get_activations", broken)
        state.text = "another"
        assert runner.wait(30)
    assert state.status.phase == "failed"
    assert state.activations is before
    assert state.faults == {"tokens": "The text could not be read. The last one stays: read it again."}
    runner.command("read")
    assert runner.wait(30)
    assert state.activations.texts == ("another",)
    assert state.faults == {}


def test_a_special_token_that_is_typed_is_plain_text(start):
    """F07"""
    state, _ = start(text="a<|endoftext|>b")
    assert state.activations.token_ids.tolist().count(256) == 1  # the start token alone
    assert state.activations.n_tokens == 16


def test_a_corpus_that_is_no_utf8_is_refused_with_the_byte(start, tmp_path):
    """F09"""
    (tmp_path / "latin.txt").write_bytes("ein schöner Tag".encode("latin-1"))
    state, runner = start(corpus=str(tmp_path / "latin.txt"))
    runner.command("train")
    assert runner.wait(30)
    assert "is not UTF-8: byte 0xf6 at offset 7. Nothing was read" in state.status.message
    assert state.status.phase == "failed"


def test_pause_for_long_changes_nothing(start):
    state, runner = start(settings=QUICK.changed(steps=3000))
    train(runner)
    whole = weights(state.features.sae)
    state, runner = start(settings=QUICK.changed(steps=3000))
    runner.command("train")
    until(lambda: state.status.phase == "training")
    pauses = 0
    while state.status.phase != "ready" and pauses < 3:
        runner.command("pause")
        until(lambda: state.status.phase in ("paused", "ready"))
        if state.status.phase == "paused":
            pauses += 1
            time.sleep(0.1)
            runner.command("resume")
            until(lambda: state.status.phase != "paused")
    assert runner.wait(60)
    assert pauses > 0
    assert len(state.history) == 3000
    assert torch.equal(weights(state.features.sae), whole)


def test_stop_keeps_the_sae_and_continue_goes_on(start):
    state, runner = start(settings=QUICK.changed(steps=100_000))
    runner.command("train")
    until(lambda: state.status.phase == "training" and state.status.step > 20)
    asked = time.monotonic()
    runner.command("stop")
    assert runner.wait(30)
    assert time.monotonic() - asked < 5.0
    stopped = len(state.history)
    assert "Stopped at step" in state.status.message
    assert runner.desk.trainer.step == stopped
    assert torch.equal(weights(state.features.sae), weights(runner.desk.trainer.sae()))
    state.settings = state.settings.changed(steps=stopped + 30)
    runner.command("resume")
    assert runner.wait(60)
    assert runner.desk.trainer.step == stopped + 30


def test_live_settings_reach_the_running_training_and_others_wait(start):
    state, runner = start(settings=QUICK.changed(steps=100_000))
    runner.command("train")
    until(lambda: state.status.phase == "training" and state.status.step > 5)
    state.settings = state.settings.changed(learning_rate=1e-5)
    until(lambda: runner.desk.trainer.config.learning_rate == 1e-5)
    state.settings = state.settings.changed(d_sae=64)
    until(lambda: state.status.trouble)
    assert "d_sae" in state.status.message
    assert runner.desk.trainer.config.d_sae == 48
    state.layer = 1
    until(lambda: "layer" in state.status.message)
    assert runner.desk.layer == 2


@pytest.mark.parametrize("fault", [MemoryError("no memory"), RuntimeError("can't allocate memory: 9 bytes")])
def test_live_settings_that_do_not_fit_into_memory_leave_the_run(start, fault, monkeypatch):
    state, runner = start(settings=QUICK.changed(steps=100_000))
    runner.command("train")
    until(lambda: state.status.phase == "training" and state.status.step > 5)
    made, left = Workspace.resize, iter([True])

    def full(self, batch_size):
        if next(left, False):
            raise fault
        made(self, batch_size)

    monkeypatch.setattr(Workspace, "resize", full)
    before = runner.desk.trainer.batch_size
    state.settings = state.settings.changed(batch_size=2 * before)
    until(lambda: state.status.trouble)
    assert state.status.message.startswith("Out of memory with these settings: nothing is lost")
    step = state.status.step
    until(lambda: state.status.step > step)
    assert runner.desk.trainer.batch_size == before
    state.settings = state.settings.changed(batch_size=2 * before, learning_rate=1e-5)
    until(lambda: runner.desk.trainer.batch_size == 2 * before)


@pytest.mark.parametrize(
    "command", ["pause", "stop", "resume", "reset", "restore", "cancel", "read", "load_anyway", "keep"]
)
def test_a_command_that_makes_no_sense_now_is_answered_in_words(start, command):
    state, runner = start()
    runner.command(command)
    assert runner.wait(30)
    assert state.status.phase == "ready"
    assert state.status.message
    train(runner)
    assert len(state.history) == 60


def test_train_twice_trains_once(start):
    state, runner = start(settings=QUICK.changed(steps=100_000))
    runner.command("train")
    runner.command("train")
    until(lambda: state.status.phase == "training" and state.status.step > 5)
    assert [t.name for t in threading.enumerate()].count("sae_widget-worker") == 1
    runner.command("stop")
    assert runner.wait(30)


def test_a_loss_that_is_no_number_pauses_with_the_last_good_weights(start):
    state, runner = start(settings=QUICK.changed(steps=100_000))
    runner.command("train")
    until(lambda: state.status.phase == "training" and state.status.step > 5)
    values = runner.desk.corpus.values
    sound = values.clone()
    with torch.no_grad():
        values[:] = float("nan")
    until(lambda: state.status.phase == "paused")
    assert state.status.trouble
    assert "Rolled back" in state.status.message
    trainer = runner.desk.trainer
    assert torch.isfinite(weights(trainer.sae())).all()
    with torch.no_grad():
        values.copy_(sound)
    reached = trainer.step
    state.settings = state.settings.changed(learning_rate=1e-4, steps=reached + 25)
    runner.command("resume")
    assert runner.wait(60)
    assert runner.desk.trainer is trainer
    assert (trainer.step, trainer.config.learning_rate) == (reached + 25, 1e-4)
    assert state.status.phase == "ready"
    losses = state.history.series(["loss"], 100_000)["loss"]
    assert len(losses) == reached + 25 + 1
    assert [at for at, loss in enumerate(losses) if loss != loss] == [reached]  # the step that was rolled back
    assert saved_runs()[0].info["settings"]["learning_rate"] == 1e-4


@pytest.mark.parametrize("place", ["read", "read_training_data", "start_training", "show_training", "features"])
def test_any_fault_of_the_worker_is_a_sentence_and_train_works_again(start, place, capfd):
    state, runner = start()
    original = getattr(runner.desk, place)

    def broken(*_args, **_kwargs):
        raise RuntimeError("the disk is on fire")

    said = []
    state.observe(lambda change: said.append(change["new"]), names=["status"])
    setattr(runner.desk, place, broken)
    if place == "read":
        state.text = "something else"
    else:
        runner.command("train")
    assert runner.wait(60)
    assert any("the disk is on fire" in status.message and status.trouble for status in said)
    setattr(runner.desk, place, original)
    train(runner)
    assert state.status.phase == "ready"
    assert len(state.history) == 60
    assert "Traceback" not in capfd.readouterr().out


def test_too_wide_for_the_memory_is_refused_before_anything_is_made(start, monkeypatch):
    state, runner = start(settings=QUICK.changed(d_sae=100_000))
    monkeypatch.setenv("MEM_LIMIT", str(psutil.Process().memory_info().rss + 300 * 10**6))
    runner.command("train")
    assert runner.wait(60)
    assert state.status.trouble
    assert "largest that fits" in state.status.message


def test_two_runners_on_one_model_give_what_each_gives_alone(start):
    alone = {}
    for layer in (1, 2):
        state, runner = start(layer=layer)
        train(runner)
        alone[layer] = weights(state.features.sae)
    both = {layer: start(layer=layer) for layer in (1, 2)}
    for _, runner in both.values():
        runner.command("train")
    for layer, (state, runner) in both.items():
        assert runner.wait(60)
        assert torch.equal(weights(state.features.sae), alone[layer])


def test_each_place_keeps_its_own_sae(start):
    state, runner = start()
    train(runner)
    trained = state.features.sae
    state.layer = 1
    assert runner.wait(30)
    assert state.features is None
    state.layer = 2
    assert runner.wait(30)
    assert state.features.sae is trained


def test_reset_takes_the_sae_away_and_restore_brings_it_back(start):
    state, runner = start()
    train(runner)
    trained = weights(state.features.sae)
    runner.command("reset")
    assert runner.wait(30)
    assert state.features is None
    assert state.history is None
    runner.command("restore")
    assert runner.wait(30)
    assert torch.allclose(weights(state.features.sae), trained, rtol=1e-5, atol=1e-6)


def test_a_new_kernel_is_offered_the_saved_sae(start):
    _, runner = start()
    train(runner)
    runner.close()
    state, _ = start()
    assert "restore" in state.offers


def test_the_card_has_contexts_and_neighbours(start):
    state, runner = start()
    train(runner)
    feature = int(state.features.stats.frequency.argmax())
    state.selected = feature
    assert runner.wait(30)
    card = state.card
    assert card.feature == feature
    assert card.contexts
    assert all(c.acts[c.centre] > 0 for c in card.contexts)
    assert len(card.neighbours) == 5


def test_a_feature_that_stays_selected_has_the_card_of_what_is_trained(start):
    state, runner = start()
    train(runner)
    state.selected = 5
    assert runner.wait(30)
    first = state.card
    train(runner)  # another SAE, and nobody clicks
    card, features = state.card, state.features
    assert (
        (card.feature, card.key, card.version) == (5, features.key, features.version) != (5, first.key, first.version)
    )
    assert card.contexts == top_contexts(features.sae, runner.desk.corpus, 5)


@pytest.mark.parametrize("end", ["pause", "stop"])
def test_the_card_of_a_selected_feature_comes_while_a_training_goes_on(start, end):
    state, runner = start()
    train(runner)
    state.selected = 5
    assert runner.wait(30)
    before, state.settings = state.card.key, ENDLESS
    begin(state, runner)
    until(lambda: state.card.key == state.features.key != before)
    assert state.status.phase == "training"
    version = state.features.version
    until(lambda: state.features.version > version)
    runner.command(end)
    assert runner.wait(30)
    assert (state.card.key, state.card.version) == (state.features.key, state.features.version)


def test_closing_stops_the_threads_and_saves_nothing_half(start):
    state, runner = start(settings=QUICK.changed(steps=100_000))
    runner.command("train")
    until(lambda: state.status.phase == "training")
    runner.close()
    assert not runner._thread.is_alive()
    assert state.status.phase == "closed"


def test_a_model_that_does_not_exist_keeps_the_one_that_is_there(start, tmp_path):
    state, runner = start()
    before = state.language_model
    state.model = str(tmp_path / "nothing-here")
    assert runner.wait(60)
    assert state.language_model is before
    assert state.status.trouble
    assert f"Showing {before.label}" in state.status.message


def test_a_download_is_shown_as_it_comes_and_can_be_cancelled(start, monkeypatch):
    """F46"""
    state, runner = start()
    before, more = state.language_model, threading.Event()

    def slow(name, *, progress, cancel):
        progress(100_000_000, 548_000_000)
        more.wait(20)
        progress(300_000_000, 548_000_000)
        cancel.wait(20)
        raise ModelLoadError(f"Loading {name} was cancelled.")

    monkeypatch.setattr("sae_widget.runner.loading.load_model", slow)
    state.model = "gpt2"
    until(lambda: state.status.message == "Loading gpt2: 100 MB of 548")
    assert state.status.phase == "loading"
    assert "cancel" in state.offers
    more.set()
    until(lambda: state.status.message == "Loading gpt2: 300 MB of 548")
    runner.command("cancel")
    assert runner.wait(30)
    assert state.status.message == f"Loading gpt2 was cancelled. Showing {before.label}."
    assert state.language_model is before


def test_the_original_tutorial_trains_on_the_text_alone(start):
    state, runner = start(
        settings=TrainConfig.original_tutorial(), corpus="text", hook_name="final_norm", prepend_bos=False
    )
    train(runner)
    assert len(state.history) == 500
    assert state.features.sae.W_enc.shape == (32, 16)
    assert runner.desk.corpus.n_tokens == len(TEXT)
    assert state.features.prompt.counted.all()


def test_a_running_training_is_saved_now_and_then(start, monkeypatch):
    monkeypatch.setattr(job, "FIRST_SAVE", 0.1)
    monkeypatch.setattr(job, "SAVE_EVERY", 0.2)
    state, runner = start(settings=QUICK.changed(steps=100_000))
    runner.command("train")
    until(lambda: len(saved_runs()) == 1)
    assert saved_runs()[0].info["layer"] == 2
    assert state.status.phase == "training"
    runner.command("stop")
    assert runner.wait(30)
    assert len(saved_runs()) == 1


def test_a_full_disk_is_a_sentence_and_the_training_goes_on(start, monkeypatch):
    def full(*_args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(job, "autosave", full)
    state, runner = start()
    said = []
    state.observe(lambda change: said.append(change["new"].message), names=["status"])
    train(runner)
    assert len(state.history) == 60
    assert state.features is not None
    assert any("No space left" in message and "stays in memory" in message for message in said)


def test_out_of_memory_halves_the_batch_once(start, monkeypatch):
    original, failures = Trainer.run, ["first"]

    def run(trainer):
        if failures:
            failures.pop()
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
        yield from original(trainer)

    monkeypatch.setattr(Trainer, "run", run)
    state, runner = start(settings=QUICK.changed(steps=2000))
    said = []
    state.observe(lambda change: said.append(change["new"].message), names=["status"])
    train(runner)
    assert len(state.history) == 2000
    assert runner.desk.trainer.batch_size == 32
    assert any("half the batch, 32 tokens" in message for message in said)
    failures += ["once", "twice"]
    train(runner)
    assert state.status.phase == "failed"
    assert "can't allocate memory" in state.status.message


def test_when_a_training_has_ended_the_predictions_with_the_sae_are_looked_at(start):
    state, runner = start()
    assert state.fidelity is None
    train(runner)
    assert runner.wait(30)
    found = state.fidelity
    assert found.n_tokens >= 100 and found.ce_clean > 0 and found.kl >= 0
    state.text = "another text, the same SAE"
    assert runner.wait(30)
    assert state.fidelity is found
    runner.command("reset")
    assert runner.wait(30)
    assert state.fidelity is None
