"""Explained variance over a fixed set of tokens, measured now and then while training."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from sae_widget.metrics import spread, variance_share
from sae_widget.training.data import evaluation_rows

if TYPE_CHECKING:
    from collections.abc import Callable

    from sae_widget.training.gradients import Workspace

TIME_SHARE = 0.02  # of training that measuring over the fixed set may take
FORWARD_COST = 0.4  # of a step's: two of its five matrix products


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
            work.measure(self.read(rows))
            part = work.error[: len(rows)].view(-1)
            error += float(torch.dot(part, part))
        return float(torch.tensor(variance_share(error, *self.spread), dtype=torch.float32))
