"""Kinds whose features fire where a number is above a bound: over pairs once few enough do.

A run begins with many features that fire, and soon few do. Of how few pairs are faster is a matter of the processor.
Pairs are looked for where the step before had few enough, and taken where there are few enough now: a run that goes
on from its state goes the same way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from sae_widget.threads import using
from sae_widget.training.pairs import pairs_where
from sae_widget.training.sparse import SparseWorkspace
from sae_widget.training.sums import share_that_pays

if TYPE_CHECKING:
    from sae_widget.training.gradients import Losses, Weights
    from sae_widget.training.pairs import Pairs

SMALLEST = 2**27  # multiplications of a dense product; below, whole matrices are faster


class RareWorkspace(SparseWorkspace):
    """Steps over the pairs of which ``hidden_pre`` is above ``_bound``: all that fire, and what else is needed."""

    hidden: torch.Tensor  # their hidden_pre, float32 [n_pairs]

    def resize(self, batch_size: int) -> None:
        """Make the buffers for another batch size."""
        super().resize(batch_size)
        if "pays" in self.memory and not self.memory["pays"]:
            self.memory["pays"].fill_(self._pays())

    def fresh(self) -> None:
        """Set what a new SAE starts with besides its matrices."""
        super().fresh()
        self.memory["pays"] = torch.tensor(self._pays(), dtype=torch.float32)
        # In the last step that was applied; infinite where pairs were not counted.
        self.memory["share"] = torch.ones((), dtype=torch.float32)

    def backward(self, x: torch.Tensor, penalty: float, dead: torch.Tensor | None) -> Losses:
        """Fill ``grads`` from what ``forward`` left."""
        losses = super().backward(x, penalty, dead)
        if not self._counts:
            return losses
        return losses._replace(n_pairs=len(self.hidden) if self.is_sparse else self._n_pairs(losses.fired))

    def applied(self, share: float) -> None:
        """Take note that the step of the last ``forward`` was applied."""
        super().applied(share)
        if self._counts:
            self.memory["share"].fill_(share)

    def _pays(self) -> float:
        large = self._is_large(len(self.pre))
        return share_that_pays(self.products.dtype, self.device.type) if large else 0.0

    @property
    def _counts(self) -> bool:
        """Whether steps over pairs may come: elsewhere to count them would cost time, and on a GPU a wait."""
        return bool(self.memory["pays"]) and self.device.type == "cpu"

    def _is_large(self, n: int) -> bool:
        return n * self.d_in * self.d_sae >= SMALLEST

    def _sparse(self, n: int) -> bool:
        return self._is_large(n) and self._counts and bool(self.memory["share"] < self.memory["pays"])

    def _choose(self, pre: torch.Tensor) -> Pairs | None:
        room = self.scratch.view(-1).view(torch.bool)[: pre.numel()].view(pre.shape)
        # Not "above": NaN is kept, and the step is refused.
        torch.le(pre, self._bound(), out=room).logical_not_()
        if np.count_nonzero(room.numpy()) > float(self.memory["pays"]) * pre.numel():
            return None  # more than in the step before: features were resampled, or settings changed
        pairs = pairs_where(room, pre)
        self.hidden = pairs.value
        return pairs._replace(value=self._fired_by(pairs))

    def _bound(self) -> torch.Tensor | float:
        """Pairs are above this. ``[d_sae]``, or one number for all."""
        return 0.0

    def _n_pairs(self, fired: torch.Tensor) -> float:
        """How many pairs there would have been in a step over whole matrices, or somewhat more."""
        return float(fired.sum())

    def _fired_by(self, pairs: Pairs) -> torch.Tensor:
        """The feature activations of pairs that come with their ``hidden_pre``. ``[n_pairs]``."""
        return pairs.value


class ReLUWorkspace(RareWorkspace):
    """ReLU and an L1 penalty."""

    def _through_pairs(self, grad: torch.Tensor, fires: torch.Tensor, fired: torch.Tensor, weights: Weights) -> float:
        """The gradient of ``hidden_pre`` in place of that of ``feature_acts``; every pair fires."""
        if not weights.act:
            return 0.0
        with using(1):
            grad.add_(weights.act)
            return weights.act * float(self.pairs.value.sum())
