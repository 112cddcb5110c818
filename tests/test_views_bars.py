"""The activation bars: heights, order, pages, selection, dead features."""

from __future__ import annotations

import numpy as np
import pytest

from sae_widget.views.bars import BARS, NO_FEATURES, ActivationBars, dense_words
from sae_widget.views.selection import selection_for
from tests.hand_made import features


@pytest.fixture
def bars(state_with_features):
    made = ActivationBars(state_with_features)
    yield made
    made.close()


def test_heights_and_ids_of_each_measure(bars, state):
    assert bars.bridge.ids[:3] == [7, 3, 0] and len(bars.bridge.ids) == BARS
    np.testing.assert_array_equal(bars.bars.x, bars.bridge.ids)
    np.testing.assert_array_equal(bars.bars.y[:3], [2.0, 0.5, 0.0])
    state.measure = "max"
    np.testing.assert_array_equal(bars.bars.y[:3], [4.0, 1.5, 0.0])
    state.measure, state.token = "token", 3
    assert bars.bridge.ids[:2] == [3, 0]
    np.testing.assert_array_equal(bars.bars.y[:2], [1.5, 0.0])
    assert bars.bars.y.dtype == np.float32


def test_without_a_chosen_token_the_words_say_what_is_drawn(bars, state):
    state.measure = "token"
    assert bars.bridge.measure == "mean (no token selected)"
    state.token = 2
    assert bars.bridge.measure == "activation on the selected token"


def test_pages_end_where_the_features_end(bars, state):
    state.sort = "number"
    assert bars.where.value == "1–64 of 150, by number" and bars.back.disabled
    bars.forth.click()
    bars.forth.click()
    assert state.bar_page == 2 and bars.bridge.ids == list(range(128, 150)) and bars.forth.disabled
    assert bars.where.value == "129–150 of 150, by number"
    state.bar_page = 99
    assert bars.bridge.ids == list(range(128, 150))
    bars.back.click()
    assert state.bar_page == 1


def test_the_keyboard_turns_pages(bars, state):
    bars.bridge.set_state({"turned": 1})
    assert state.bar_page == 1
    bars.bridge.set_state({"turned": 2})
    bars.bridge.set_state({"turned": 1})
    assert state.bar_page == 1


def test_the_selected_bar_is_marked_and_found_again(bars, state):
    state.sort, state.selected = "number", 5
    assert list(bars.bars.selected) == [5] and bars.go_there.layout.display == "none"
    state.selected = 130
    assert bars.bars.selected is None and bars.go_there.layout.display == ""
    assert bars.go_there.description == "Feature 130 is on page 3: go there"
    bars.go_there.click()
    assert state.bar_page == 2 and list(bars.bars.selected) == [2]
    state.selected = None
    assert bars.bars.selected is None and bars.go_there.layout.display == "none"


@pytest.fixture
def with_dense(state):
    """Feature 7, the strongest, and features 128 and 129 fire on a third of all tokens."""
    made = features(version=2)
    made.stats.frequency[[7, 128, 129]] = 0.3
    state.features = made
    return made


def test_dense_features_are_hidden_and_counted(bars, state, with_dense):
    assert bars.bridge.ids[:2] == [3, 0] and bars.where.value == "1–64 of 147, strongest first"
    assert bars.dense_words.value == "3 hidden: fire on more than 10% of all tokens"
    state.bar_page = 99
    assert len(bars.bridge.ids) == 147 - 2 * BARS and bars.forth.disabled
    state.bar_page = 0
    bars.hide_dense.value = False
    assert not state.hide_dense and bars.bridge.ids[:3] == [7, 3, 128]
    assert bars.dense_words.value == "3 fire on more than 10% of all tokens"
    assert bars.where.value == "1–64 of 150, strongest first"


def test_a_hidden_feature_that_is_selected_can_be_shown(bars, state, with_dense):
    state.sort, state.selected = "number", 129
    assert bars.bars.selected is None and bars.go_there.layout.display == ""
    assert bars.go_there.description == "Feature 129 is hidden: show it"
    bars.go_there.click()
    assert not state.hide_dense and state.bar_page == 2 and list(bars.bars.selected) == [1]
    assert bars.go_there.layout.display == "none"


def test_why_nothing_is_hidden(bars, state):
    assert bars.dense_words.value == "None fires on more than 10% of all tokens" and bars.hide_dense.disabled
    few = features(d_sae=16)
    few.stats.frequency[:9] = 0.5
    assert dense_words(few, True) == dense_words(features(stats=False), True) == dense_words(None, True) == ""
    many = features()
    many.stats.frequency[:100] = 0.5
    assert dense_words(many, True) == "All are shown: 100 of 150 fire on more than 10% of all tokens"
    one = features()
    one.stats.frequency[4] = 0.5
    assert dense_words(one, True) == "1 hidden: fires on more than 10% of all tokens"
    state.features = few
    assert bars.dense_row.layout.display == "none" and len(bars.bridge.ids) == 16


def test_dead_features_are_told_from_quiet_ones(bars, state):
    assert bars.bridge.dead == []
    state.sort, state.bar_page = "number", 2
    assert bars.bridge.dead == list(range(140, 150))


def test_names_of_the_page_go_along(bars, state):
    state.feature_names = {7: "<b>seven</b>", 149: "elsewhere"}
    assert bars.bridge.names == {"7": "<b>seven</b>"}


def test_no_features_is_a_sentence(bars, state):
    state.features = None
    assert bars.bridge.empty == NO_FEATURES and bars.bridge.ids == [] and len(bars.bars.y) == 0
    state.features = features(version=2)
    assert bars.bridge.empty == "" and len(bars.bars.y) == BARS


def test_numbers_that_are_none_are_drawn_as_zero(bars, state):
    broken = features(version=2)
    broken.prompt.mean[[7, 3]] = [np.nan, np.inf]
    state.features = broken
    assert np.isfinite(bars.bars.y).all()


def test_hostile_messages_change_nothing(bars, state):
    for message in ({"ids": [1]}, {"turned": "x"}, {"turned": True}, {"measure": 3}, {"nonsense": 1}):
        bars.bridge.set_state(message)
    selection_for(state).set_state({"selected": 10**9})
    assert state.bar_page == 0 and state.selected is None and bars.bridge.ids[:2] == [7, 3]


def test_the_toggle_sets_the_measure(bars, state):
    bars.measure_toggle.value = "max"
    assert state.measure == "max"


def test_order_is_computed_once_for_many_selections(bars, state, monkeypatch):
    import sae_widget.features as module

    monkeypatch.setattr(module, "order_features", lambda *_, **__: pytest.fail("ordered again"))
    for feature in range(20):
        state.selected = feature
    assert bars.head.fault == ""
