"""Which tokens are trained on: first positions, norm outliers and held-out windows, and how many each left out."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch

HELD_SEED = 0x7A11DA7E  # the order of the batches comes from the seed itself
NORM_ROWS = 16384  # rows at a time, so that no second copy of the activations is made


@dataclass(frozen=True)
class LeftOut:
    """How many tokens were not trained on, and why; each is counted once, in this order."""

    multiple: float  # of the median norm, above which a token is an outlier
    tokens: int  # that were looked at
    first: int = 0  # position 0 of a window
    outliers: int = 0  # a norm far above the others'
    held_out: int = 0  # in a window that is kept for validation
    so_far: bool = field(default=False, kw_only=True)  # whether not all of the corpus was looked at

    def __str__(self) -> str:
        """In words; nothing when all tokens were taken."""
        parts = [
            _counted(self.first, "first position"),
            f"{self.outliers:,} with more than {self.multiple:g} times the median norm" if self.outliers else "",
            f"{self.held_out:,} held out for validation" if self.held_out else "",
        ]
        told = ", ".join(part for part in parts if part)
        total = self.first + self.outliers + self.held_out
        of = f"the {self.tokens:,} tokens read so far" if self.so_far else f"{self.tokens:,} tokens"
        return f"{total:,} of {of} left out: {told}." if told else ""


def _counted(count: int, thing: str) -> str:
    return f"{count:,} {thing}{'' if count == 1 else 's'}" if count else ""


def norms_of(values: torch.Tensor) -> torch.Tensor:
    """The norm of each row. ``[n]``."""
    return torch.cat([part.norm(dim=1) for part in values.split(NORM_ROWS)]) if len(values) else values.new_empty(0)


def norm_cutoff(values: torch.Tensor, position: torch.Tensor, multiple: float) -> float:
    """The largest norm that is trained on: ``multiple`` times the median of all tokens behind position 0.

    Args:
        values: ``[n, d_in]``.
        position: ``[n]``.
        multiple: 0 takes every norm, and so does a median of 0, of which nothing can be said.
    """
    rest = norms_of(values)[position != 0]
    median = float(rest.median()) if multiple > 0 and len(rest) else 0.0
    return multiple * median if median > 0 else math.inf


def window_numbers(position: torch.Tensor) -> torch.Tensor:
    """Which window each row is in, from 0: one begins at each position 0. ``[n]``.

    Where there is no position 0 at all the rows are no text, and each is a window.
    """
    starts = position == 0
    if not bool(starts.any()):
        return torch.arange(len(position))
    numbers = starts.cumsum(0)
    return numbers - numbers[0]


def held_out(position: torch.Tensor, share: float, seed: int) -> torch.Tensor:
    """Rows of the windows that are kept for validation, chosen by the seed. ``[n]`` bool.

    Args:
        position: ``[n]`` of all activations.
        share: of the windows; at least one is kept out and at least one is left.
        seed: which of them.

    Raises:
        ValueError: there is one window only.
    """
    if not share:
        return torch.zeros(len(position), dtype=torch.bool)
    numbers = window_numbers(position)
    count = int(numbers[-1]) + 1 if len(numbers) else 0
    if count < 2:
        raise ValueError(
            f"validation_share {share:g} needs at least 2 texts or windows, there is {count}. "
            "Nothing was trained; give more text, or validation_share=0."
        )
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed ^ HELD_SEED))
    chosen = torch.zeros(count, dtype=torch.bool)
    chosen[order[: min(count - 1, max(1, round(share * count)))]] = True
    return chosen[numbers]


def held_out_of_block(position: torch.Tensor, share: float, seed: int, block: int) -> torch.Tensor:
    """The same for one block of a corpus: each of its windows by a throw of its own. ``[n]`` bool."""
    if not share or not len(position):
        return torch.zeros(len(position), dtype=torch.bool)
    numbers = window_numbers(position)
    throws = torch.rand(int(numbers[-1]) + 1, generator=seeded(seed ^ HELD_SEED, block))
    return (throws < share)[numbers]


def split(
    values: torch.Tensor, position: torch.Tensor, held: torch.Tensor, *, skip_first: bool, cutoff: float
) -> tuple[torch.Tensor, torch.Tensor, list[int]]:
    """Rows to train on, rows to validate on, and the three counts of ``LeftOut``.

    Args:
        values: ``[n, d_in]``.
        position: ``[n]``.
        held: ``[n]`` bool, rows of the held-out windows.
        skip_first: leave position 0 out.
        cutoff: the largest norm of a token behind position 0.

    Returns:
        ``[n_kept]`` and ``[n_held]`` row numbers, rising; position 0 is never validated on.
    """
    first = position == 0
    outlier = torch.zeros_like(first)
    if math.isfinite(cutoff):
        outlier = (norms_of(values) > cutoff) & ~first
    skipped = first if skip_first else torch.zeros_like(first)
    kept = ~(skipped | outlier | held)
    counts = [skipped, outlier, held & ~skipped & ~outlier]
    return kept.nonzero()[:, 0], (held & ~first & ~outlier).nonzero()[:, 0], [int(c.sum()) for c in counts]


def seeded(*numbers: int) -> torch.Generator:
    """A generator of its own for each row of numbers."""
    mixed = 0x9E3779B97F4A7C15
    for number in numbers:  # splitmix64's finish: near numbers give far seeds
        mixed = (mixed ^ number) * 0xBF58476D1CE4E5B9 % 2**64
        mixed = (mixed ^ (mixed >> 27)) * 0x94D049BB133111EB % 2**64
        mixed ^= mixed >> 31
    return torch.Generator().manual_seed(mixed % 2**63)
