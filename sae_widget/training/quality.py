"""Explained variance: its one definition, of a batch, and over a fixed set of tokens."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from sae_widget.training.data import evaluation_rows

if TYPE_CHECKING:
    from collections.abc import Callable

    from sae_widget.training.gradients import Workspace

TIME_SHARE = 0.02  # of training that measuring over the fixed set may take
FORWARD_COST = 0.4  # of a step's: two of its five matrix products


def explained_variance(x: torch.Tensor, sae_out: torch.Tensor) -> float:
    """Share of the variance of ``x`` that the reconstruction keeps.

    ``1 - sum ||x - sae_out||^2 / sum ||x - mean||^2`` with the mean over the rows: 1 is perfect, 0 is no
    better than always answering the mean, below 0 is worse.

    Args:
        x: ``[pos, d_in]`` activations.
        sae_out: ``[pos, d_in]`` reconstruction.

    Returns:
        The share, or ``nan`` when ``x`` does not vary (fewer than two rows, constant rows).
    """
    return share_of_error(x, x - sae_out)


def share_of_error(x: torch.Tensor, error: torch.Tensor) -> float:
    """Explained variance from the rows and their errors, both ``[pos, d_in]``."""
    return variance_share(float(error.square().sum()), *spread(x))


def spread(x: torch.Tensor) -> tuple[float, float]:
    """``sum ||x - mean||^2`` and ``sum ||x||^2`` of ``[pos, d_in]``; zero spread for fewer than two rows."""
    if len(x) < 2:
        return 0.0, 1.0
    return float((x - x.mean(0)).square_().sum()), float(x.square().sum())


def variance_share(error: float, total: float, size: float) -> float:
    """``1 - error / total``; ``nan`` when ``total`` is no more than the rounding of a sum of ``size``."""
    return 1.0 - error / total if total > 1e-12 * size else math.nan


class FixedSet:
    """At most 2,048 tokens, position 0 among them in its share, on which a run is measured now and then.

    Args:
        position: ``[n]`` of all activations.
        seed: which of them are taken.
        read: rows -> their scaled activations ``[len(rows), d_in]``.
    """

    def __init__(self, position: torch.Tensor, seed: int, read: Callable[[torch.Tensor], torch.Tensor]) -> None:
        self.rows, self.read = evaluation_rows(position, seed), read
        self.spread = spread(read(self.rows))

    def interval(self, batch_size: int) -> int:
        """After how many steps to measure again, so that it takes ``TIME_SHARE`` of the time."""
        return math.ceil(FORWARD_COST / TIME_SHARE * len(self.rows) / batch_size)

    def measure(self, work: Workspace) -> float:
        """Explained variance over these tokens with the weights as they are, exactly a float32."""
        error = 0.0
        for rows in self.rows.split(len(work.error)):
            work.forward(self.read(rows))
            part = work.error[: len(rows)].view(-1)
            error += float(torch.dot(part, part))
        return float(torch.tensor(variance_share(error, *self.spread), dtype=torch.float32))
