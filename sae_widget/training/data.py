"""From activations to batches: which rows are read, their scale, their median, their order."""

from __future__ import annotations

import math

import numpy as np
import torch

from sae_widget.training.base import first

MEDIAN_ROWS = 8192
EVALUATION_ROWS = 2048


def check_activations(values: torch.Tensor, position: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The activations as contiguous float32 and their positions as int64, or a sentence.

    Args:
        values: ``[n, d_in]`` floating point; half precision is converted.
        position: ``[n]`` integers, the place of each row in its window.

    Raises:
        TypeError: not tensors of numbers.
        ValueError: wrong shapes, or a value that is not finite.
    """
    for name, tensor in (("values", values), ("position", position)):
        if not isinstance(tensor, torch.Tensor):
            raise TypeError(f"{name} must be a torch tensor, got {type(tensor).__name__}")
    if not values.is_floating_point():
        raise TypeError(f"values must be floating point, got {values.dtype}")
    if values.ndim != 2 or values.shape[1] == 0:
        raise ValueError(f"values must be [n_tokens, d_in], got shape {list(values.shape)}")
    if position.shape != values.shape[:1]:
        raise ValueError(f"position must be [{values.shape[0]}] like values, got shape {list(position.shape)}")
    values = values.detach().to(device="cpu", dtype=torch.float32).contiguous()
    if not bool(torch.isfinite(values.sum())) and not bool(torch.isfinite(values).all()):
        row = int((~torch.isfinite(values).all(dim=1)).nonzero()[0])
        raise ValueError(
            f"The activations are not finite: the first NaN or infinite value is in token {row:,}. "
            "Nothing was trained; read the text again, with the model in float32."
        )
    return values, position.detach().to(device="cpu", dtype=torch.int64)


def kept_rows(position: torch.Tensor, skip_first: bool) -> torch.Tensor:
    """The rows that are trained on. ``[n_kept]``; ``ValueError`` when fewer than two are left."""
    rows = (position != 0).nonzero()[:, 0] if skip_first else torch.arange(len(position))
    if len(rows) < 2:
        where = " besides the first of each text" if skip_first and len(position) else ""
        raise ValueError(
            f"not enough activations: {len(rows)}{where}, need at least 2. Nothing was trained; give a longer text."
        )
    return rows


def fixed_scale(values: torch.Tensor, rows: torch.Tensor, at_once: int = 16384) -> float:
    """The scalar that brings the mean norm of these rows to sqrt(d_in), exactly a float32; 1 for all zeros."""
    total = sum(float(values[part].norm(dim=1).sum()) for part in rows.split(at_once))
    mean = total / len(rows)
    if mean < 1e-30:
        return 1.0
    return float(torch.tensor(math.sqrt(values.shape[1]) / mean, dtype=torch.float32))


def geometric_median(x: torch.Tensor, steps: int = 50) -> torch.Tensor:
    """The point with the smallest summed distance to the rows (Weiszfeld's iteration).

    Distances are kept away from zero, so that a guess that meets a row does not divide by it.

    Args:
        x: ``[n, d_in]``, at least one row.
        steps: most iterations.

    Returns:
        ``[d_in]``.
    """
    guess = x.mean(0)
    spread = float(_distances(x, guess).mean())
    if spread < 1e-12:
        return guess
    for _ in range(steps):
        weight = 1.0 / _distances(x, guess).clamp_min(1e-6 * spread)
        new = weight @ x / weight.sum()
        moved = float((new - guess).norm())
        guess = new
        if moved < 1e-6 * spread:
            break
    return guess


def _distances(x: torch.Tensor, point: torch.Tensor) -> torch.Tensor:
    """Of each row from a point, without a second copy of all rows. ``[n]``."""
    return torch.cat([(part - point).norm(dim=1) for part in x.split(1024)])


def sample_rows(rows: torch.Tensor, count: int, seed: int) -> torch.Tensor:
    """At most ``count`` of ``rows``, without replacement, in rising order; always the same for one seed."""
    if len(rows) <= count:
        return rows
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
    return rows[order[:count].sort().values]


def evaluation_rows(position: torch.Tensor, seed: int) -> torch.Tensor:
    """A fixed sample of all rows with the share of first positions that the data have. ``[<= 2048]``."""
    first, rest = (position == 0).nonzero()[:, 0], (position != 0).nonzero()[:, 0]
    n = len(position)
    if n <= EVALUATION_ROWS:
        return torch.arange(n)
    wanted = min(len(first), max(1, round(EVALUATION_ROWS * len(first) / n)))
    chosen = [sample_rows(first, wanted, seed), sample_rows(rest, EVALUATION_ROWS - wanted, seed)]
    return torch.cat(chosen).sort().values


def effective_batch(n_rows: int, batch_size: int) -> int:
    """Rows in a batch when there are ``n_rows``: 0 or more than there is means all."""
    return n_rows if batch_size == 0 else min(batch_size, n_rows)


class Gathered:
    """Chosen rows in a buffer that is made once: a new one would be mapped anew each time, page by page.

    Args:
        values: ``[n, d_in]``, on the CPU; may change between two calls.
    """

    def __init__(self, values: torch.Tensor) -> None:
        self._values, self._rows = values.numpy(), values[:0]

    def take(self, chosen: np.ndarray) -> torch.Tensor:
        """The rows of these numbers, good until the next call. ``[n_chosen, d_in]``."""
        n = len(chosen)
        if self._rows.shape[0] < n:
            self._rows = torch.empty(n, self._values.shape[1], dtype=torch.float32)
            self._array = self._rows.numpy()
        # One thread copies as fast as memory is, and waits for no other; "clip" writes without a second buffer.
        self._values.take(chosen, 0, self._array[:n], "clip")
        return first(self._rows, n)


class Batches:
    """Batches of row numbers without replacement, epoch after epoch, from an own generator.

    An epoch's rest that does not fill a batch is left out; each epoch has another order, so that none is
    left out for good. A batch as large as the data is the data in its own order.
    """

    def __init__(self, n_rows: int, batch_size: int, seed: int) -> None:
        self.n_rows = n_rows
        self.generator = torch.Generator().manual_seed(seed)
        self.order = torch.arange(n_rows)  # [n_rows], this epoch's
        self.cursor = n_rows  # how many of them have been read
        self.resize(batch_size)

    def resize(self, batch_size: int) -> None:
        """Change the batch size from the next batch on; 0 or more than there is takes all rows."""
        self.batch_size = effective_batch(self.n_rows, batch_size)
        if self.full:
            self.order, self.cursor = torch.arange(self.n_rows), self.n_rows

    @property
    def full(self) -> bool:
        """Whether every batch is the whole data."""
        return self.batch_size == self.n_rows

    def next(self, count: int = 1) -> slice:
        """Where the next batches are in ``order``, which may be another after this call."""
        if self.full:
            return slice(0, self.n_rows)
        if self.cursor + self.batch_size > self.n_rows:
            self.order = torch.randperm(self.n_rows, generator=self.generator)
            self.cursor = 0
        self.cursor += count * self.batch_size
        return slice(self.cursor - count * self.batch_size, self.cursor)

    def undo(self, count: int = 1) -> None:
        """Give the last batches again from the next call on: their steps were not applied."""
        self.cursor -= count * self.batch_size
