"""Numbers as a person reads them: words follow their rule, formulas stand beside them."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from sae_widget.views.measures import Numbers, frequency_bars, health_cards, health_facts

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
        ({"dead": 1024}, "dead", "broken"),
        ({"dead": 14, "d_sae": 16}, "dead", "broken"),
    ],
)
def test_words_follow_their_rule(changes, key, word):
    assert words(**changes)[key] == word


def test_numbers_as_they_are_read():
    shown = {card.key: card.number for card in health_cards(numbers(explained_variance=-0.654, l0=15.75))}
    assert shown == {
        "l0": "15.8",
        "explained_variance": "−0.65",
        "explained_variance_with_first": "0.85",
        "dead": "3",
    }
    assert health_cards(numbers())[3].small == "of 1,024"
    assert health_cards(numbers(l0=NAN))[0].number == "–"


def test_l0_comes_first():
    """With a wrong one all others can look good."""
    assert health_cards(numbers())[0].key == "l0"


@pytest.mark.parametrize(
    ("l0", "word"), [(16.0, "fine"), (19.2, "fine"), (12.0, "look"), (30.0, "look"), (0.0, "broken")]
)
def test_a_target_that_is_not_reached_is_worth_a_look(l0, word):
    card = health_cards(numbers(l0=l0, target_l0=16.0))[0]
    assert (card.word, card.small) == (word, "→ 16")
    assert "Training steers it to 16" in card.means
    assert "steers" not in health_cards(numbers())[0].means


def test_each_card_has_definition_rule_and_remedy():
    for card in health_cards(numbers()):
        assert "Try: " in card.means and len(card.means) > 80


def test_the_first_tokens_share_in_words():
    told = health_cards(numbers(explained_variance=0.1, explained_variance_with_first=0.99), 0.8)[2].means
    assert "position 0 holds 80% of the squared norm" in told and "first token flatters" in told
    assert "squared norm" not in health_cards(numbers())[2].means


def test_facts_are_those_that_are_known():
    assert health_facts(numbers()) == ()
    fidelity = SimpleNamespace(
        ce_clean=3.0,
        ce_sae=4.0,
        ce_zero=2.0,
        ce_mean=6.0,
        recovered_zero=-0.015,
        recovered_mean=2 / 3,
        kl=1.5,
        n_tokens=2048,
    )
    found = health_facts(numbers(validation=0.756, bias=0.9), fidelity)
    assert [fact[:2] for fact in found] == [
        ("on held-out text", "0.76"),
        ("size kept (1 − shrinkage)", "90%"),
        ("CE recovered", "−1.5%"),
        ("KL", "1.5"),
    ]
    assert "66.7% with the mean in its place" in found[2][2] and "2,048 tokens" in found[2][2]
    assert all(len(means) > 60 for _, _, means in found)


def test_a_fidelity_without_a_number_is_a_dash():
    fidelity = SimpleNamespace(
        ce_clean=3.0, ce_sae=3.0, ce_zero=3.0, ce_mean=3.0, recovered_zero=NAN, recovered_mean=NAN, kl=0.0, n_tokens=8
    )
    assert [fact[:2] for fact in health_facts(numbers(), fidelity)] == [("CE recovered", "–"), ("KL", "0")]


def test_frequencies_by_half_decade():
    shares = np.array([0.0, 0.0, 1e-7, 2e-4, 5e-4, 0.05, 1.0, 1.0])
    bars = frequency_bars(shares)
    assert [words for words, _ in bars][:3] == [
        "never",
        "on 0.001% to 0.0032% of tokens",
        "on 0.0032% to 0.01% of tokens",
    ]
    assert bars[-1][0] == "on 32% to 100% of tokens"
    assert [count for _, count in bars] == [2, 1, 0, 1, 1, 0, 0, 0, 1, 0, 2]


def test_frequencies_of_a_damaged_file_are_left_out():
    assert [count for _, count in frequency_bars(np.array([np.nan, -1.0, 0.5], np.float32))] == [0] * 10 + [1]
