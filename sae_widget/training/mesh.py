"""The processes that train one SAE together."""

from __future__ import annotations

from typing import Protocol

import torch


class Mesh(Protocol):
    """What a step needs from the other processes."""

    rank: int
    size: int

    def sum_(self, tensor: torch.Tensor) -> torch.Tensor:
        """Put the sum over the processes in place of this tensor."""

    def mean_(self, tensor: torch.Tensor) -> torch.Tensor:
        """Put the mean over the processes in place of this tensor."""

    def gather(self, tensor: torch.Tensor) -> torch.Tensor:
        """Every process's tensor, ``[size, ...]``."""


class Alone:
    """One process: nothing to do."""

    rank, size = 0, 1

    def sum_(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor as it is."""
        return tensor

    def mean_(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor as it is."""
        return tensor

    def gather(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor alone. ``[1, ...]``."""
        return tensor[None]


ALONE = Alone()
