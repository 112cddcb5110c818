"""A training as pieces of work: what Stop, Pause and a fault find, also while the corpus is still read (F16, F21)."""

import threading
import time
from types import SimpleNamespace

import pytest

from sae_widget.autosave import saved_runs
from sae_widget.runner.job import _goal
from tests.running import ENDLESS, QUICK, begin, train, until, weights


@pytest.fixture
def held(monkeypatch):
    """A function that makes the reading of a runner's corpus wait; and the event that lets it go on."""
    go = threading.Event()

    def hold(runner):
        read = runner.desk.read_training_data

        def slowly(*arguments):
            while not go.is_set():
                yield 100
            yield from read(*arguments)

        monkeypatch.setattr(runner.desk, "read_training_data", slowly)

    yield hold, go
    go.set()


def on_disk():
    """Every saved file with its bytes."""
    return {path: path.read_bytes() for run in saved_runs() for path in sorted(run.path.rglob("*")) if path.is_file()}


def test_stop_while_the_corpus_is_read_touches_no_other_run(start, held):
    hold, go = held
    state, runner = start()
    train(runner)
    shown, history, saved = state.features, state.history, on_disk()
    hold(runner)
    state.settings = QUICK.changed(d_sae=30)
    runner.command("train")
    until(lambda: state.status.message.startswith("Reading the corpus: 100"))
    runner.command("stop")
    assert runner.wait(30)
    assert state.status.phase == "ready"
    assert state.status.message == ("Stopped before the first step. What was shown before is kept; Train begins anew.")
    assert state.features is shown
    assert state.history is history
    assert on_disk() == saved
    go.set()
    state.settings = QUICK
    runner.command("resume")  # the run before it goes on, under its own name
    assert runner.wait(60)
    assert runner.desk.trainer.step == len(state.history) == 120
    assert len(saved_runs()) == 1
    train(runner)
    assert len(saved_runs()) == 2


def test_stop_before_the_text_is_read_means_that_nothing_begins(start):
    state, runner = start()
    state.text = "a text that rests a moment before it is read"
    runner.command("train")
    runner.command("stop")
    assert runner.wait(30)
    assert state.features is None
    assert state.history is None
    assert state.activations.texts == (state.text,)
    train(runner)
    assert len(state.history) == 60


@pytest.mark.parametrize("place", ["read_training_data", "start_training"])
def test_a_fault_before_the_first_step_touches_no_other_run(start, place, monkeypatch):
    state, runner = start()
    train(runner)
    shown, saved = weights(state.features.sae), on_disk()

    def refuse(*_arguments):
        raise ValueError("width 48 needs too much")

    monkeypatch.setattr(runner.desk, place, refuse)
    state.settings = state.settings.changed(d_sae=30)
    runner.command("train")
    assert runner.wait(30)
    assert state.status.phase == "failed"
    assert state.features.sae.d_sae == 48
    assert weights(state.features.sae).equal(shown)
    assert on_disk() == saved


def test_a_training_that_fails_leaves_what_was_offered_before_it(start, monkeypatch):
    _, runner = start()
    train(runner)
    runner.close()
    state, runner = start()
    assert state.offers == ("restore",)
    monkeypatch.setattr(runner.desk, "start_training", lambda *_: 1 / 0)
    runner.command("train")
    assert runner.wait(30)
    assert (state.status.phase, state.offers) == ("failed", ("restore",))


def test_a_pause_while_the_corpus_is_read_waits_and_settings_still_change(start, held):
    hold, go = held
    state, runner = start()
    train(runner)
    hold(runner)
    runner.command("train")
    until(lambda: state.status.phase == "reading")
    runner.command("pause")
    until(lambda: state.status.phase == "paused")
    assert state.status.message.startswith("Paused before the first step.")
    state.settings = state.settings.changed(d_sae=30, steps=40)
    assert runner.wait(30)
    assert not state.status.trouble
    go.set()
    runner.command("resume")
    assert runner.wait(60)
    assert state.features.sae.d_sae == 30
    assert len(state.history) == 40


