"""Batches of a corpus that does not fit into memory: some blocks of it at a time, shuffled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeGuard

import torch

from sae_widget.training import data
from sae_widget.training.filters import LeftOut, held_out_of_block, norm_cutoff, seeded, split

if TYPE_CHECKING:
    from sae_widget.config import TrainConfig

BUFFER_BYTES = 256_000_000  # of float32 rows that are held at once, unless something else is asked for
HELD_ROWS = 8192  # most rows that are kept for validation
NO_ROWS = torch.empty(0, dtype=torch.int64)


class ActivationSource(Protocol):
    """A corpus of activations in blocks that can be loaded one by one, again and again."""

    n_tokens: int
    """Tokens of all blocks; may be an estimate."""
    d_in: int
    n_blocks: int
    block_tokens: int
    """Most tokens of a block; rows beyond it may be passed over."""
    buffer_tokens: int | None
    """Rows that are held at once; None takes ``BUFFER_BYTES`` of them."""

    def load(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Values ``[n, d_in]`` floating point and position ``[n]`` of a block, which begins with a window."""

    def whole(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Values and position of all blocks, for a corpus that is small."""


def is_source(given: Any) -> TypeGuard[ActivationSource]:
    """Whether this is a corpus in blocks and not a tensor."""
    return not isinstance(given, torch.Tensor) and all(hasattr(given, name) for name in ("n_blocks", "load"))


def buffer_rows(source: ActivationSource) -> int:
    """How many rows of a corpus are held at once."""
    return source.buffer_tokens or max(1, BUFFER_BYTES // (4 * source.d_in))


class BlockFeed:
    """A ``Feed`` of a corpus in blocks; at no time are more than ``buffer_tokens`` rows and one block held.

    The blocks of an epoch come in a random order, as many at a time as the buffer holds; their rows are shuffled
    and given out without replacement. What is left of them and fills no batch is passed over until the next epoch,
    whose order is another. Everything follows from the seed and three numbers: epoch, place in it, rows given out.

    Scale, median, the cutoff of norms and the tokens that are measured on come from the first buffer.

    Args:
        source: the corpus.
        config: which rows are left out, batch size and seed.

    Raises:
        ValueError: activations that are not finite, or a batch that the buffer does not hold.
    """

    full = False

    def __init__(self, source: ActivationSource, config: TrainConfig) -> None:
        self.source, self.config = source, config
        self.n_tokens, self.d_in = source.n_tokens, source.d_in
        self.capacity = max(buffer_rows(source), source.block_tokens)
        self.n_places = max(1, -(-source.n_blocks // max(1, self.capacity // source.block_tokens)))
        self.epoch, self.place, self.cursor = 0, 0, 0
        self.counts = torch.zeros(source.n_blocks, 4, dtype=torch.int64)  # tokens, and those of LeftOut
        self._loaded: tuple[int, int] | None = None
        self._values = torch.empty(self.capacity, self.d_in, dtype=torch.float32)
        self._gathered = data.Gathered(self._values)
        self._position = torch.empty(self.capacity, dtype=torch.int64)
        self._held = torch.zeros(self.capacity, dtype=torch.bool)  # rows of held-out windows
        self._order = self._chosen = torch.empty(0, dtype=torch.int64)
        self._look_at_the_first()
        self.batch_size = self.effective(config.batch_size)

    def effective(self, batch_size: int) -> int:
        """Rows of a batch when so many are asked for."""
        held = len(self._order)
        if 0 < batch_size <= held:
            return batch_size
        asked = f"batch_size {batch_size:,}" if batch_size else "batch_size 0 (all tokens)"
        raise ValueError(
            f"{asked} does not fit: {held:,} tokens of this corpus are held at a time. "
            f"Nothing was changed; choose a batch size of at most {held:,}, or a larger buffer_tokens."
        )

    def resize(self, batch_size: int) -> None:
        """Change the batch size from the next batch on."""
        self.batch_size = self.effective(batch_size)

    def next(self, count: int = 1) -> torch.Tensor:
        """The next batch, or some; now and then it reads the next blocks first."""
        self._fill()
        for _ in range(2 * self.n_places + 1):
            if self.cursor + self.batch_size <= len(self._order):
                self._chosen = self._order[self.cursor : self.cursor + count * self.batch_size]
                rows = self._gathered.take(self._chosen.numpy())
                self.cursor += count * self.batch_size
                return rows
            self.place, self.cursor = self.place + 1, 0
            if self.place == self.n_places:
                self.epoch, self.place = self.epoch + 1, 0
            self._fill()
        raise ValueError(f"no {self.batch_size:,} tokens are held at once any more; choose a smaller batch size.")

    def places(self) -> torch.Tensor:
        """Of the rows that were given last."""
        return self._position.index_select(0, self._chosen)

    def left(self) -> int:
        """How many come of the rows that are held."""
        return (len(self._order) - self.cursor) // self.batch_size if self._loaded == (self.epoch, self.place) else 0

    def undo(self, count: int = 1) -> None:
        """Give the last batches again."""
        self.cursor -= count * self.batch_size

    def everything(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Not of this feed."""
        raise ValueError("a corpus in blocks is never in memory as a whole")

    def scale(self) -> float:
        """From the mean norm of the rows of the first buffer."""
        return self._scale

    def sample(self, count: int, seed: int) -> torch.Tensor:
        """Of the rows that are held: the first buffer's, for a feed that was just made."""
        self._fill()
        return self._values.index_select(0, data.sample_rows(self._order, count, seed))

    def evaluation(self, seed: int) -> torch.Tensor:
        """Of the first blocks."""
        return self._evaluation

    def validation(self, count: int) -> torch.Tensor:
        """Of the held-out rows of the first buffer."""
        return self._validation[:count]

    def left_out(self) -> LeftOut:
        """Of the blocks that were read so far."""
        so_far = bool((self.counts[:, 0] == 0).any())
        return LeftOut(self.config.max_norm_multiple, *self.counts.sum(0).tolist(), so_far=so_far)

    def state(self) -> dict[str, torch.Tensor]:
        """Where in which epoch it is, and what was left out so far."""
        return {
            "feed": torch.tensor([self.epoch, self.place, self.cursor, self.capacity]),
            "left_out": self.counts.clone(),
        }

    def load_state(self, state: dict[str, torch.Tensor]) -> None:
        """Go on from a ``state``; the blocks are read at the next batch."""
        epoch, place, cursor, capacity = (int(n) for n in state["feed"])
        if capacity != self.capacity:
            raise ValueError(
                f"This state is of a run that held {capacity:,} tokens at a time, this one holds {self.capacity:,}: "
                f"open the corpus with buffer_tokens={capacity}. The run stays as it was."
            )
        self.epoch, self.place, self.cursor = epoch, place, cursor
        self.counts = state["left_out"].clone()

    def _blocks(self) -> list[int]:
        """The blocks of this place, in the order in which they are read."""
        order = torch.randperm(self.source.n_blocks, generator=seeded(self.config.seed, self.epoch))
        return [int(block) for block in order.tensor_split(self.n_places)[self.place]]

    def _fill(self) -> None:
        """Hold the blocks of this place, unless they are held already."""
        if self._loaded != (self.epoch, self.place):
            self._choose(self._read())

    def _read(self) -> list[tuple[int, slice]]:
        """Read the blocks of this place into the buffer; which rows of it are whose."""
        self._loaded, at, found = None, 0, []
        for block in self._blocks():
            values, position = self.source.load(block)
            n = min(len(values), self.capacity - at)
            if values.shape[1:] != (self.d_in,):
                raise ValueError(f"block {block} must be [n, {self.d_in}], got shape {list(values.shape)}")
            rows = slice(at, at + n)
            self._values[rows], self._position[rows] = values[:n], position[:n]
            share, seed = self.config.validation_share, self.config.seed
            self._held[rows] = held_out_of_block(self._position[rows], share, seed, block)
            if not bool(torch.isfinite(self._values[rows].sum())):
                data.check_activations(self._values[rows], self._position[rows])  # says which token of the block
            found.append((block, rows))
            at += n
        self._loaded = (self.epoch, self.place)
        return found

    def _choose(self, found: list[tuple[int, slice]]) -> torch.Tensor:
        """Shuffle the rows that are trained on; the held-out ones are returned."""
        config, kept, held = self.config, [NO_ROWS], [NO_ROWS]
        for block, rows in found:
            parts = self._values[rows], self._position[rows], self._held[rows]
            own, out, counts = split(*parts, skip_first=config.skip_first, cutoff=self._cutoff)
            kept.append(own + rows.start)
            held.append(out + rows.start)
            self.counts[block] = torch.tensor([rows.stop - rows.start, *counts])
        every = torch.cat(kept)
        generator = seeded(config.seed, self.epoch, self.place)
        self._order = every[torch.randperm(len(every), generator=generator)]
        return torch.cat(held)

    def _look_at_the_first(self) -> None:
        """Fill the buffer for the first time, and take from it what is decided once."""
        config, found = self.config, self._read()
        n = found[-1][1].stop if found else 0
        self._cutoff = norm_cutoff(self._values[:n], self._position[:n], config.max_norm_multiple)
        held = self._choose(found)
        if len(self._order) < 2:
            raise ValueError(
                f"not enough activations: {len(self._order)} of the first {n:,} tokens are left, need at least 2. "
                "Nothing was trained; give a longer text."
            )
        if config.validation_share and not len(held):
            raise ValueError(
                f"validation_share {config.validation_share:g} chose none of the first {n:,} tokens. "
                "Nothing was trained; raise it, or buffer_tokens."
            )
        self.n_kept = max(2, round(self.n_tokens * len(self._order) / n))
        self._scale = data.fixed_scale(self._values, self._order, at_once=2048)
        self._validation = self._values.index_select(0, data.sample_rows(held, HELD_ROWS, config.seed))
        rest = (~self._held[:n]).nonzero()[:, 0]
        chosen = rest[data.evaluation_rows(self._position[rest], config.seed)]
        self._evaluation = self._values.index_select(0, chosen)
