"""What an engine is fed with: batches of activations that are all in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import torch

from sae_widget.memory import check_buffer
from sae_widget.training import data
from sae_widget.training.blocks import ActivationSource, BlockFeed, buffer_rows, is_source
from sae_widget.training.filters import LeftOut, held_out, norm_cutoff, split

if TYPE_CHECKING:
    from sae_widget.config import TrainConfig


class Feed(Protocol):
    """Batches of unscaled activations, and samples of them; the same for one seed, and after a resume."""

    n_tokens: int
    """All tokens, also those that are left out."""
    n_kept: int
    """Tokens of an epoch; an estimate where they are not all in memory."""
    d_in: int

    @property
    def batch_size(self) -> int:
        """Rows of a batch."""

    @property
    def full(self) -> bool:
        """Whether every batch is the whole data."""

    def effective(self, batch_size: int) -> int:
        """Rows of a batch when so many are asked for; ``ValueError`` when they cannot be had."""

    def resize(self, batch_size: int) -> None:
        """Change the batch size from the next batch on."""

    def next(self, count: int = 1) -> torch.Tensor:
        """The next batch, ``[batch, d_in]`` float32: the caller's to change, and good until the next call.

        Args:
            count: so many batches, one behind the other; more than one where that many are ``left``.
        """

    def places(self) -> torch.Tensor:
        """The place in its window of each row that was given last. ``[batch]``."""

    def left(self) -> int:
        """How many batches can be taken at once, and given back by one ``undo``."""

    def undo(self, count: int = 1) -> None:
        """Give the last batches again from the next call on: their steps were not applied."""

    def everything(self) -> tuple[torch.Tensor, torch.Tensor]:
        """All kept rows and their places; only where ``full`` can be. ``[n_kept, d_in]``, ``[n_kept]``."""

    def scale(self) -> float:
        """The scalar that brings the mean norm of the kept rows to sqrt(d_in)."""

    def sample(self, count: int, seed: int) -> torch.Tensor:
        """At most ``count`` kept rows. ``[<= count, d_in]``."""

    def evaluation(self, seed: int) -> torch.Tensor:
        """At most 2,048 tokens, position 0 among them in its share. ``[<= 2048, d_in]``."""

    def validation(self, count: int) -> torch.Tensor:
        """At most ``count`` held-out tokens, none of position 0; no rows where nothing is held out."""

    def left_out(self) -> LeftOut:
        """What is not trained on."""

    def state(self) -> dict[str, torch.Tensor]:
        """What the next batch depends on, as own copies."""

    def load_state(self, state: dict[str, torch.Tensor]) -> None:
        """Go on from a ``state`` of a feed of the same data and settings."""


def make_feed(values: torch.Tensor | ActivationSource, position: torch.Tensor | None, config: TrainConfig) -> Feed:
    """The feed of activations in memory, or of a corpus in blocks; one that fits into its buffer is loaded whole.

    Raises:
        TypeError: neither of them, or a corpus with a ``position`` of its own.
        ValueError: what the feed refuses, or a buffer that does not fit into memory.
    """
    if not is_source(values):
        return MemoryFeed(values, position, config)  # type: ignore[arg-type]  # it checks both
    if position is not None:
        raise TypeError("a corpus in blocks has its own position: leave it out")
    rows = buffer_rows(values)
    check_buffer(values.d_in, min(rows, values.n_tokens))
    if values.n_tokens <= rows:
        return MemoryFeed(*values.whole(), config)
    return BlockFeed(values, config)


class MemoryFeed:
    """A ``Feed`` of activations that are given as tensors.

    Args:
        values: ``[n, d_in]`` activations; kept, never changed.
        position: ``[n]`` place of each row in its window.
        config: which rows are left out, batch size and seed.

    Raises:
        TypeError: not tensors of numbers.
        ValueError: wrong shapes, not finite, too few rows.
    """

    def __init__(self, values: torch.Tensor, position: torch.Tensor, config: TrainConfig) -> None:
        self.values, self.position = data.check_activations(values, position)
        self.n_tokens, self.d_in = self.values.shape
        data.kept_rows(self.position, config.skip_first)  # says it in its own words when these are too few
        held = held_out(self.position, config.validation_share, config.seed)
        cutoff = norm_cutoff(self.values, self.position, config.max_norm_multiple)
        self.rows, self.held, counts = split(
            self.values, self.position, held, skip_first=config.skip_first, cutoff=cutoff
        )
        self._left_out = LeftOut(config.max_norm_multiple, self.n_tokens, *counts)
        self.n_kept = len(self.rows)
        if self.n_kept < 2:
            raise ValueError(
                f"not enough activations: {self.n_kept}, need at least 2. {self._left_out} "
                "Nothing was trained; give a longer text."
            )
        self._watched = (~held).nonzero()[:, 0]
        self.batches = data.Batches(self.n_kept, config.batch_size, config.seed)
        self._gathered = data.Gathered(self.values)
        self._shuffled_by: torch.Tensor | None = None  # the order of ``batches`` in which the next two are
        self._shuffled = self.rows.numpy()
        self._part = slice(0, 0)  # of ``_shuffled``, where the last batch is

    @property
    def batch_size(self) -> int:
        """Rows of a batch."""
        return self.batches.batch_size

    @property
    def full(self) -> bool:
        """Whether every batch is the whole data."""
        return self.batches.full

    def effective(self, batch_size: int) -> int:
        """Rows of a batch when so many are asked for; 0 takes all."""
        return data.effective_batch(self.n_kept, batch_size)

    def resize(self, batch_size: int) -> None:
        """Change the batch size from the next batch on."""
        self.batches.resize(batch_size)

    def next(self, count: int = 1) -> torch.Tensor:
        """The next batch, or some."""
        batches = self.batches
        self._part = batches.next(count)
        if batches.order is not self._shuffled_by:
            self._shuffled_by = batches.order
            self._shuffled = self.rows.numpy().take(batches.order.numpy())
        if self.full:
            return self.values.index_select(0, self.rows)
        try:
            return self._gathered.take(self._shuffled[self._part])
        except BaseException:
            self.undo(count)
            raise

    def places(self) -> torch.Tensor:
        """Of the rows that were given last."""
        return self.position.index_select(0, torch.from_numpy(self._shuffled[self._part]))

    def left(self) -> int:
        """How many come of this epoch."""
        return (self.n_kept - self.batches.cursor) // self.batch_size

    def undo(self, count: int = 1) -> None:
        """Give the last batches again."""
        if not self.full:
            self.batches.undo(count)

    def everything(self) -> tuple[torch.Tensor, torch.Tensor]:
        """All kept rows and their places."""
        return self.values.index_select(0, self.rows), self.position[self.rows]

    def scale(self) -> float:
        """From the mean norm of all kept rows."""
        return data.fixed_scale(self.values, self.rows)

    def sample(self, count: int, seed: int) -> torch.Tensor:
        """Of all kept rows."""
        return self.values.index_select(0, data.sample_rows(self.rows, count, seed))

    def evaluation(self, seed: int) -> torch.Tensor:
        """Of all rows that are not held out."""
        rows = data.evaluation_rows(self.position[self._watched], seed)
        return self.values.index_select(0, self._watched[rows])

    def validation(self, count: int) -> torch.Tensor:
        """Of all held-out rows."""
        return self.values.index_select(0, data.sample_rows(self.held, count, 0))

    def left_out(self) -> LeftOut:
        """Of all tokens."""
        return self._left_out

    def state(self) -> dict[str, torch.Tensor]:
        """The order of the epoch, how far it is read, and what the next order comes from."""
        cursor = torch.tensor([self.batches.cursor])
        state = {"order": self.batches.order, "generator": self.batches.generator.get_state(), "cursor": cursor}
        return {name: tensor.clone() for name, tensor in state.items()}

    def load_state(self, state: dict[str, torch.Tensor]) -> None:
        """Go on from a ``state``."""
        try:
            self.batches.generator.set_state(state["generator"])
        except RuntimeError as error:
            raise ValueError("This state is damaged: its generator is none. The run stays as it was.") from error
        self.batches.order = state["order"].clone()
        self.batches.cursor = int(state["cursor"])
