"""A corpus that is read through the language model block by block, as often as it is trained on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from sae_widget.data.pieces import PIECES_AT_ONCE, concatenate, read_corpus

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sae_widget.activations.base import Activations, LanguageModel

BLOCK_TOKENS = 4096
"""A block ends with the first texts that bring it to so many tokens."""
ROOM = 1.25  # times the tokens of the first block are held of a block; texts differ


class ModelActivations:
    """An ``ActivationSource`` that holds texts and a model, and computes a block when it is asked for.

    Args:
        model: the language model.
        texts: the pieces, shuffled.
        layer: of the read point.
        hook_name: of the read point.
        prepend_bos: read each window behind the start token.
        max_tokens: how much of the texts is taken, to the nearest block.
        buffer_tokens: rows that a trainer holds at once; None takes 256 MB of them.

    Raises:
        ValueError: there are no texts, or the model cannot be read at this place.
    """

    def __init__(
        self,
        model: LanguageModel,
        texts: Sequence[str],
        layer: int,
        hook_name: str,
        *,
        prepend_bos: bool,
        max_tokens: int,
        buffer_tokens: int | None = None,
    ) -> None:
        self.model, self.texts, self.layer, self.hook_name = model, texts, layer, hook_name
        self.prepend_bos, self.max_tokens, self.buffer_tokens = prepend_bos, max_tokens, buffer_tokens
        self.d_in = model.d_in
        tokens, n_texts, notes = 0, 0, dict[str, None]()
        for part in self.parts():
            tokens += part.n_tokens
            n_texts += PIECES_AT_ONCE
            notes |= dict.fromkeys(note for note in part.notes if not note.startswith("Reading stopped"))
            if tokens >= BLOCK_TOKENS:
                break
        if not tokens:
            raise ValueError("the corpus has no tokens")
        self.notes = tuple(notes)
        self._texts_of_block = n_texts
        self.n_blocks = min(-(-len(texts) // n_texts), -(-max_tokens // tokens))
        self.n_tokens = tokens if self.n_blocks == 1 else min(max_tokens, round(tokens * len(texts) / n_texts))
        self.block_tokens = max(1, int(ROOM * tokens))

    @property
    def metadata(self) -> dict[str, Any]:
        """What an SAE that is trained on it should say."""
        names = {"model_name": self.model.name, "layer": self.layer, "hook_name": self.hook_name}
        return names | {"prepend_bos": self.prepend_bos, "training_tokens": self.n_tokens}

    def parts(self, max_tokens: int | None = None, *, first_text: int = 0) -> Iterator[Activations]:
        """The corpus as records of some texts each, until ``max_tokens`` tokens, from the text ``first_text`` on."""
        most = self.max_tokens if max_tokens is None else max_tokens
        return self._read(self.texts, most, first_text)

    def _read(self, texts: Sequence[str], max_tokens: int, first_text: int = 0) -> Iterator[Activations]:
        place = self.model, texts, self.layer, self.hook_name
        return read_corpus(*place, prepend_bos=self.prepend_bos, max_tokens=max_tokens, first_text=first_text)

    def load(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Activations and positions of one block."""
        _check_block(index, self.n_blocks)
        texts = self.texts[index * self._texts_of_block : (index + 1) * self._texts_of_block]
        left = self.max_tokens if self.n_blocks == 1 else self.block_tokens
        parts = list(self._read(texts, left))
        return torch.cat([p.values for p in parts]), torch.cat([p.position for p in parts])

    def whole(self) -> tuple[torch.Tensor, torch.Tensor]:
        """All of it, exactly ``max_tokens`` tokens where there are so many."""
        found = concatenate(list(self.parts()))
        return found.values, found.position

    def sample(self, n_tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The first tokens, at most so many; the texts are shuffled, so they come from everywhere."""
        found = concatenate(list(self.parts(min(n_tokens, self.max_tokens))))
        return found.values, found.position


def _check_block(index: int, n_blocks: int) -> None:
    if not 0 <= index < n_blocks:
        raise ValueError(f"block must be between 0 and {n_blocks - 1}, got {index}")
