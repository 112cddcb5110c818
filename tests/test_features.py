"""Feature statistics, text features, order, contexts: answers worked out by hand."""

import numpy as np
import pytest
import torch

from sae_widget.activations.base import Activations
from sae_widget.features import (
    Counting,
    Features,
    FeatureStats,
    base,
    feature_stats,
    measured,
    neighbours,
    order_features,
    prompt_features,
    top_contexts,
)
from sae_widget.sae.standard import StandardSAE
from tests import hand_made

# Two dimensions, three features: x0, x1 and a feature that never fires.
SAE = StandardSAE(
    W_enc=torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]),
    b_enc=torch.tensor([0.0, -1.0, -100.0]),
    W_dec=torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]]),
    b_dec=torch.zeros(2),
)
VALUES = torch.tensor([[9.0, 9.0], [1.0, 0.0], [0.0, 3.0], [2.0, 2.0]])


def activations(values=VALUES, position=(0, 1, 2, 3), start_token=False):
    n = len(values)
    spans = torch.tensor([[i, i + 1] for i in range(n)])
    if start_token:
        spans[0] = 0
    return Activations(
        values=values,
        token_ids=torch.arange(n),
        position=torch.tensor(position),
        text_index=torch.zeros(n, dtype=torch.long),
        spans=spans,
        labels=tuple("abcdefgh"[:n]),
        texts=("abcdefgh"[:n],),
        notes=(),
        model_name="m",
        layer=0,
        hook_name="resid_pre",
    )


def test_statistics_leave_position_0_out():
    stats = feature_stats(SAE, VALUES, torch.arange(4))
    assert stats.n_tokens == 3
    assert stats.frequency == pytest.approx([2 / 3, 2 / 3, 0.0])
    assert stats.mean == pytest.approx([1.0, 1.0, 0.0])  # (1 + 0 + 2) / 3 and (0 + 2 + 1) / 3
    assert stats.max == pytest.approx([2.0, 2.0, 0.0])
    assert stats.dead.tolist() == [False, False, True]
    assert stats.l0 == pytest.approx(4 / 3)
    # The second feature gives back one too little, twice; the spread of rows 1 to 3 is 2 + 42 / 9.
    assert stats.explained_variance == pytest.approx(1 - 2 / (2 + 42 / 9))
    assert stats.explained_variance_with_first > stats.explained_variance


def test_statistics_that_were_left_go_on_where_they_were(monkeypatch):
    monkeypatch.setattr(base, "CHUNK", 3)  # one token at a time
    counting, left = Counting(SAE, VALUES, torch.arange(4)), []
    for _ in range(3):
        for n in counting.pieces():
            left.append(n)
            break
    left += list(counting.pieces())
    assert left == [3, 2, 1, 0]
    stats = counting.stats()
    assert stats.frequency == pytest.approx([2 / 3, 2 / 3, 0.0]) and stats.max == pytest.approx([2.0, 2.0, 0.0])
    assert stats.explained_variance == pytest.approx(1 - 2 / (2 + 42 / 9))
    assert torch.is_grad_enabled()  # also between two pieces, where another's code runs


def test_statistics_survive_being_stored():
    stats = feature_stats(SAE, VALUES, torch.arange(4))
    again = FeatureStats.from_tensors(stats.tensors())
    assert again.frequency.tolist() == stats.frequency.tolist()
    assert again.dead.tolist() == stats.dead.tolist()
    assert (again.n_tokens, again.l0) == (3, pytest.approx(stats.l0))


def test_text_features_are_sparse_and_the_strongest_comes_first():
    prompt = prompt_features(SAE, activations())
    assert prompt.indptr.tolist() == [0, 2, 3, 4, 6]
    assert prompt.of_token(0)[0].tolist() == [0, 1]
    assert prompt.of_token(3)[1].tolist() == [2.0, 1.0]
    assert prompt.of_feature(1).tolist() == [8.0, 0.0, 2.0, 1.0]
    assert prompt.strongest.tolist() == [0, 0, 1, 0]
    assert prompt.counted.tolist() == [False, True, True, True]
    assert prompt.mean == pytest.approx([1.0, 1.0, 0.0])
    assert prompt.max == pytest.approx([2.0, 2.0, 0.0])


def test_a_text_of_one_token_counts_it():
    prompt = prompt_features(SAE, activations(VALUES[:1], (0,)))
    assert prompt.counted.tolist() == [True]
    assert prompt.mean == pytest.approx([9.0, 8.0, 0.0])


def test_the_start_token_never_counts():
    prompt = prompt_features(SAE, activations(start_token=True), skip_first=False)
    assert prompt.counted.tolist() == [False, True, True, True]


def test_order_by_activation_frequency_and_number():
    stats = feature_stats(SAE, VALUES, torch.arange(4))
    features = Features(SAE, stats, prompt_features(SAE, activations()), "", 1)
    assert order_features(features, "number").tolist() == [0, 1, 2]
    assert order_features(features, "frequency").tolist() == [0, 1, 2]
    assert order_features(features, "activation", "token", 2).tolist() == [1, 0, 2]
    assert measured(features, "token", 2).tolist() == [0.0, 2.0, 0.0]
    assert measured(features, "token", 99).tolist() == measured(features, "mean").tolist()


