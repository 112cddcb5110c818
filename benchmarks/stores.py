"""Stores of synthetic activations, written by the same code as those of a model."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from benchmarks.samples import sparse_combinations
from sae_widget.data import write_store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PART = 16_384  # tokens that are made at a time


class Synthetic:
    """What ``write_store`` asks of a model with its texts."""

    def __init__(self, n_tokens: int, d_in: int) -> None:
        self.n_tokens = self.max_tokens = n_tokens
        self.d_in, self.layer, self.hook_name, self.prepend_bos = d_in, 0, "resid_pre", True
        self.model = SimpleNamespace(name="synthetic")

    def parts(self, n_tokens: int, *, first_text: int) -> Iterator[Any]:
        """Some thousand tokens at a time; the numbers of the parts are their seeds."""
        for number, start in enumerate(range(0, n_tokens, PART), first_text):
            sample = sparse_combinations(min(PART, n_tokens - start), self.d_in, n_true=256, seed=number)
            yield SimpleNamespace(values=sample.values, position=sample.position, n_tokens=len(sample.values))


def write_synthetic(folder: Path, n_tokens: int, d_in: int) -> None:
    """Write a store of so many tokens, in float16."""
    for _ in write_store(Synthetic(n_tokens, d_in), folder, corpus="synthetic", digest="synthetic", dtype="float16"):
        pass
