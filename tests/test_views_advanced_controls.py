"""The fold: closed at first, opened by its button and by a refused entry, with a kind's own settings in it."""

from __future__ import annotations

import pytest

from sae_widget.config import FIXED_SETTINGS, TrainConfig
from sae_widget.sae import REGISTRY
from sae_widget.state import Status
from sae_widget.views.fields import STOP_FIRST

OWN = {"matryoshka_batchtopk": {"matryoshka_levels"}, "jumprelu": {"bandwidth"}, "standard": {"start_firing"}}


@pytest.fixture
def state(ready_state):
    return ready_state


@pytest.fixture
def fold(form):
    return form.training.advanced


def seen(widget):
    return widget.layout.display != "none"


def test_it_opens_and_closes(fold):
    assert not seen(fold.body) and fold.button.description == "Advanced settings"
    fold.button.click()
    assert seen(fold.body) and fold.button.description == "Hide advanced settings"
    fold.button.click()
    assert not seen(fold.body)


@pytest.mark.parametrize("name", REGISTRY)
def test_a_kinds_own_settings_are_there_with_it_alone(fold, state, name):
    state.settings = TrainConfig(architecture=name)
    shown = {setting for setting, entry in fold.entries.items() if seen(entry.box)}
    common = {"resample_every", "validation_share", "max_norm_multiple"}
    assert shown == common | OWN.get(name, set())
    for entry in fold.entries.values():
        assert seen(entry.below) == seen(entry.box)


@pytest.mark.parametrize(
    ("name", "typed", "value", "hint"),
    [
        ("matryoshka_levels", "3", 3, "nested sets, each half of the next"),
        ("bandwidth", "0.5", 0.5, "wider learns more steadily"),
        ("start_firing", "0.005", 0.005, "each fires on 0.5% of the tokens at first"),
        ("start_firing", "0", 0.0, "0: about half of the tokens"),
        ("resample_every", "1,500", 1500, "1,500 steps, dead features start again"),
        ("validation_share", "0.1", 0.1, "10% of the text, only to measure on"),
        ("max_norm_multiple", "0", 0.0, "0: no token is left out"),
    ],
)
def test_an_entry_sets_the_state_and_says_what_it_means(fold, state, name, typed, value, hint):
    owner = next((kind for kind, names in OWN.items() if name in names), "topk")
    state.settings = TrainConfig(architecture=owner)
    fold.entries[name].box.value = typed
    assert getattr(state.settings, name) == value and state.refused == {}
    assert fold.entries[name].below.value == hint


@pytest.mark.parametrize("typed", ["0.51", "-0.1", "nan"])
def test_a_share_that_cannot_be_is_refused(fold, state, typed):
    state.settings = TrainConfig(architecture="standard")
    fold.entries["start_firing"].box.value = typed
    assert state.settings.start_firing == 0.03
    said = f"Start share must be between 0 and 0.5, got {typed}. Kept 0.03."
    assert state.refused == {"start_firing": said} and fold.entries["start_firing"].below.value == f"⚠ {said}"


@pytest.mark.parametrize("settings", [{"l1_coefficient": 0.0}, {"tied_init": False}])
def test_a_share_that_has_no_effect_says_so(fold, state, settings):
    state.settings = TrainConfig(architecture="standard", **settings)
    assert fold.entries["start_firing"].below.value == "not used: this recipe starts without it"


@pytest.mark.parametrize(("name", "value"), [("lr_schedule", "constant"), ("precision", "bfloat16")])
def test_a_list_sets_the_state_and_follows_it(fold, state, name, value):
    fold.lists[name].value = value
    assert getattr(state.settings, name) == value
    state.settings = TrainConfig()
    assert fold.lists[name].value == getattr(TrainConfig(), name)


def test_a_refused_entry_is_never_hidden(fold, state):
    fold.entries["validation_share"].box.value = "0.7"
    said = "Held out must be between 0 and 0.5, got 0.7. Kept 0."
    assert state.refused == {"validation_share": said} and seen(fold.body)
    fold.button.click()  # closing it is forgetting it
    assert state.refused == {} and not seen(fold.body)


def test_what_a_run_cannot_change_is_locked_while_it_trains(fold, state):
    state.status = Status("training", "", 1, 10)
    boxes = {name: entry.box for name, entry in fold.entries.items()} | fold.lists
    for name, box in boxes.items():
        assert box.disabled == (name in FIXED_SETTINGS) == (box.tooltip == STOP_FIRST)
    assert not fold.button.disabled
