"""The records that carry a language model and its activations, and the names of the places to read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from sae_widget.config import HOOK_NAMES

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    Change = Callable[[str, torch.Tensor], torch.Tensor]


class ModelLoadError(Exception):
    """A language model could not be had; the message is a sentence for the person."""


class LoadCancelled(ModelLoadError):
    """The person cancelled the loading; what was there before is kept."""


class DamagedModelError(ModelLoadError):
    """The files of a model are damaged or incomplete."""


def unchanged(name: str, values: torch.Tensor) -> torch.Tensor:
    """The clean run: every read point as the model has it."""
    return values


class Adapter(Protocol):
    """What the extractor needs from one family of language models."""

    def embed(self, token_ids: torch.Tensor) -> torch.Tensor:
        """``[batch, pos]`` ids to ``[batch, pos, d_in]``, the input of the first block."""

    def block(self, index: int, resid_pre: torch.Tensor, change: Change = unchanged) -> BlockParts:
        """All read points of one block, from its input ``[batch, pos, d_in]``.

        Each read point behind the input goes through ``change(name, values)`` before anything reads it.
        """

    def final_norm(self, resid: torch.Tensor) -> torch.Tensor:
        """The norm after the last block, same shape."""


@dataclass(frozen=True, eq=False)
class BlockParts:
    """The read points of one block, each ``[batch, pos, d_in]``."""

    attn_out: torch.Tensor
    resid_mid: torch.Tensor
    mlp_out: torch.Tensor
    resid_post: torch.Tensor


@dataclass(frozen=True, eq=False)
class LanguageModel:
    """A causal language model that is ready to be read.

    ``name`` is what ``load_model`` was asked for (``"bundled"``, ``"gpt2"``, a path), ``label`` what a person
    sees. ``network`` is the transformers module with its head, in eval mode, on ``device``.
    ``d_in`` is the width of the residual stream, ``n_layer`` the number of blocks, ``n_positions`` the most tokens that
    are read at once, ``bos_id`` the start token (None where there is none).
    """

    name: str
    label: str
    network: Any
    tokenizer: Any
    adapter: Adapter
    d_in: int
    n_layer: int
    n_positions: int
    vocab_size: int
    bos_id: int | None
    device: str = "cpu"

    def __repr__(self) -> str:
        return f"LanguageModel({self.name!r}, {self.n_layer} blocks, d_in={self.d_in}, vocab_size={self.vocab_size})"


@dataclass(frozen=True, eq=False)
class Activations:
    """Activations of some texts at one place of a model, one row a token.

    Rows run text by text and window by window; a text longer than the context is cut into windows, and
    ``position`` counts from 0 in each window. With a start token, row and position 0 of each window is that
    token, with the empty span. ``values`` are as the model has them, not scaled.
    """

    values: torch.Tensor  # [n_tokens, d_in] float32
    token_ids: torch.Tensor  # [n_tokens] int64
    position: torch.Tensor  # [n_tokens] int64, place in its window
    text_index: torch.Tensor  # [n_tokens] int64
    spans: torch.Tensor  # [n_tokens, 2] int64, characters [start, end) of its text
    labels: tuple[str, ...]  # what is drawn for each token; spaces and newlines visible, never raw bytes
    texts: tuple[str, ...]  # as they were read (lone surrogates replaced)
    notes: tuple[str, ...]  # sentences for the person: cut into windows, characters replaced
    model_name: str
    layer: int
    hook_name: str

    @property
    def n_tokens(self) -> int:
        """Number of rows."""
        return int(self.values.shape[0])

    @property
    def d_in(self) -> int:
        """Width of a row."""
        return int(self.values.shape[1])

    def __repr__(self) -> str:
        place = f"{self.hook_name} of layer {self.layer} of {self.model_name!r}"
        return f"Activations({self.n_tokens:,} tokens, d_in={self.d_in}, {place})"


def check_site(layer: int, hook_name: str, n_layer: int) -> None:
    """Refuse a read point that the model does not have; arguments and errors are those of ``layer_name``."""
    if hook_name not in HOOK_NAMES:
        raise ValueError(f"hook_name must be one of {', '.join(HOOK_NAMES)}, got {hook_name!r}")
    if isinstance(layer, bool) or not isinstance(layer, int):
        raise TypeError(f"layer must be a whole number, got {layer!r}")
    if not 0 <= layer < n_layer:
        raise ValueError(f"layer must be between 0 and {n_layer - 1}, got {layer}")


def layer_name(layer: int, hook_name: str, n_layer: int) -> str:
    """The read point in words; blocks are counted from 1 as in ``hidden_states[i]`` = "after block i".

    ``resid_pre`` of layer L and ``resid_post`` of layer L - 1 are the same place and have the same name.

    Args:
        layer: block, from 0.
        hook_name: one of ``HOOK_NAMES``.
        n_layer: number of blocks of the model.

    Raises:
        TypeError: a layer that is no whole number.
        ValueError: a place that the model does not have.
    """
    check_site(layer, hook_name, n_layer)
    block = layer + 1
    return {
        "resid_pre": "embeddings" if layer == 0 else f"after block {layer}",
        "resid_mid": f"middle of block {block}, after attention",
        "resid_post": f"after block {block}",
        "attn_out": f"attention output of block {block}",
        "mlp_out": f"MLP output of block {block}",
        "final_norm": "after the final norm",
    }[hook_name]