def test_a_place_that_is_changed_while_the_corpus_is_read_is_told_to_wait(start, held):
    hold, _ = held
    state, runner = start()
    hold(runner)
    runner.command("train")
    until(lambda: state.status.message.startswith("Reading the corpus: 100"))
    state.layer = 1
    until(lambda: state.status.trouble)
    time.sleep(0.4)  # long enough to be read, whatever the reading says meanwhile
    assert "text or layer changes when the training has stopped: stop it first." in state.status.message
    assert state.status.phase == "reading"
    runner.command("stop")
    assert runner.wait(30)
    assert runner.desk.layer == state.activations.layer == 1


def test_stop_and_pause_name_the_step_that_was_reached(start):
    state, runner = start(settings=ENDLESS)
    begin(state, runner)
    runner.command("pause")
    until(lambda: state.status.phase == "paused")
    reached = runner.desk.trainer.step
    assert state.status.message.startswith(f"Paused at step {reached:,}.")
    assert state.status.step == reached == len(state.history)
    runner.command("resume")
    until(lambda: state.status.step > reached)
    runner.command("stop")
    assert runner.wait(30)
    reached = runner.desk.trainer.step
    assert state.status.message.startswith(f"Stopped at step {reached:,}.")
    assert state.status.step == reached == len(state.history)


def test_what_was_changed_during_a_training_is_acted_on_after_it(start, tiny_gpt2_dir):
    """F16: never a form that says one place while another is trained on."""
    state, runner = start(settings=ENDLESS)
    begin(state, runner)
    state.layer, state.text = 1, "a new text"
    until(lambda: "stop it first" in state.status.message)
    assert (runner.desk.layer, state.activations.layer) == (2, 2)
    runner.command("stop")
    assert runner.wait(30)
    assert runner.desk.layer == state.activations.layer == 1
    assert state.activations.texts == ("a new text",)
    assert state.features is None  # nothing was trained there yet
    begin(state, runner)
    state.model = f"{tiny_gpt2_dir}/."
    until(lambda: "The model changes when" in state.status.message)
    runner.command("stop")
    assert runner.wait(60)
    assert state.language_model.name == f"{tiny_gpt2_dir}/."
    assert state.status.phase == "ready"


@pytest.mark.parametrize(
    ("step", "planned", "steps", "goal"),
    [
        (60, 60, 60, 120),  # as many again
        (30, 60, 60, 60),  # what was stopped goes on to its end
        (30, 60, 90, 90),  # which may have been moved
        (100, 120, 60, 120),  # stopped the second time round
    ],
)
def test_where_a_training_that_goes_on_ends(step, planned, steps, goal):
    trainer = SimpleNamespace(step=step, config=SimpleNamespace(steps=planned))
    assert _goal(trainer, steps) == goal


def test_statistics_are_of_the_corpus_that_was_trained_on(start):
    state, runner = start()
    train(runner)
    n_tokens = state.features.stats.n_tokens
    list(runner.desk.read_training_data("text", 1500, "another corpus, and a short one"))
    runner.command("resume")
    assert runner.wait(60)
    assert state.features.stats.n_tokens == n_tokens


@pytest.mark.parametrize("selected", ["before", "after"])
def test_a_card_does_not_look_for_examples_while_the_reading_pauses(start, held, selected):
    hold, go = held
    state, runner = start(model="bundled", corpus_tokens=600)
    hold(runner)
    runner.command("train")
    until(lambda: state.status.phase == "reading")
    if selected == "before":
        state.selected = 3
    runner.command("pause")
    until(lambda: state.status.phase == "paused")
    state.selected = 3
    assert runner.wait(30)
    assert (state.card.feature, state.card.key, state.card.contexts) == (3, state.features.key, None)
    assert state.faults == {"card": "Its examples are looked for when the training goes on or ends."}
    go.set()
    runner.command("resume")
    assert runner.wait(60)
    assert state.card.key == state.features.key == runner.desk.run
    assert state.card.contexts is not None and state.faults == {}
