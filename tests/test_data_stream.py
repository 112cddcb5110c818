"""A corpus read through the model in blocks: the same rows as all at once, with odd and with no texts."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from sae_widget.data import stream
from sae_widget.data.stream import ModelActivations

TEXTS = [chr(ord("a") + at) * 10 for at in range(15)]  # ten tokens each: one a letter


def source(model: Any, texts: list[str] = TEXTS, most: int = 10_000, **given: Any) -> ModelActivations:
    return ModelActivations(model, texts, 1, "resid_pre", **({"prepend_bos": False, "max_tokens": most} | given))


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "BLOCK_TOKENS", 40)  # four texts


@pytest.mark.parametrize("prepend_bos", [False, True])
@pytest.mark.parametrize("n_texts", [1, 3, 4, 5, 8, 15])
def test_the_blocks_together_are_the_whole(n_texts: int, prepend_bos: bool, tiny_gpt2: Any) -> None:
    found = source(tiny_gpt2, TEXTS[:n_texts], prepend_bos=prepend_bos)
    assert found.n_blocks == -(-n_texts // 4) and found.d_in == 32
    blocks = [found.load(index) for index in range(found.n_blocks)]
    values, position = found.whole()
    torch.testing.assert_close(torch.cat([part for part, _ in blocks]), values, atol=1e-5, rtol=1e-5)
    assert torch.equal(torch.cat([place for _, place in blocks]), position)
    length = 10 + prepend_bos
    assert position.tolist() == list(range(length)) * n_texts
    assert max(len(part) for part, _ in blocks) <= found.block_tokens
    assert found.n_tokens == len(values) == length * n_texts or found.n_blocks > 1
    assert found.n_tokens == pytest.approx(len(values), rel=0.15)
    assert found.metadata == {
        "model_name": tiny_gpt2.name,
        "layer": 1,
        "hook_name": "resid_pre",
        "prepend_bos": prepend_bos,
        "training_tokens": found.n_tokens,
    }


@pytest.mark.parametrize(
    ("most", "n_blocks", "n_tokens"), [(1, 1, 1), (39, 1, 39), (40, 1, 40), (41, 2, 41), (81, 3, 81)]
)
def test_no_more_is_taken_than_was_asked_for(most: int, n_blocks: int, n_tokens: int, tiny_gpt2: Any) -> None:
    found = source(tiny_gpt2, most=most)
    assert (found.n_blocks, found.n_tokens) == (n_blocks, n_tokens)
    assert len(found.whole()[0]) == most
    assert len(found.load(0)[0]) == min(40, most)  # to the nearest block
    assert len(found.sample(7)[0]) == min(7, most) and torch.equal(found.sample(7)[0], found.whole()[0][:7])


def test_of_a_block_that_is_far_longer_than_the_first_the_rest_is_passed_over(tiny_gpt2: Any) -> None:
    found = source(tiny_gpt2, [*TEXTS[:4], *(text * 5 for text in TEXTS[4:8])])
    assert (found.n_blocks, found.block_tokens) == (2, 50)
    assert [len(found.load(index)[0]) for index in (0, 1)] == [40, 50]


def test_it_is_read_from_a_text_on(tiny_gpt2: Any) -> None:
    found = source(tiny_gpt2)
    parts = list(found.parts(25, first_text=12))
    assert [part.n_tokens for part in parts] == [25] and parts[0].texts == tuple(TEXTS[12:15])
    assert list(found.parts(25, first_text=15)) == []


@pytest.mark.parametrize("texts", [[], [""], ["", "", "", "", ""]])
def test_a_corpus_without_tokens_is_refused(texts: list[str], tiny_gpt2: Any) -> None:
    with pytest.raises(ValueError, match=r"the corpus has no tokens|Type some text first \(it has 0 tokens\)"):
        source(tiny_gpt2, texts)


@pytest.mark.parametrize("index", [-1, 4, 10**9])
def test_a_block_that_is_not_there_is_refused(index: int, tiny_gpt2: Any) -> None:
    with pytest.raises(ValueError, match=f"block must be between 0 and 3, got {index}"):
        source(tiny_gpt2).load(index)
