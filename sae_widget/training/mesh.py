"""The processes that train one SAE together: what each has to know of its fellows, over Accelerate.

Every process holds the same weights and draws the same batches; of each batch it takes the rows
``[rank::size]``. Gradients and losses are averaged, so that the run is the one that a single process would do.
"""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Any

import torch

from sae_widget.metrics import variance_share

if TYPE_CHECKING:
    from collections.abc import Callable

EXTRA = "pip install 'sae-widget[distributed]'"


class MeshFault(Exception):
    """Another process of the run is gone; the step in which that was seen was applied as a whole, or not at all."""

    def __init__(self) -> None:
        super().__init__("A process of this run has died, so the others ended too.")


class Alone:
    """A run in one process: there is nobody to talk to, and nothing of this costs anything."""

    rank, size = 0, 1

    def sum_(self, tensor: torch.Tensor) -> torch.Tensor:
        """The sum over all processes, in place. Same shape and dtype in every process; so for the others."""
        return tensor

    def mean_(self, tensor: torch.Tensor) -> torch.Tensor:
        """The mean over all processes, in place."""
        return tensor

    def gather(self, tensor: torch.Tensor) -> torch.Tensor:
        """What every process gave, in the order of ranks. ``[size, ...]``."""
        return tensor.unsqueeze(0)

    def same_(self, tensor: torch.Tensor) -> torch.Tensor:
        """What the first process gave, in place: for whatever is drawn or measured at the start."""
        return tensor

    def part(self, rows: torch.Tensor) -> torch.Tensor:
        """The rows of a batch ``[n, ...]`` that this process takes: ``[rank::size]``."""
        return rows

    def count(self, n: int) -> int:
        """How many rows of a batch of ``n`` this process takes."""
        return n

    def any(self, wish: bool) -> bool:
        """Whether any process wishes so; all of them get the same answer."""
        return wish

    def close(self) -> None:
        """End the connections."""


ALONE = Alone()


class Group(Alone):
    """One of several processes that a launcher started (``torchrun``, ``accelerate launch``).

    Args:
        cpu: talk through the CPU (gloo), wherever a GPU is.

    Raises:
        ImportError: Accelerate is not installed, with how to get it.
        MeshFault: here and in every other method: another process is gone.
    """

    made = 0  # how many of them this process has had

    def __init__(self, *, cpu: bool = True) -> None:
        try:
            from accelerate import Accelerator
        except ImportError as error:
            raise ImportError(
                f"Several processes train together through Accelerate, which is missing: {EXTRA}"
            ) from error
        self._accelerator = _talk(lambda: Accelerator(cpu=cpu))
        self.rank, self.size = self._accelerator.process_index, self._accelerator.num_processes
        Group.made += 1

    def sum_(self, tensor: torch.Tensor) -> torch.Tensor:
        """The sum over all processes, in place."""
        return tensor.copy_(_talk(lambda: self._accelerator.reduce(tensor, "sum")))

    def mean_(self, tensor: torch.Tensor) -> torch.Tensor:
        """The mean over all processes, in place."""
        return tensor.copy_(_talk(lambda: self._accelerator.reduce(tensor, "mean")))

    def gather(self, tensor: torch.Tensor) -> torch.Tensor:
        """What every process gave, in the order of ranks. ``[size, ...]``."""
        return _talk(lambda: self._accelerator.gather(tensor.unsqueeze(0).contiguous()))

    def same_(self, tensor: torch.Tensor) -> torch.Tensor:
        """What the first process gave, in place."""
        return self.sum_(tensor if self.rank == 0 else tensor.zero_())

    def part(self, rows: torch.Tensor) -> torch.Tensor:
        """The rows of a batch ``[n, ...]`` that this process takes: ``[rank::size]``."""
        return rows[self.rank :: self.size]

    def count(self, n: int) -> int:
        """How many rows of a batch of ``n`` this process takes.

        Raises:
            ValueError: one of the processes would have none.
        """
        if n < self.size:
            raise ValueError(f"batch_size must be at least {self.size} for so many processes, got {n:,}")
        return len(range(self.rank, n, self.size))

    def any(self, wish: bool) -> bool:
        """Whether any process wishes so; all of them get the same answer."""
        return bool(self.sum_(torch.tensor([float(wish)])))

    def close(self) -> None:
        """End the connections."""
        self._accelerator.end_training()
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def launched() -> int:
    """How many processes a launcher started together, by the environment that it set; 1 without one."""
    size = os.environ.get("WORLD_SIZE", "1")
    return int(size) if size.isascii() and size.isdigit() and "RANK" in os.environ else 1


def joint_share(mesh: Alone, x: torch.Tensor, error: torch.Tensor) -> float:
    """``metrics.share_of_error`` of a batch of which every process has a part, exactly that of the whole.

    The spread around the joint mean is the sum of the spreads around each part's mean and of the means' own
    (Chan et al. 1979).

    Args:
        mesh: the processes.
        x: ``[n, d_in]`` this process's rows, none allowed.
        error: ``[n, d_in]`` their errors.
    """
    x = x.double()
    mean = x.mean(0) if len(x) else x.new_zeros(x.shape[1])
    own = [float(len(x)), float(error.square().sum()), float((x - mean).square_().sum()), float(x.square().sum())]
    parts = mesh.gather(torch.cat([mean.new_tensor(own), mean]))  # [size, 4 + d_in]
    counts, means = parts[:, 0], parts[:, 4:]
    if float(counts.sum()) < 2:
        return math.nan
    middle = counts @ means / counts.sum()
    between = counts @ (means - middle).square().sum(1)
    return variance_share(float(parts[:, 1].sum()), float(parts[:, 2].sum() + between), float(parts[:, 3].sum()))


def _talk(say: Callable[[], Any]) -> Any:
    """What torch raises when a fellow process is gone is a ``RuntimeError`` of many texts."""
    try:
        return say()
    except RuntimeError as error:
        raise MeshFault from error
