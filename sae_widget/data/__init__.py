"""Corpora as activations: in memory, streamed through the model, or written to a disk once."""

from sae_widget.data.corpus import Enough, open_corpus
from sae_widget.data.pieces import PIECE_CHARS, PIECES_AT_ONCE, concatenate, pieces, read_corpus
from sae_widget.data.store import ShardedActivations, write_store
from sae_widget.data.stream import ModelActivations
from sae_widget.data.texts import TextPieces

__all__ = [
    "PIECES_AT_ONCE",
    "PIECE_CHARS",
    "Enough",
    "ModelActivations",
    "ShardedActivations",
    "TextPieces",
    "concatenate",
    "open_corpus",
    "pieces",
    "read_corpus",
    "write_store",
]
