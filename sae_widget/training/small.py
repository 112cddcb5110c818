"""Steps so small that calling torch costs more than computing: all but the matrix products in numpy.

A call of numpy takes a third of one of torch; a small step makes forty. The numbers are those of the steps in torch up
to rounding.
"""

from __future__ import annotations

from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from sae_widget.training.base import first
from sae_widget.training.dense import DenseWorkspace
from sae_widget.training.gradients import CANCELS, Losses
from sae_widget.training.largest import sorting_is_fast
from sae_widget.training.rare import ReLUWorkspace
from sae_widget.training.topk import TopKWorkspace

if TYPE_CHECKING:
    from sae_widget.training.base import Flat

row_dots: Any = getattr(np, "vecdot", partial(np.einsum, "ij,ij->i"))  # numpy has it since 2.0
TINY = np.float32(1e-12)
SMALL = 2**16  # activations of a batch: with more, torch's threads and vector instructions win
ROWS = 2**18  # numbers of a batch, or of a matrix: with more, numpy's sums take threads that wait for torch's


class Tensors(NamedTuple):
    """The first rows of a workspace's buffers."""

    pre: torch.Tensor
    acts: torch.Tensor
    scratch: torch.Tensor
    error: torch.Tensor
    target: torch.Tensor


class Buffers:
    """The buffers of a workspace as arrays over the same memory."""

    def __init__(self, work: SmallWorkspace, n: int) -> None:
        self.tensors = Tensors(
            *(first(buffer, n) for buffer in (work.pre, work.acts, work.scratch, work.error, work.target))
        )
        if work.in_place:
            self.tensors = self.tensors._replace(pre=self.tensors.acts)
        self.pre, self.acts, self.scratch, self.error, self.target = (tensor.numpy() for tensor in self.tensors)
        self.flat_error, self.flat_target = self.error.reshape(-1), self.target.reshape(-1)
        self.fires_out = torch.empty_like(self.tensors.acts)  # 1 where a feature fires, 0 elsewhere
        self.fires = self.fires_out.numpy()
        self.flat_acts, self.flat_fires = self.acts.reshape(-1), self.fires.reshape(-1)
        self.ones = np.ones(n, np.float32)
        self.acts_t, self.scratch_t = self.tensors.acts.t(), self.tensors.scratch.t()


class Arrays:
    """The parts of a ``Flat`` that a step needs, as arrays over the same memory."""

    def __init__(self, flat: Flat) -> None:
        self.b_enc, self.W_enc, self.W_dec, self.b_dec, self.vector = (
            part.numpy() for part in (flat.b_enc, flat.W_enc, flat.W_dec, flat.b_dec, flat.vector)
        )


