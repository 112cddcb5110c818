"""Train, Pause, Stop, Reset and the progress: what can be pressed when, and what it asks for."""

from __future__ import annotations

import pytest

from sae_widget.config import TrainConfig
from sae_widget.state import PHASES, ExplorerState, Status
from sae_widget.views.train_controls import PROGRESS_STEPS, epoch_words, training_tokens
from tests.hand_made import activations, features, history

CAN_PRESS = {
    "ready": {"train", "pause", "reset"},
    "failed": {"train", "reset"},
    "reading": {"stop"},
    "training": {"pause", "stop"},
    "paused": {"pause", "stop", "reset"},
}


@pytest.fixture
def state(ready_state):
    ready_state.features = features()
    return ready_state


@pytest.fixture
def lower(form):
    return form.training


@pytest.mark.parametrize("phase", PHASES)
def test_what_can_be_pressed(lower, state, phase):
    state.history = history(3)
    state.status = Status(phase, phase)
    pressable = {name for name in ("train", "pause", "stop", "reset") if not getattr(lower, name).disabled}
    assert pressable == CAN_PRESS.get(phase, set())


def test_without_an_sae_there_is_nothing_to_go_on_with(lower, state):
    state.features = None
    state.status = Status("ready", "Ready")
    assert lower.pause.disabled and lower.pause.description == "Pause"


def test_nothing_trained_is_nothing_to_reset(lower, state):
    state.history = None
    state.status = Status("ready", "Ready")
    assert lower.reset.disabled and not lower.train.disabled


@pytest.mark.parametrize(
    ("phase", "words", "asked"),
    [("training", "Pause", "pause"), ("paused", "Resume", "resume"), ("ready", "Continue", "resume")],
)
def test_one_button_holds_and_goes_on(lower, state, phase, words, asked):
    state.status = Status(phase, phase)
    assert lower.pause.description == words
    lower.pause.click()
    assert state.command["do"] == asked


@pytest.mark.parametrize("name", ["train", "stop", "reset"])
def test_a_button_asks_for_what_it_says(lower, state, name):
    before = state.command.get("n", 0)
    getattr(lower, name).click()
    assert state.command == {"do": name, "n": before + 1}


def test_the_progress_is_shown_while_there_is_some(lower, state):
    state.status = Status("training", "Training", 30, 120)
    assert lower.progress.value == PROGRESS_STEPS // 4 and lower.progress.layout.visibility == "visible"
    assert lower.progress_words.value.startswith("step 30 of 120")
    state.status = Status("ready", "Ready", 120, 120)
    assert (lower.progress.layout.visibility, lower.progress_words.layout.display) == ("hidden", "none")


def test_what_is_fixed_is_locked_while_it_trains_and_what_is_live_is_not(lower, state):
    for phase, locked in (("training", True), ("paused", True), ("ready", False)):
        state.status = Status(phase, phase)
        assert {lower.batch.box.disabled, lower.seed.box.disabled, lower.kind.d_sae.box.disabled} == {locked}
        assert not lower.steps.box.disabled


@pytest.mark.parametrize(
    ("changes", "n_tokens", "words"),
    [
        ({"batch_size": 0, "steps": 1500}, None, "= 1,500 epochs: every step sees all tokens"),
        ({"batch_size": 1024, "steps": 2000}, 30_000, "≈ 68 epochs of 30,000 tokens"),
        ({"batch_size": 100, "steps": 10}, 1000, "≈ 1 epoch of 1,000 tokens"),
        ({"batch_size": 100, "steps": 25}, 10_000, "≈ 0.25 epochs of 10,000 tokens"),
        ({"batch_size": 100, "steps": 25}, None, ""),
    ],
)
def test_steps_as_epochs(changes, n_tokens, words):
    assert epoch_words(TrainConfig(**changes), n_tokens) == words


def test_the_tokens_that_are_trained_on():
    state = ExplorerState(corpus="documentation", corpus_tokens=5000)
    assert training_tokens(state) == 5000
    state.corpus = "text"
    assert training_tokens(state) is None
    state.activations = activations()
    assert training_tokens(state) == state.activations.n_tokens