def wide(frequency, n_tokens=1000):
    """As many features as frequencies, without a text."""
    d_sae, frequency = len(frequency), np.asarray(frequency, np.float32)
    sae = StandardSAE(torch.zeros(2, d_sae), torch.zeros(d_sae), torch.zeros(d_sae, 2), torch.zeros(2))
    stats = FeatureStats(frequency, frequency, frequency, frequency == 0, n_tokens, 1.0, 0.5, 0.5)
    return Features(sae, stats, None, "", 1)


RARE = [0.02] * 62 + [0.0, 0.03]
DENSE_ONES = [0.4, 0.1, 0.11]


def test_dense_features_can_be_left_out_of_every_order():
    features = wide([*DENSE_ONES, *RARE])
    assert np.flatnonzero(features.dense).tolist() == [0, 2]  # a tenth exactly stays
    assert order_features(features, "number").tolist() == list(range(67))
    assert order_features(features, "number", hide_dense=True).tolist() == [1, *range(3, 67)]
    assert order_features(features, "frequency", hide_dense=True)[:3].tolist() == [1, 66, 3]
    assert order_features(features, "activation", hide_dense=True)[:2].tolist() == [1, 66]


@pytest.mark.parametrize(
    "features",
    [
        wide([*DENSE_ONES, *RARE], n_tokens=999),
        wide([*DENSE_ONES, *RARE][:64]),
        wide([0.4] * 40 + [0.01] * 39),
        Features(wide(RARE).sae, None, None, "", 1),
    ],
    ids=["too few tokens", "few features", "more than half", "no statistics"],
)
def test_none_is_dense_where_that_says_nothing(features):
    assert not features.dense.any()
    assert len(order_features(features, "frequency", hide_dense=True)) == features.sae.d_sae


def test_without_a_text_the_corpus_speaks():
    stats = feature_stats(SAE, VALUES, torch.arange(4))
    features = Features(SAE, stats, None, "", 1)
    assert measured(features, "max").tolist() == [2.0, 2.0, 0.0]
    assert measured(Features(SAE, None, None, "", 1), "max").tolist() == [0.0, 0.0, 0.0]


def test_contexts_come_strongest_first_and_not_twice_from_one_place():
    values = torch.zeros(30, 2)
    values[5, 0], values[6, 0], values[25, 0] = 3.0, 2.9, 1.0
    record = activations(values[:8], tuple(range(8)))
    contexts = top_contexts(SAE, record, 0, before=2, after=1)
    assert [c.labels for c in contexts] == [("d", "e", "f", "g")]
    assert contexts[0].acts[contexts[0].centre] == 3.0
    assert contexts[0].labels[contexts[0].centre] == "f"
    assert top_contexts(SAE, record, 2) == ()


def test_neighbours_by_cosine():
    assert [n for n, _ in neighbours(SAE, 2)] == [1, 0]
    assert dict(neighbours(SAE, 2))[1] == pytest.approx(0.8)


@pytest.mark.parametrize(
    ("values", "position", "error", "words"),
    [
        (torch.ones(4, 3), torch.arange(4), ValueError, r"values must be \[n_tokens, 2\] .* got shape \[4, 3\]"),
        (torch.ones(2), torch.arange(2), ValueError, r"values must be \[n_tokens, 2\] .* got shape \[2\]"),
        (torch.ones(0, 2), torch.arange(0), ValueError, r"with at least one token, .* got shape \[0, 2\]"),
        (torch.ones(4, 2), torch.arange(3), ValueError, r"position must be \[4\] like values, got shape \[3\]"),
        (torch.ones(4, 2).half(), torch.arange(4), TypeError, "values must be torch.float32 .* got torch.float16"),
        (np.ones((4, 2)), torch.arange(4), TypeError, "values must be a torch tensor, got ndarray"),
        (torch.ones(4, 2), range(4), TypeError, "position must be a torch tensor, got range"),
    ],
)
def test_statistics_of_what_the_sae_cannot_read_are_refused(values, position, error, words):
    with pytest.raises(error, match=words):
        feature_stats(SAE, values, position)


def test_a_text_of_another_width_is_refused():
    for use in (lambda record: prompt_features(SAE, record), lambda record: top_contexts(SAE, record, 0)):
        with pytest.raises(ValueError, match=r"values must be \[n_tokens, 2\]"):
            use(activations(torch.ones(4, 5)))


@pytest.mark.parametrize(
    ("feature", "error", "words"),
    [
        (300, ValueError, "feature must be between 0 and 2, got 300"),
        (-1, ValueError, "feature must be between 0 and 2, got -1"),
        (1.0, TypeError, "feature must be a whole number, got 1.0"),
        (True, TypeError, "feature must be a whole number, got True"),
    ],
)
def test_a_feature_that_there_is_not_is_refused(feature, error, words):
    for use in (lambda: top_contexts(SAE, activations(), feature), lambda: neighbours(SAE, feature)):
        with pytest.raises(error, match=words):
            use()
    assert top_contexts(SAE, activations(), np.int64(1)) == top_contexts(SAE, activations(), 1)


def test_records_are_shown_in_one_line():
    shown = hand_made.features()
    assert repr(shown) == "Features(150 features, by hand, 4 tokens)"
    assert repr(hand_made.features(prompt=False)) == "Features(150 features, by hand, no text)"
    assert repr(shown.prompt) == "PromptFeatures(4 tokens, 150 features, 3 firings)"
    numbers = "explained variance 0.750, l0 15.8, 10 dead"
    assert repr(shown.stats) == f"FeatureStats(150 features on 30,000 tokens: {numbers})"