class SmallWorkspace(DenseWorkspace):
    """The steps of ``DenseWorkspace``; in numpy while its batches are small."""

    is_small = False
    in_place = False  # whether ``_fire`` can write where it reads, and nobody reads ``pre`` afterwards

    def resize(self, batch_size: int) -> None:
        """Make the buffers for another batch size."""
        super().resize(batch_size)
        on_cpu = self.device.type == "cpu" and not self.bfloat16
        small = batch_size * self.d_sae <= SMALL and max(batch_size, self.d_sae) * self.d_in <= ROWS
        self.is_small = on_cpu and small and self.acts is not self.pre
        self._buffers: dict[int, Buffers] = {}

    @cached_property
    def _p(self) -> Arrays:
        return Arrays(self.params)

    @cached_property
    def _g(self) -> Arrays:
        return Arrays(self.grads)

    @cached_property
    def _room(self) -> np.ndarray:
        return np.empty_like(self._p.W_dec)

    def _at(self, n: int) -> Buffers:
        """The buffers for ``n`` rows."""
        found = self._buffers.get(n)
        if found is None:
            found = self._buffers[n] = Buffers(self, n)
        return found

    def squared_error(self, n: int) -> float:
        """``sum ||sae_out - x||^2`` of the last ``forward`` of ``n`` rows, also when ``backward`` has used it up."""
        if not self.is_small:
            return super().squared_error(n)
        if self._squared is None:
            error = self._at(n).flat_error
            self._squared = float(np.dot(error, error))
        return self._squared

    def spread(self, x: torch.Tensor) -> tuple[float, float]:
        """``metrics.spread`` of the rows of the last ``forward``."""
        if not self.is_small:
            return super().spread(x)
        n = x.shape[0]
        at = self._at(n)
        size, summed = float(np.dot(at.flat_target, at.flat_target)), np.dot(at.ones, at.target)
        total = size - float(np.dot(summed, summed)) / n
        return (total, size) if total > CANCELS * size else super().spread(x)

    def forward(self, x: torch.Tensor) -> None:
        """Fill ``error``, and what ``backward`` needs."""
        if not self.is_small:
            super().forward(x)
            return
        at = self._at(x.shape[0])
        pre, acts, _, error, target = at.tensors
        torch.sub(x, self.params.b_dec, out=target)
        self.u = target if self.center_input else x
        self.products.encode(self.u, pre)
        self._squared = None
        self._fire(pre, acts)
        torch.mm(acts, self.params.W_dec, out=error)
        np.subtract(at.error, at.target, out=at.error)

    def backward(self, x: torch.Tensor, penalty: float, dead: torch.Tensor | None) -> Losses:
        """Fill ``grads`` from what ``forward`` left."""
        return self._backward(x, penalty, dead) if self.is_small else super().backward(x, penalty, dead)

    def _backward(self, x: torch.Tensor, penalty: float, dead: torch.Tensor | None) -> Losses:
        n = x.shape[0]
        at, g, weights = self._at(n), self._g, self._weights(n, penalty)
        torch.sign(at.tensors.acts, out=at.fires_out)
        fired = np.dot(at.ones, at.fires)
        reconstruction, sparsity = weights.error * self.squared_error(n), 0.0
        if weights.act:
            sparsity = weights.act * float(np.dot(at.flat_acts, at.flat_fires))
        revive = self._revive(dead, x, weights.error)
        np.multiply(at.error, np.float32(2.0 * weights.error), out=at.error)
        np.dot(at.ones, at.error, out=g.b_dec)
        torch.mm(at.acts_t, at.tensors.error, out=self.grads.W_dec)
        self.products.back(at.tensors.error, at.tensors.scratch)
        if weights.act:
            np.add(at.scratch, np.float32(weights.act), out=at.scratch)
        np.multiply(at.scratch, at.fires, out=at.scratch)
        torch.mm(at.scratch_t, self.u, out=self.grads.W_enc)
        np.dot(at.ones, at.scratch, out=g.b_enc)
        if revive is not None:
            sparsity += revive.add_to(self.grads)
        if self.center_input:
            np.subtract(g.b_dec, np.dot(g.b_enc, self._p.W_enc), out=g.b_dec)
        return Losses(reconstruction, sparsity, torch.from_numpy(fired))

    def gradient_norm(self) -> float:
        """Of all gradients together."""
        if not self.is_small:
            return super().gradient_norm()
        grads = self._g.vector
        return float(np.dot(grads, grads)) ** 0.5

    def applied(self, share: float) -> None:
        """Take note that the step of the last ``forward`` was applied; of small ones nothing is kept."""
        if not self.is_small:
            super().applied(share)

    def keep_norms(self) -> None:
        """Take out of the decoder's gradient what would only change its rows' norms."""
        if not self.is_small:
            super().keep_norms()
            return
        rows, grad, room = self._p.W_dec, self._g.W_dec, self._room
        np.multiply(rows, row_dots(rows, grad)[:, None], out=room)
        np.subtract(grad, room, out=grad)

    def unit_norm(self) -> None:
        """Bring every decoder row to norm 1."""
        if not self.is_small:
            super().unit_norm()
            return
        rows = self._p.W_dec
        norm = row_dots(rows, rows)
        np.maximum(np.sqrt(norm, out=norm), TINY, out=norm)
        np.divide(rows, norm[:, None], out=rows)


class SmallReLUWorkspace(SmallWorkspace, ReLUWorkspace):
    """ReLU and an L1 penalty; small batches are never sparse."""

    in_place = True


class SmallTopKWorkspace(SmallWorkspace, TopKWorkspace):
    """The k largest of each token; small batches are never sparse."""

    def _fire(self, pre: torch.Tensor, acts: torch.Tensor) -> None:
        if not (self.is_small and self._by_bound(pre)):
            super()._fire(pre, acts)

    def _by_bound(self, pre: torch.Tensor) -> bool:
        """Keep what is above the largest that is left out, unless two numbers of a row share the last place."""
        if self.k == self.d_sae or not sorting_is_fast():
            return False
        at = self._at(pre.shape[0])
        np.copyto(at.scratch, at.pre)
        at.scratch.sort(axis=1)
        bound = np.maximum(at.scratch[:, -self.k - 1], np.float32(0))
        shared = at.scratch[:, -self.k] == bound
        if shared.any() and bound[shared].any():
            return False
        np.greater(at.pre, bound[:, None], out=at.fires)
        np.multiply(at.pre, at.fires, out=at.acts)
        return True
