"""The health row: numbers, words and what they are made from."""

from __future__ import annotations

import math

import pytest

from sae_widget.state import Status
from sae_widget.views.health import (
    NOTHING_YET,
    HealthRow,
    Numbers,
    current_numbers,
    first_token_share,
    health_cards,
)
from tests.hand_made import activations, features, history

NAN = float("nan")


def numbers(**changes):
    values = {
        "explained_variance": 0.8,
        "explained_variance_with_first": 0.85,
        "l0": 16.0,
        "dead": 3,
        "d_sae": 1024,
        "where": "here",
    }
    return Numbers(**values | changes)


def words(**changes):
    return {card.key: card.word for card in health_cards(numbers(**changes))}


def test_all_fine():
    assert set(words().values()) == {"fine"}


@pytest.mark.parametrize(
    ("changes", "key", "word"),
    [
        ({"explained_variance": 0.6}, "explained_variance", "fine"),
        ({"explained_variance": 0.59}, "explained_variance", "look"),
        ({"explained_variance": 0.0}, "explained_variance", "look"),
        ({"explained_variance": -0.65}, "explained_variance", "broken"),
        ({"explained_variance": NAN}, "explained_variance", "unknown"),
        ({"explained_variance": 0.4, "explained_variance_with_first": 0.997}, "explained_variance_with_first", "look"),
        ({"explained_variance_with_first": -1.0}, "explained_variance_with_first", "broken"),
        ({"explained_variance": NAN}, "explained_variance_with_first", "fine"),
        ({"l0": 0.4}, "l0", "look"),
        ({"l0": 0.0}, "l0", "broken"),
        ({"l0": 102.0}, "l0", "fine"),
        ({"l0": 103.0}, "l0", "look"),
        ({"l0": 133.8, "d_sae": 192}, "l0", "broken"),
        ({"l0": NAN}, "l0", "unknown"),
        ({"dead": 103}, "dead", "look"),
        ({"dead": 14, "d_sae": 16}, "dead", "broken"),
    ],
)
def test_words_follow_their_rule(changes, key, word):
    assert words(**changes)[key] == word


def test_numbers_as_they_are_read():
    shown = {card.key: card.number for card in health_cards(numbers(explained_variance=-0.654, l0=15.75))}
    assert shown == {
        "explained_variance": "−0.65",
        "explained_variance_with_first": "0.85",
        "l0": "15.8",
        "dead": "3 of 1,024",
    }
    assert health_cards(numbers(l0=NAN))[2].number == "–"


def test_each_card_has_definition_rule_and_remedy():
    for card in health_cards(numbers()):
        assert "Try: " in card.means and len(card.means) > 80


def test_the_first_tokens_share_in_words():
    assert first_token_share(activations()) == pytest.approx(0.8)
    assert math.isnan(first_token_share(None))
    told = health_cards(numbers(explained_variance=0.1, explained_variance_with_first=0.99), 0.8)[1].means
    assert "position 0 holds 80% of the squared norm" in told and "first token flatters" in told
    assert "squared norm" not in health_cards(numbers())[1].means


def test_shown_sae_and_running_training_take_turns(state):
    row = HealthRow(state)
    assert row.row.empty == NOTHING_YET and row.row.cards == []
    state.features = features()
    assert [card["number"] for card in row.row.cards] == ["0.75", "0.99", "15.8", "10 of 150"]
    assert row.head.note == "by hand, on 30,000 tokens"
    state.settings = state.settings.changed(d_sae=64)
    state.history = history(3)
    state.status = Status("training", "Training", 3, 10)
    assert [card["number"] for card in row.row.cards] == ["0.50", "0.90", "16.0", "4 of 64"]
    assert row.head.note == "on the latest batch"
    state.status = Status("ready", "Ready")
    assert row.row.cards[0]["number"] == "0.75"
    row.close()


def test_without_statistics_the_history_speaks(state):
    state.features, state.history = features(stats=False), history(2)
    found = current_numbers(state)
    assert found is not None and found.l0 == 16.0
    state.history = None
    assert current_numbers(state) is None
