"""A corpus in pieces: nothing lost, nothing read beyond what was asked for."""

import pytest
import torch

from sae_widget.data import PIECE_CHARS, concatenate, pieces, read_corpus


def test_pieces_lose_no_character_and_break_at_lines():
    text = "".join(f"line {i} of a long text\n" for i in range(1000))
    found = pieces([text, "short"])
    assert max(len(piece) for piece in found) <= PIECE_CHARS
    assert sorted("".join(sorted(found))) == sorted(text + "short")
    assert all(piece.endswith("\n") or piece == "short" for piece in found)


def test_the_order_of_the_pieces_is_fixed_by_the_seed():
    texts = [f"text {i}" for i in range(50)]
    assert pieces(texts) == pieces(texts)
    assert pieces(texts) != pieces(texts, seed=1)
    assert sorted(pieces(texts)) == sorted(texts)


def test_blank_texts_have_no_pieces():
    assert pieces(["", "  \n"]) == []


def test_reading_stops_at_the_number_of_tokens(tiny_gpt2):
    texts = [f"text number {i} and some more words" for i in range(40)]
    parts = list(read_corpus(tiny_gpt2, texts, 1, "resid_pre", prepend_bos=False, max_tokens=500))
    assert sum(part.n_tokens for part in parts) == 500
    whole = concatenate(parts)
    assert whole.values.shape == (500, 32)
    assert len(whole.labels) == 500
    assert whole.text_index.diff().min() >= 0
    assert int(whole.text_index.max()) < len(whole.texts)
    first = concatenate(list(read_corpus(tiny_gpt2, texts[:1], 1, "resid_pre", prepend_bos=False, max_tokens=500)))
    assert torch.allclose(whole.values[: first.n_tokens], first.values, atol=1e-5)


def test_a_short_corpus_is_read_whole(tiny_gpt2):
    parts = list(read_corpus(tiny_gpt2, ["abc", "de"], 0, "resid_pre", prepend_bos=True, max_tokens=500))
    assert concatenate(parts).n_tokens == 7  # five letters and two start tokens


def test_no_room_for_more_than_a_start_token_is_the_end(tiny_gpt2):
    texts = ["abcd", "efg", "hi", "jk", "lm"]  # 4 + 3 + 2 + 2 letters and four start tokens are read at once
    for most in (15, 16):
        parts = list(read_corpus(tiny_gpt2, texts, 0, "resid_pre", prepend_bos=True, max_tokens=most))
        assert concatenate(parts).n_tokens == 15
    parts = list(read_corpus(tiny_gpt2, texts, 0, "resid_pre", prepend_bos=True, max_tokens=17, first_text=1))
    assert concatenate(parts).n_tokens == 13
    with pytest.raises(ValueError, match="no room behind the start token"):
        list(read_corpus(tiny_gpt2, texts, 0, "resid_pre", prepend_bos=True, max_tokens=1))


def test_nothing_to_put_together_is_refused():
    with pytest.raises(ValueError, match="no tokens"):
        concatenate([])
