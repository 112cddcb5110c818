"""The trigram baseline against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from sae_widget.ngram import KneserNeyTrigram

# Trigrams: 012 twice; 120, 201, 013, 130, 301 once: D = 5 / (5 + 2) = 5/7.
# Continuation counts of bigrams: 01 two; 12, 20, 13, 30 one: D = 4 / (4 + 2) = 2/3.
# Continuation counts of tokens: 0 two; 1, 2, 3 one: D = 3 / (3 + 2) = 3/5, 2.4 / 5 of the mass is left over.
TEXT = np.array([0, 1, 2, 0, 1, 3, 0, 1, 2])
VOCAB = 5


@pytest.fixture(scope="module")
def model() -> KneserNeyTrigram:
    return KneserNeyTrigram.fit(TEXT, VOCAB)


def test_by_hand(model: KneserNeyTrigram) -> None:
    assert model.unigram == pytest.approx([0.376, 0.176, 0.176, 0.176, 0.096])
    two_after_one = (1 - 2 / 3) / 2 + 2 / 3 * 0.176
    assert model.prob(np.array([0, 1, 2])) == pytest.approx([(2 - 5 / 7) / 3 + 5 / 7 * 2 / 3 * two_after_one])
    assert model.prob(np.array([0, 1, 4])) == pytest.approx([5 / 7 * 2 / 3 * 2 / 3 * 0.096])


def test_unseen_contexts_fall_back(model: KneserNeyTrigram) -> None:
    two_after_one = (1 - 2 / 3) / 2 + 2 / 3 * 0.176
    assert model.prob(np.array([4, 1, 2])) == pytest.approx([two_after_one])
    assert model.prob(np.array([4, 4, 3])) == pytest.approx([0.176])


@pytest.mark.parametrize("context", [(0, 1), (1, 2), (4, 1), (4, 4), (3, 3)])
def test_probabilities_sum_to_one(model: KneserNeyTrigram, context: tuple[int, int]) -> None:
    total = sum(float(model.prob(np.array([*context, token]))[0]) for token in range(VOCAB))
    assert total == pytest.approx(1.0)


def test_probabilities_sum_to_one_on_a_longer_text() -> None:
    ids = np.random.default_rng(3).integers(0, 12, 700) ** 2 % 17
    model = KneserNeyTrigram.fit(ids, 20)
    for at in range(0, 100, 7):
        asked = np.stack([np.full(20, ids[at]), np.full(20, ids[at + 1]), np.arange(20)], axis=1)
        assert sum(float(model.prob(row)[0]) for row in asked) == pytest.approx(1.0)


def test_perplexity_is_the_geometric_mean(model: KneserNeyTrigram) -> None:
    ids = np.array([0, 1, 2, 0, 3])
    assert model.perplexity(ids) == pytest.approx(float(np.prod(model.prob(ids)) ** (-1 / 3)))


@pytest.mark.parametrize(
    ("ids", "said"), [([0, 1], "at least 3 tokens"), ([[0, 1, 2]], "vector"), ([0, 1, 5], r"lie in \[0, 5\)")]
)
def test_refusals(ids: list, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        KneserNeyTrigram.fit(np.array(ids), VOCAB)
