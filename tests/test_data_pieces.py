"""sae_widget.data.pieces: how a text is cut, and how the records of its pieces become one."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, overload

import pytest
import torch
import torch._dynamo  # transformers imports it at a model's first run, and that changes the environment

from sae_widget.data.pieces import PIECE_CHARS, PIECES_AT_ONCE, concatenate, cut, pieces, read_corpus
from tests.hand_made import activations

PLACE: dict[str, Any] = {"layer": 1, "hook_name": "resid_pre", "prepend_bos": False}


class Looked(Sequence[str]):
    """Texts that know which of them were asked for."""

    def __init__(self, n: int) -> None:
        self.texts, self.seen = [f"text number {i}" for i in range(10, 10 + n)], list[int]()

    def __len__(self) -> int:
        return len(self.texts)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        assert isinstance(index, slice)
        self.seen += range(*index.indices(len(self)))
        return self.texts[index]


@pytest.mark.parametrize(
    ("text", "lengths"),
    [
        ("", []),
        (" \n", [2]),
        ("x" * PIECE_CHARS, [PIECE_CHARS]),
        ("x" * (PIECE_CHARS + 1), [PIECE_CHARS, 1]),
        ("a" * 2999 + " " + "b" * 3000, [3000, 3000]),
        ("a " * 1000 + "b" * 999 + "\n" + "c " * 1000, [3000, 2000]),  # a line before a word
        ("a\n" * 1000 + "b" * 198 + "\n\n" + "c\n" * 1000, [2200, 2000]),  # a paragraph before a line
        (" " * PIECE_CHARS + "end", [PIECE_CHARS, 3]),
    ],
)
def test_a_text_is_cut_and_joined_is_the_text(text: str, lengths: list[int]) -> None:
    found = list(cut(text))
    assert "".join(found) == text and [len(piece) for piece in found] == lengths


def test_pieces_of_white_space_are_left_out_and_nothing_else() -> None:
    texts = [" " * PIECE_CHARS + "end", "\n", "", " a "]
    assert sorted(pieces(texts)) == [" a ", "end"]
    assert pieces(iter(texts)) == pieces(texts) and pieces([]) == []


def test_the_order_of_others_is_left_as_it_was() -> None:
    before = random.getstate()
    assert pieces([f"text {i}" for i in range(9)], seed=3) != sorted(f"text {i}" for i in range(9))
    assert random.getstate() == before


def test_no_text_is_looked_at_before_it_is_needed(tiny_gpt2: Any) -> None:
    texts = Looked(40)
    found = read_corpus(tiny_gpt2, texts, **PLACE, max_tokens=20 * PIECES_AT_ONCE)
    assert texts.seen == []
    assert next(found).texts == tuple(texts.texts[:PIECES_AT_ONCE])
    assert texts.seen == list(range(PIECES_AT_ONCE))
    assert sum(part.n_tokens for part in found) == 80 - 14 * PIECES_AT_ONCE  # 14 letters each
    assert texts.seen == list(range(2 * PIECES_AT_ONCE))


@pytest.mark.parametrize(("first", "most"), [(3, 0), (6, 100), (99, 100)])
def test_where_there_is_nothing_to_read_nothing_is_read(first: int, most: int, tiny_gpt2: Any) -> None:
    texts = Looked(6)
    assert list(read_corpus(tiny_gpt2, texts, **PLACE, max_tokens=most, first_text=first)) == []
    assert texts.seen == []


def test_reading_goes_on_with_the_text_that_is_asked_for(tiny_gpt2: Any) -> None:
    texts = Looked(10)
    whole = list(read_corpus(tiny_gpt2, texts, **PLACE, max_tokens=1000))
    rest = list(read_corpus(tiny_gpt2, texts, **PLACE, max_tokens=1000, first_text=PIECES_AT_ONCE))
    assert [len(part.texts) for part in whole] == [4, 4, 2] and len(rest) == 2
    assert torch.equal(concatenate(rest).values, concatenate(whole[1:]).values)


def test_a_place_that_the_model_does_not_have_is_refused(tiny_gpt2: Any) -> None:
    with pytest.raises(ValueError, match="layer must be between 0 and 2, got 3"):
        next(read_corpus(tiny_gpt2, ["a text"], **PLACE | {"layer": 3}, max_tokens=9))


def test_records_become_one_whose_texts_are_numbered_on() -> None:
    one = activations()
    two = replace(one, texts=("·a", " <b> c"), text_index=torch.tensor([0, 0, 1, 1]), values=one.values + 1)
    parts = [replace(two, notes=("cut", "stopped")), replace(one, notes=("cut",)), two]
    whole = concatenate(parts)
    assert whole.texts == (*two.texts, *one.texts, *two.texts)
    assert whole.text_index.tolist() == [0, 0, 1, 1, 2, 2, 2, 2, 3, 3, 4, 4]
    assert whole.notes == ("cut", "stopped")  # each once
    assert torch.equal(whole.values, torch.cat([two.values, one.values, two.values]))
    assert whole.labels == one.labels * 3 and whole.spans.shape == (12, 2)
    assert whole.position.tolist() == whole.token_ids.tolist() == [0, 1, 2, 3] * 3
    assert (whole.model_name, whole.layer, whole.hook_name) == ("bundled", 2, "resid_pre")
    assert parts[1].text_index.tolist() == [0, 0, 0, 0]  # the records stay as they were
