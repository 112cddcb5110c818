"""sae_widget.features.contexts: where a feature fires most and its neighbours, against plain computations."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from sae_widget.activations.base import Activations
from sae_widget.features import base
from sae_widget.features.contexts import Context, neighbours, top_contexts
from sae_widget.sae import StandardSAE, TopKSAE
from tests.sae_folders import an_sae

PARTS = {
    "W_enc": torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]),
    "b_enc": torch.zeros(3),
    "W_dec": torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 4.0]]),
    "b_dec": torch.zeros(2),
}
SAE = StandardSAE(**PARTS)  # feature 0 is the first number of a token


def record(strengths: list[float], **changes: Any) -> Activations:
    """Tokens t0, t1, ... of one window, with these strengths of feature 0."""
    n = len(strengths)
    made = Activations(
        values=torch.tensor([[strength, 0.0] for strength in strengths]),
        token_ids=torch.arange(n),
        position=torch.arange(n),
        text_index=torch.zeros(n, dtype=torch.long),
        spans=torch.tensor([[i, i + 1] for i in range(n)]),
        labels=tuple(f"t{i}" for i in range(n)),
        texts=("x" * n,),
        notes=(),
        model_name="m",
        layer=0,
        hook_name="resid_pre",
    )
    return replace(made, **changes)


def centres(contexts: tuple[Context, ...]) -> list[str]:
    return [context.labels[context.centre] for context in contexts]


def test_a_context_ends_where_its_window_and_its_text_end() -> None:
    two_windows = record([9.0, 1.0, 2.0, 9.0, 1.5, 0.0], position=torch.tensor([0, 1, 2, 0, 1, 2]))
    assert top_contexts(SAE, two_windows, 0, n_contexts=1) == (Context(("t0", "t1", "t2"), (0.0, 1.0, 2.0), 2),)
    # nothing begins at 0, as in the middle of a corpus: the text alone tells them apart
    two_texts = replace(two_windows, position=torch.arange(1, 7), text_index=torch.tensor([0, 0, 0, 1, 1, 1]))
    for strengths, labels in (([0, 0, 3, 1, 0, 0], ("t0", "t1", "t2")), ([0, 0, 1, 3, 0, 0], ("t3", "t4", "t5"))):
        values = torch.tensor([[float(strength), 0.0] for strength in strengths])
        found = top_contexts(SAE, replace(two_texts, values=values), 0, n_contexts=1)
        assert [context.labels for context in found] == [labels]


def test_the_first_token_is_shown_and_never_chosen() -> None:
    found = top_contexts(SAE, record([9.0, 0.5]), 0)
    assert found == (Context(("t0", "t1"), (0.0, 0.5), 1),)
    assert top_contexts(SAE, record([9.0]), 0) == ()


def test_tokens_without_characters_are_neither_shown_nor_chosen() -> None:
    spans = torch.tensor([[0, 0], [0, 1], [1, 1], [1, 3]])
    found = top_contexts(SAE, record([0.0, 1.0, 5.0, 2.0], spans=spans), 0, before=3)
    assert found == (Context(("t1", "t3"), (1.0, 2.0), 1),)


@pytest.mark.parametrize(
    ("n_contexts", "before", "after", "labels"),
    [
        (8, 0, 0, ["t5", "t4", "t3", "t2", "t1"]),
        (2, 0, 0, ["t5", "t4"]),
        (8, 1, 0, ["t5", "t3", "t1"]),
        (8, 4, 0, ["t5"]),
        (8, 10**6, 10**6, ["t5"]),
        (0, 0, 0, []),
    ],
)
def test_there_are_as_many_places_as_fit(n_contexts: int, before: int, after: int, labels: list[str]) -> None:
    strengths = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    found = top_contexts(SAE, record(strengths), 0, n_contexts=n_contexts, before=before, after=after)
    assert centres(found) == labels
    assert [f"t{context.acts[context.centre]:g}" for context in found] == labels


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_dtypes_have_the_same_contexts_and_neighbours(dtype: torch.dtype) -> None:
    sae = StandardSAE(**{name: part.to(dtype) for name, part in PARTS.items()})
    text = record([0.0, 1.0, 0.0, 2.0])
    assert top_contexts(sae, replace(text, values=text.values.to(dtype)), 0) == top_contexts(SAE, text, 0)
    found = neighbours(sae, 0)
    assert [feature for feature, _ in found] == [2, 1]
    assert dict(found)[2] == pytest.approx(0.6, abs=4e-3) and dict(found)[1] == 0.0
    with pytest.raises(TypeError, match="convert them first"):
        top_contexts(sae, text, 0)


def test_chunks_and_the_other_features_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    g = torch.Generator().manual_seed(1)
    text = record([0.0] * 50, values=torch.randn(2, 50, generator=g).T)  # not contiguous
    for sae in (SAE, TopKSAE(**PARTS, k=1)):
        whole = top_contexts(sae, text, 0, before=1, after=1)
        acts = sae.encode(text.values)[:, 0]
        acts[0] = 0.0
        assert centres(whole)[0] == f"t{int(acts.argmax())}" and len(whole) == 8
        with monkeypatch.context() as small:
            small.setattr(base, "CHUNK", 7)
            assert top_contexts(sae, text, 0, before=1, after=1) == whole


@pytest.mark.parametrize("n_neighbours", [0, 1, 4, 9, 1000])
def test_neighbours_are_the_largest_cosines(n_neighbours: int) -> None:
    sae = an_sae()
    before = sae.W_dec.clone()
    rows = sae.W_dec.double()
    for feature in (0, 9):
        cosine = {i: float(rows[i] @ rows[feature] / rows[i].norm() / rows[feature].norm()) for i in range(10)}
        del cosine[feature]
        wanted = sorted(cosine, key=lambda i: -cosine[i])[:n_neighbours]
        found = neighbours(sae, feature, n_neighbours)
        assert [i for i, _ in found] == wanted
        assert dict(found) == pytest.approx({i: cosine[i] for i in wanted}, abs=1e-6)
    assert torch.equal(sae.W_dec, before)


def test_neighbours_of_equal_opposite_and_empty_directions() -> None:
    sae = replace(SAE, W_dec=torch.tensor([[0.0, 0.0], [-2.0, 0.0], [5.0, 0.0]]))
    assert neighbours(sae, 1) == ((0, 0.0), (2, -1.0))
    assert {cosine for _, cosine in neighbours(sae, 0)} == {0.0}
    same = replace(SAE, W_dec=torch.ones(3, 2))
    assert sorted(i for i, _ in neighbours(same, 1)) == [0, 2]
    assert all(math.isclose(cosine, 1.0, abs_tol=1e-6) for _, cosine in neighbours(same, 1))
    alone = StandardSAE(torch.ones(2, 1), torch.zeros(1), torch.ones(1, 2), torch.zeros(2))
    assert neighbours(alone, 0) == ()


def test_short_texts_have_a_place_each() -> None:
    nine = [0.0, 0.0, 3.0, 0.0, 0.0, 2.0, 0.0, 0.0, 1.0]
    texts = torch.tensor([0, 0, 0, 1, 1, 1, 2, 2, 2])
    found = top_contexts(SAE, record(nine, position=torch.tensor([0, 1, 2] * 3), text_index=texts), 0)
    assert centres(found) == ["t2", "t5", "t8"]


def test_strong_places_that_cannot_be_shown_hide_no_other() -> None:
    n = 500
    spans = torch.tensor([[i, i] for i in range(n)] + [[n + i, n + i + 1] for i in range(20)])
    found = top_contexts(SAE, record([5.0] * n + [0.0] * 10 + [1.0] * 10, spans=spans), 0)
    assert centres(found) == ["t510", "t519"]
    rising = record([0.0] + [1.0 + i / 4000 for i in range(4000)])
    assert len(top_contexts(SAE, rising, 0, before=300)) == 8


@pytest.mark.parametrize(("before", "after"), [(1, 3), (3, 1)])
def test_no_place_is_shown_in_the_context_of_another(before: int, after: int) -> None:
    found = top_contexts(SAE, record([0.0] + [1.0 + i for i in range(20)]), 0, before=before, after=after)
    assert len(found) > 2
    for context in found:
        assert not {*context.labels} & {*centres(found)} - {context.labels[context.centre]}
