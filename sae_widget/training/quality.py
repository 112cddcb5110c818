"""Explained variance over a fixed set of tokens, measured now and then while training."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from sae_widget.metrics import spread, variance_share

if TYPE_CHECKING:
    from sae_widget.sae import SAE
    from sae_widget.training.gradients import Workspace

TIME_SHARE = 0.02  # of training that measuring over the fixed set may take
FORWARD_COST = 0.4  # of a step's: two of its five matrix products
ROWS = 2048  # of a fixed set at most
CHUNK = 1024  # rows at a time, where an SAE is measured by itself


class FixedSet:
    """At most 2,048 tokens on which a run is measured now and then.

    Args:
        x: ``[n, d_in]`` their activations, not scaled; may be empty.
        scale: by which they are multiplied.
    """

    def __init__(self, x: torch.Tensor, scale: float) -> None:
        self.x, self.scale = x, scale
        self.spread = spread(x * scale)

    def interval(self, batch_size: int) -> int:
        """After how many steps to measure again, so that it takes ``TIME_SHARE`` of the time."""
        return max(1, math.ceil(FORWARD_COST / TIME_SHARE * len(self.x) / batch_size))

    def until(self, step: int, batch_size: int) -> int:
        """How many steps from number ``step`` on there are up to one that measures, itself included."""
        return 1 + -step % self.interval(batch_size)

    def measure(self, work: Workspace) -> float:
        """Explained variance over these tokens with the weights as they are, exactly a float32; nan for none."""
        error = 0.0
        for part in self.x.split(len(work.error)) if len(self.x) else ():
            work.measure(part * self.scale)
            error += work.squared_error(len(part))
        return float(torch.tensor(variance_share(error, *self.spread), dtype=torch.float32))


@dataclass(frozen=True)
class Validation:
    """An SAE on tokens of windows that it was not trained on; none is at position 0."""

    explained_variance: float
    l0: float
    n_tokens: int


def validate(sae: SAE, x: torch.Tensor) -> Validation:
    """Measure an SAE on held-out activations ``[n, d_in]``, not scaled."""
    error, fired = 0.0, 0
    for part in x.split(CHUNK):
        acts = sae.encode(part)
        fired += int((acts > 0).sum())
        error += float((part - sae.decode(acts)).square().sum())
    return Validation(variance_share(error, *spread(x)), fired / max(1, len(x)), len(x))
