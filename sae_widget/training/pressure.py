"""The search for the penalty that gives a wanted L0, while the training goes on."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from sae_widget.config import ARCHITECTURES

if TYPE_CHECKING:
    from sae_widget.training.gradients import Workspace

RATE = 0.02
"""How much of the logarithm of L0 / target is added to the logarithm of the penalty at each step."""
MOST = 1.0
"""A step counts as at most this logarithm, so that the first steps, in which everything fires, do not overshoot."""
LARGEST = 50.0
"""The logarithm of the factor stays between this and its negative: a penalty of 0 would let it rise for good."""


class Pressure:
    """A factor on the L1 penalty: it rises while more features fire than ``target_l0`` and falls while fewer do.

    ``log factor += 0.02 * log(L0 / target_l0)``, an integral controller; its memory is the workspace's, so that it is
    saved with a run. Kinds whose target is in their own rule (k, JumpReLU's penalty) are left alone.

    Args:
        work: whose settings and memory are used.
    """

    def __init__(self, work: Workspace) -> None:
        self.work = work
        work.memory["pressure"] = torch.zeros((), dtype=torch.float32)  # a number for Python: never on a GPU

    @property
    def searches(self) -> bool:
        """Whether the next step's penalty depends on what the last step showed."""
        config = self.work.config
        return bool(config.target_l0) and "l1_coefficient" in ARCHITECTURES[config.architecture]

    def on(self, penalty: float) -> float:
        """The penalty of the next step."""
        return penalty * math.exp(float(self.work.memory["pressure"])) if self.searches else penalty

    def after(self, step: int, l0: float) -> None:
        """Look at the L0 of a step that was applied, once the penalty is there whole."""
        config = self.work.config
        if not self.searches or step < config.l1_warmup * config.steps:
            return
        off = math.log(max(l0, 1e-3) / config.target_l0)
        self.work.memory["pressure"].add_(RATE * max(-MOST, min(MOST, off))).clamp_(-LARGEST, LARGEST)
