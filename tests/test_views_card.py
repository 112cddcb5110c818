"""The feature card: what is told of a feature, and the name that a person gives it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sae_widget.features import Context, FeatureCardData
from sae_widget.views.card import (
    MAX_NAME_CHARS,
    NOTHING_SELECTED,
    FeatureCard,
    card_data,
    clean_name,
    percent,
    strongest_tokens,
)
from tests.hand_made import card, features


@pytest.fixture
def view(state_with_features):
    made = FeatureCard(state_with_features)
    yield made
    made.close()


def test_nothing_selected_is_a_sentence(view, state):
    assert view.body.data == {"empty": NOTHING_SELECTED}
    state.selected = 7
    assert view.body.data["feature"] == 7
    state.selected = 10**6
    assert view.body.data == {"empty": NOTHING_SELECTED}
    state.features, state.selected = None, 7
    assert view.body.data == {"empty": NOTHING_SELECTED}


def test_numbers_of_a_feature(view, state):
    state.selected = 7
    assert [fact[:2] for fact in view.body.data["facts"]] == [
        ["fires on 0.4% of 30,000 tokens", ""],
        ["max", "8"],
        ["max here", "4"],
        ["decoder norm", "0.7"],
    ]
    state.selected = 149
    assert view.body.data["facts"][0][0] == "never fired of 30,000 tokens"


def test_strongest_tokens_first():
    assert strongest_tokens(features(), 7) == [[2, "·<b>", 4.0], [1, "·a", 2.0]]
    assert strongest_tokens(features(), 0) == []
    assert strongest_tokens(features(prompt=False), 7) == []


def test_contexts_and_neighbours_come_with_the_card(view, state):
    state.selected, state.feature_names = 7, {3: "three"}
    assert view.body.data["waiting"] and view.body.data["contexts"] == []
    state.card = card(feature=7)
    data = view.body.data
    assert data["waiting"] == ""
    assert data["neighbours"] == [[3, 0.5, "three"], [149, -0.25, ""]]
    (context,) = data["contexts"]
    assert context["labels"] == [f"t{i}" for i in range(12, 29)]
    assert context["labels"][context["centre"]] == "t20" and context["acts"][context["centre"]] == 8.0


def test_examples_of_the_same_sae_some_steps_ago_stay_and_say_so(view, state):
    state.selected = 7
    state.card = card(feature=7, version=0)
    assert len(view.body.data["contexts"]) == 1 and "trained on since" in view.body.data["older"]
    state.card = card(feature=7)
    assert view.body.data["older"] == ""


@pytest.mark.parametrize("late", [card(feature=3), replace(card(feature=7), key="another SAE")])
def test_a_card_of_another_feature_or_another_sae_is_not_shown(view, state, late):
    state.selected = 7
    state.card = late
    assert view.body.data["contexts"] == [] and view.body.data["waiting"]


def test_a_feature_that_fires_nowhere_says_so(view, state):
    state.selected = 149
    state.card = FeatureCardData(149, (), (), 1)
    assert view.body.data["nothing"] and not view.body.data["waiting"]


def test_a_name_is_given_changed_and_taken_away(view, state):
    state.feature_names = {3: "three"}
    view.body.set_state({"named": {"feature": 7, "name": "  <b>the\ntimes</b> ", "n": 1}})
    assert state.feature_names == {3: "three", 7: "<b>the times</b>"}
    view.body.set_state({"named": {"feature": 7, "name": " ", "n": 2}})
    assert state.feature_names == {3: "three"}


@pytest.mark.parametrize(
    "named",
    [
        {},
        {"feature": 7},
        {"feature": 10**6, "name": "x"},
        {"feature": -1, "name": "x"},
        {"feature": True, "name": "x"},
        {"feature": "7", "name": "x"},
        {"feature": 7, "name": ["x"]},
    ],
)
def test_a_hostile_name_is_refused_in_words(view, state, named):
    view.body.set_state({"named": {**named, "n": 1}})
    assert state.feature_names == {}
    assert view.head.fault.startswith("That did not work")
    view.body.set_state({"named": {"feature": 7, "name": "good", "n": 2}})
    assert state.feature_names == {7: "good"} and view.head.fault == ""


def test_names_are_one_line_short_and_can_be_sent():
    assert clean_name("a\x00b\u202ec") == "a b c"
    assert clean_name("\ud83d") == "\ufffd"
    assert len(clean_name("x" * 500)) == MAX_NAME_CHARS


def test_labels_that_cannot_be_sent_are_mended(state_with_features):
    state = state_with_features
    state.selected = 7
    state.card = FeatureCardData(7, (Context(("a", "\ud83d"), (0.0, float("nan")), 1),), (), 1)
    data = card_data(state)
    assert data["contexts"][0]["labels"] == ["a", "\ufffd"] and data["contexts"][0]["acts"] == [0.0, 0.0]


@pytest.mark.parametrize(
    ("share", "words"),
    [(0.0, "0%"), (0.00001, "< 0.01%"), (0.004, "0.4%"), (0.0123, "1.2%"), (0.5, "50%"), (1.0, "100%")],
)
def test_percent(share, words):
    assert percent(np.float32(share)) == words


def test_the_pages_code_sets_text_only(view):
    assert "innerHTML" not in view.body._esm and "insertAdjacentHTML" not in view.body._esm
