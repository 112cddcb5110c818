"""Width, kind and sparsity: each kind shows its own setting, by number or by penalty, in words that fit."""

from __future__ import annotations

import pytest

from sae_widget.config import ARCHITECTURES, TrainConfig
from sae_widget.sae import REGISTRY
from sae_widget.state import Status
from sae_widget.views.kind_controls import HARD_PENALTY, KINDS

PENALTIES = {"standard": "l1_coefficient", "gated": "l1_coefficient", "jumprelu": "l0_coefficient"}
MODES = [(name, aims) for name in REGISTRY for aims in ((False, True) if name in PENALTIES else (False,))]


@pytest.fixture
def state(ready_state):
    return ready_state


def shown(form):
    """Names of the sparsity's widgets that can be seen."""
    kind = form.training.kind
    widgets = {
        "mode": kind.mode, "k": kind.k.box, "target_l0": kind.target.box,
        "l1_coefficient": kind.l1.row, "l0_coefficient": kind.l0.row,
    }  # fmt: skip
    return {name for name, widget in widgets.items() if widget.layout.display != "none"}


@pytest.mark.parametrize(("name", "aims"), MODES)
def test_each_kind_shows_only_its_own_sparsity(form, state, name, aims):
    state.settings = TrainConfig(architecture=name, target_l0=12.0 if aims else 0.0)
    kind = form.training.kind
    wanted = {"k"} if name not in PENALTIES else {"mode", "target_l0" if aims else PENALTIES[name]}
    assert shown(form) == wanted
    assert kind.architecture.value == name and kind.about.value == REGISTRY[name].about
    hints = {"k": kind.k, "target_l0": kind.target, "l1_coefficient": kind.l1.entry, "l0_coefficient": kind.l0.entry}
    for setting, entry in hints.items():
        assert setting in wanted or entry.below.layout.display == "none"


@pytest.mark.parametrize(("name", "aims"), MODES)
def test_the_form_sets_what_the_trainer_reads(form, state, name, aims):
    kind = form.training.kind
    kind.architecture.value = name
    if name not in PENALTIES:
        kind.k.box.value = "24"
        assert (state.settings.k, state.settings.target_l0) == (24, 0.0)
        return
    kind.mode.value = aims
    if aims:
        kind.target.box.value = "12.5"
        assert state.settings.target_l0 == 12.5
    else:
        slider = kind.l1 if name != "jumprelu" else kind.l0
        slider.slider.value = 0.5
        assert getattr(state.settings, PENALTIES[name]) == 0.5 and state.settings.target_l0 == 0.0
    assert state.settings.architecture == name and form.head.fault == ""


@pytest.mark.parametrize("name", REGISTRY)
def test_words_and_sentence_fit_and_are_there(name):
    kind = REGISTRY[name]
    assert 5 < len(kind.words) <= 26  # what a list of the form shows on a page of 900 pixels
    assert 40 < len(kind.about) <= 95 and kind.about.endswith(".") and kind.about.count(".") == 1
    assert dict(KINDS)[kind.words] == name and len(KINDS) == len(ARCHITECTURES)


def test_a_hard_penalty_begins_with_a_number_and_the_way_back_restores(form, state):
    assert HARD_PENALTY == ("jumprelu",)
    kind = form.training.kind
    before = state.settings
    kind.architecture.value = "jumprelu"
    assert state.settings == before.changed(architecture="jumprelu", target_l0=16.0)
    kind.target.box.value = "20"
    kind.architecture.value = "topk"
    assert state.settings == before
    kind.architecture.value = "jumprelu"
    assert state.settings.target_l0 == 20.0
    kind.mode.value = False
    kind.architecture.value = "standard"
    assert state.settings == before.changed(architecture="standard")
    kind.architecture.value = "jumprelu"
    assert state.settings.target_l0 == 0.0  # as it was left, though its penalty is hard to set


def test_the_number_is_no_more_than_there_are_features(form, state):
    state.settings = TrainConfig(architecture="standard", d_sae=8, k=16)
    form.training.kind.architecture.value = "jumprelu"
    assert state.settings.target_l0 == 8.0


def test_number_and_penalty_take_turns_and_both_are_kept(form, state):
    state.settings = TrainConfig(architecture="gated", l1_coefficient=3.0)
    kind = form.training.kind
    kind.mode.value = True
    assert state.settings.target_l0 == 16.0
    kind.target.box.value = "30"
    kind.mode.value = False
    assert (state.settings.target_l0, state.settings.l1_coefficient) == (0.0, 3.0)
    kind.mode.value = True
    assert state.settings.target_l0 == 30.0


def test_a_target_from_code_is_the_k_of_a_kind_that_has_one(form, state):
    state.settings = TrainConfig(target_l0=31.6)
    kind = form.training.kind
    assert kind.k.box.value == "32" and shown(form) == {"k"}
    kind.k.box.value = "8"
    assert (state.settings.k, state.settings.target_l0) == (8, 0.0)


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("0", "Per token (L0) must be above 0; choose Penalty to set none. Kept 16."),
        ("2000", "Per token (L0) must be between 0 and 1024, got 2000. Kept 16."),
        ("-1", "Per token (L0) must be between 0 and 1024, got -1. Kept 16."),
        ("nan", "Per token (L0) must be between 0 and 1024, got nan. Kept 16."),
        ("few", "Per token (L0) must be a number, got 'few'. Kept 16."),
    ],
)
def test_a_bad_number_is_refused_and_forgotten_with_its_field(form, state, typed, said):
    kind = form.training.kind
    kind.architecture.value = "jumprelu"
    kind.target.box.value = typed
    assert state.settings.target_l0 == 16.0 and state.refused == {"target_l0": said}
    assert kind.target.below.value == f"⚠ {said}"
    kind.mode.value = False
    assert state.refused == {}


def test_a_width_below_the_number_is_refused_in_the_forms_words(form, state):
    form.training.kind.architecture.value = "jumprelu"
    form.training.kind.d_sae.box.value = "10"
    assert state.refused == {"d_sae": "Per token (L0) must be between 0 and 10, got 16. Kept 1,024."}


@pytest.mark.parametrize("name", PENALTIES)
def test_sparsity_can_change_while_it_trains_and_the_kind_cannot(form, state, name):
    state.settings = TrainConfig(architecture=name)
    state.status = Status("training", "", 1, 10)
    kind = form.training.kind
    assert kind.architecture.disabled and kind.d_sae.box.disabled
    for live in (kind.mode, kind.target.box, kind.l1.slider, kind.l0.slider, kind.k.box):
        assert not live.disabled
