"""Activations of a whole corpus, read piece by piece so that the reader can be stopped and can report."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from sae_widget.activations.corpus import passages
from sae_widget.activations.extract import get_activations

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from sae_widget.activations.base import Activations, LanguageModel

PIECE_CHARS = 4_000
"""Length of the pieces into which a corpus is cut, at a paragraph or line where there is one."""

PIECES_AT_ONCE = 4
"""Texts that are read at once."""


def pieces(texts: Iterable[str], seed: int = 0) -> list[str]:
    """Cut texts into pieces of about ``PIECE_CHARS`` characters and shuffle them.

    So the first thousand tokens already come from everywhere.

    Args:
        texts: the corpus.
        seed: of the order.
    """
    found = [piece for text in texts for piece in cut(text) if piece.strip()]
    random.Random(seed).shuffle(found)
    return found


def cut(text: str) -> Iterator[str]:
    """One text in pieces that joined are the text, white space among them."""
    return passages([text], PIECE_CHARS)


def read_corpus(
    model: LanguageModel,
    texts: Sequence[str],
    layer: int,
    hook_name: str,
    *,
    prepend_bos: bool,
    max_tokens: int,
    first_text: int = 0,
) -> Iterator[Activations]:
    """Activations of a corpus, some pieces at a time, until ``max_tokens`` tokens are read.

    Args:
        model: the language model.
        texts: the pieces.
        layer: of the read point.
        hook_name: of the read point.
        prepend_bos: read each window behind the start token.
        max_tokens: where to stop.
        first_text: where to begin.

    Yields:
        Records of a few thousand tokens; together they hold ``max_tokens`` tokens, or all there are (or one less, where
        only a start token would have room).
    """
    left, at = max_tokens, first_text
    least = 2 if prepend_bos else 1  # a start token alone is no window
    while at < len(texts) and (left >= least or left == max_tokens > 0):
        some = list(texts[at : at + PIECES_AT_ONCE])
        at += len(some)
        part = get_activations(model, some, layer, hook_name, prepend_bos=prepend_bos, max_tokens=left)
        if part.n_tokens == 0:
            break
        left -= part.n_tokens
        yield part


def concatenate(parts: list[Activations]) -> Activations:
    """Several records of one read point as one; texts are numbered on.

    Raises:
        ValueError: when there are none.
    """
    if not parts:
        raise ValueError("the corpus has no tokens")
    offsets = [0]
    for part in parts[:-1]:
        offsets.append(offsets[-1] + len(part.texts))
    return replace(
        parts[0],
        values=torch.cat([p.values for p in parts]),
        token_ids=torch.cat([p.token_ids for p in parts]),
        position=torch.cat([p.position for p in parts]),
        text_index=torch.cat([p.text_index + o for p, o in zip(parts, offsets, strict=True)]),
        spans=torch.cat([p.spans for p in parts]),
        labels=tuple(label for p in parts for label in p.labels),
        texts=tuple(text for p in parts for text in p.texts),
        notes=tuple(dict.fromkeys(note for p in parts for note in p.notes)),
    )
