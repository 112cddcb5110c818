"""A corpus that does not fit into memory: its activations go to the disk while they are read, for as long as needed."""

from __future__ import annotations

import os
import secrets
import shutil
import weakref
from typing import TYPE_CHECKING

import psutil

from sae_widget.autosave import autosave_folder
from sae_widget.checkpoint import SaeFileError
from sae_widget.data import ModelActivations, ShardedActivations, TextPieces, write_store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sae_widget.activations.base import Activations, LanguageModel

NAME = "activations"
MOST_BUFFER, SHARE = 256_000_000, 0.25  # bytes of rows that a trainer holds, and of what is free


class LargeCorpus:
    """What is trained on in place of activations in memory; its files go when nobody holds it any more.

    Args:
        model: the language model.
        texts: the pieces of the corpus.
        layer: of the read point.
        hook_name: of the read point.
        prepend_bos: read each window behind the start token.
        max_tokens: how much of it is taken.
        free: bytes of memory that may be used.
    """

    def __init__(
        self,
        model: LanguageModel,
        texts: TextPieces,
        layer: int,
        hook_name: str,
        *,
        prepend_bos: bool,
        max_tokens: int,
        free: int,
    ) -> None:
        rows = max(1, int(min(MOST_BUFFER, SHARE * free)) // (4 * model.d_in))
        place = model, texts, layer, hook_name
        self.source: ModelActivations | ShardedActivations = ModelActivations(
            *place, prepend_bos=prepend_bos, max_tokens=max_tokens, buffer_tokens=rows
        )
        self.words = ""
        self._folder: Path | None = None

    def write(self) -> Iterator[int]:
        """Write the activations to the disk, some thousand tokens at a time; yields how many are written.

        A writing that was ended goes on where it was. Where the disk has no room or cannot be written, they will
        be computed again in each epoch.
        """
        source = self.source
        if isinstance(source, ShardedActivations):
            return
        if self._folder is None:
            self._folder = _new_folder()
            weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        folder = self._folder
        try:
            yield from write_store(source, folder, corpus="", digest="", dtype="bfloat16")
            self.source = ShardedActivations(folder, source.buffer_tokens)
            self.words = "The corpus does not fit into memory, so its activations are read from the disk."
        except SaeFileError:
            shutil.rmtree(folder, ignore_errors=True)
            self.words = (
                "The corpus fits neither into memory nor on the disk, so its activations are computed as they are "
                "needed: slower, and the same otherwise."
            )


def _new_folder() -> Path:
    """A folder for one corpus; those of processes that ended without removing theirs are removed."""
    parent = autosave_folder().with_name(NAME)
    for old in parent.glob("*-*") if parent.is_dir() else ():
        number = old.name.split("-")[0]
        if number.isdecimal() and not psutil.pid_exists(int(number)):
            shutil.rmtree(old, ignore_errors=True)
    return parent / f"{os.getpid()}-{secrets.token_hex(8)}"


def first_parts(parts: list[Activations], n_tokens: int) -> list[Activations]:
    """The first records, those that begin within so many tokens."""
    kept: list[Activations] = []
    total = 0
    for part in parts:
        if kept and total + part.n_tokens > n_tokens:
            break
        kept.append(part)
        total += part.n_tokens
    return kept
