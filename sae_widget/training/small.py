"""Steps so small that calling torch costs more than computing: all but the matrix products in numpy.

A call of numpy takes a third of one of torch; a small step makes forty. What it touches is looked up once, into the
variables of functions, which takes an eighth off a step. The numbers are those of the steps in torch up to rounding.
The products are in ``blas``.
"""

from __future__ import annotations

from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from sae_widget.metrics import spread
from sae_widget.training.base import first
from sae_widget.training.blas import ALONE, Buffers, by_numpy, by_torch, numpy_is_faster
from sae_widget.training.dense import DenseWorkspace
from sae_widget.training.gradients import AUX_COEFFICIENT, CANCELS, Losses, Revival
from sae_widget.training.largest import keep_largest, sorting_is_fast
from sae_widget.training.rare import ReLUWorkspace
from sae_widget.training.topk import TopKWorkspace

if TYPE_CHECKING:
    from collections.abc import Callable

    from sae_widget.config import TrainConfig
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


class Arrays:
    """The parts of a ``Flat`` that a step needs, as arrays over the same memory."""

    def __init__(self, flat: Flat) -> None:
        self.b_enc, self.W_enc, self.W_dec, self.b_dec, self.vector = (
            part.numpy() for part in (flat.b_enc, flat.W_enc, flat.W_dec, flat.b_dec, flat.vector)
        )


class Passes:
    """Forward and backward pass of ``n`` rows, and the buffers of a workspace that they go over, as arrays.

    ``forward(x)`` gives what was encoded and ``sum ||sae_out - x||^2``; ``spread(x)`` is ``metrics.spread`` of the
    same rows; ``backward(u, squared, penalty, revive)`` fills the gradients.
    """

    def __init__(self, work: SmallWorkspace, n: int) -> None:
        self.tensors = Tensors(
            *(first(buffer, n) for buffer in (work.pre, work.acts, work.scratch, work.error, work.target))
        )
        if work.in_place:
            self.tensors = self.tensors._replace(pre=self.tensors.acts)
        self.pre, self.acts, self.scratch, self.error, self.target = (tensor.numpy() for tensor in self.tensors)
        self.fires_out = torch.empty_like(self.tensors.acts)  # 1 where a feature fires, 0 elsewhere
        self.fires = self.fires_out.numpy()
        self.ones = np.ones(n, np.float32)
        self.weights, self.in_numpy = work._weights(n, 1.0), bool(work.in_numpy)
        pre, acts, scratch, error_out, target = self.tensors
        buffers = Buffers(target, pre, acts, error_out, scratch), work.params, work.grads
        self.products = (by_numpy(*buffers) if self.in_numpy else None) or by_torch(*buffers)
        self.forward, self.spread, self.backward = self._forward(work), self._spread(), self._backward(work)

    def _forward(self, work: SmallWorkspace) -> Callable[[torch.Tensor], tuple[torch.Tensor, float]]:
        target_out, error, target, flat_error = self.tensors.target, self.error, self.target, self.error.reshape(-1)
        b_dec, centers, fire = work.params.b_dec, work.center_input, work.firing(self)
        encode, decode, sub, subtract, dot = self.products.encode, self.products.decode, torch.sub, np.subtract, np.dot

        def forward(x: torch.Tensor) -> tuple[torch.Tensor, float]:
            sub(x, b_dec, out=target_out)
            u = target_out if centers else x
            encode(u)
            fire()
            decode()
            subtract(error, target, error)
            return u, float(dot(flat_error, flat_error))

        return forward

    def _spread(self) -> Callable[[torch.Tensor], tuple[float, float]]:
        target, flat, ones, n, dot = self.target, self.target.reshape(-1), self.ones, len(self.ones), np.dot

        def of_target(x: torch.Tensor) -> tuple[float, float]:
            size, summed = float(dot(flat, flat)), dot(ones, target)
            total = size - float(dot(summed, summed)) / n
            return (total, size) if total > CANCELS * size else spread(x)

        return of_target

    def _backward(self, work: SmallWorkspace) -> Callable[..., Losses]:
        acts, to_decoder, back, to_encoder = self.tensors.acts, *self.products[2:]
        error, scratch, fires, fires_out, ones = self.error, self.scratch, self.fires, self.fires_out, self.ones
        flat_acts, flat_fires = self.acts.reshape(-1), fires.reshape(-1)
        grads, g, encoder, centers = work.grads, Arrays(work.grads), Arrays(work.params).W_enc, work.center_input
        grad_b_dec, grad_b_enc = g.b_dec, g.b_enc
        per_error, per_act, twice = *self.weights, np.float32(2.0 * self.weights.error)
        sign, dot, multiply, add, subtract = torch.sign, np.dot, np.multiply, np.add, np.subtract

        def backward(u: torch.Tensor, squared: float, penalty: float, revive: Revival | None) -> Losses:
            sign(acts, out=fires_out)
            fired, sparsity = dot(ones, fires), 0.0
            multiply(error, twice, error)
            dot(ones, error, grad_b_dec)
            to_decoder()
            back()
            if penalty:
                sparsity = penalty * per_act * float(dot(flat_acts, flat_fires))
                add(scratch, np.float32(penalty * per_act), scratch)
            multiply(scratch, fires, scratch)
            to_encoder(u)
            dot(ones, scratch, grad_b_enc)
            if revive is not None:
                sparsity += revive.add_to(grads)
            if centers:
                subtract(grad_b_dec, dot(grad_b_enc, encoder), grad_b_dec)
            return Losses(per_error * squared, sparsity, torch.from_numpy(fired))

        return backward


class Norms:
    """What is done with the norms of a workspace's decoder rows and of its gradient.

    ``of_gradient()`` is that of all gradients together; ``keep()`` and ``make_one()`` are a step's two halves.
    """

    def __init__(self, work: SmallWorkspace) -> None:
        rows, grads = Arrays(work.params).W_dec, Arrays(work.grads)
        grad, every, room, norm = grads.W_dec, grads.vector, np.empty_like(rows), np.empty(len(rows), np.float32)
        norms, dot, multiply, subtract, divide = norm[:, None], np.dot, np.multiply, np.subtract, np.divide
        sqrt, maximum = np.sqrt, np.maximum

        def of_gradient() -> float:
            return float(dot(every, every)) ** 0.5

        def keep() -> None:
            row_dots(rows, grad, out=norm)
            multiply(rows, norms, room)
            subtract(grad, room, grad)

        def make_one() -> None:
            row_dots(rows, rows, out=norm)
            maximum(sqrt(norm, norm), TINY, out=norm)
            divide(rows, norms, rows)

        self.of_gradient, self.keep, self.make_one = of_gradient, keep, make_one


class SmallWorkspace(DenseWorkspace):
    """The steps of ``DenseWorkspace``; in numpy while its batches are small."""

    is_small = False
    in_numpy: Any = False  # whether the products of small steps are numpy's
    in_place = False  # whether ``firing`` can write where it reads, and nobody reads ``pre`` afterwards

    def resize(self, batch_size: int) -> None:
        """Make the buffers for another batch size."""
        self._passes: dict[int, Passes] = {}
        super().resize(batch_size)
        on_cpu = self.device.type == "cpu" and not self.bfloat16
        small = batch_size * self.d_sae <= SMALL and max(batch_size, self.d_sae) * self.d_in <= ROWS
        self.is_small = on_cpu and small and self.acts is not self.pre

    def configure(self, config: TrainConfig, batch_size: int) -> None:
        """Use other settings and another batch size from the next step on; where that fails, everything stays."""
        self._passes = {}
        super().configure(config, batch_size)

    def fresh(self) -> None:
        """Set what a new SAE starts with besides its matrices."""
        super().fresh()
        in_numpy = self.is_small and numpy_is_faster(self._rows, self.d_in, self.d_sae)
        # Of a run, and kept with it: products are rounded in other ways.
        self.memory["in_numpy"] = torch.tensor(float(in_numpy), dtype=torch.float32)
        if self.device.type == "cpu":
            self.in_numpy = self.memory["in_numpy"].numpy()  # the same, at less cost

    @cached_property
    def norms(self) -> Norms:
        """What is done with them in a small step."""
        return Norms(self)

    def at(self, n: int) -> Passes:
        """The passes of ``n`` rows."""
        found = self._passes.get(n)
        if found is None or found.in_numpy != bool(self.in_numpy):  # a run that goes on may have begun elsewhere
            found = self._passes[n] = Passes(self, n)
        return found

    def firing(self, at: Passes) -> Callable[[], object]:
        """What goes from ``pre`` to ``acts`` of these buffers."""
        return partial(self.kind.fire, at.tensors.pre, at.tensors.acts, self.config)

    def spread(self, x: torch.Tensor) -> tuple[float, float]:
        """``metrics.spread`` of the rows of the last ``forward``."""
        return self.at(x.shape[0]).spread(x) if self.is_small else super().spread(x)

    def forward(self, x: torch.Tensor) -> None:
        """Fill ``error``, and what ``backward`` needs."""
        if self.is_small:
            self.u, self._squared = self.at(x.shape[0]).forward(x)
        else:
            super().forward(x)

    def backward(self, x: torch.Tensor, penalty: float, dead: torch.Tensor | None) -> Losses:
        """Fill ``grads`` from what ``forward`` left."""
        if not self.is_small:
            return super().backward(x, penalty, dead)
        at = self.at(x.shape[0])
        return at.backward(self.u, self._squared, penalty, self.revive(dead, x, at.weights.error))

    def revive(self, dead: torch.Tensor | None, x: torch.Tensor, per_error: float) -> Revival | None:
        """As every kind's, in numpy where there are so few that all of them are the strongest."""
        few = dead is not None and 0 < len(dead) <= max(1, self.d_in // 2)
        if dead is None or not self.is_small or not few or x.numel() * len(dead) > ALONE:
            return super().revive(dead, x, per_error)
        at, places = self.at(len(x)), dead.numpy()
        rows, weight = Arrays(self.params).W_dec.take(places, 0), AUX_COEFFICIENT * per_error
        acts = np.maximum(at.pre.take(places, 1), np.float32(0))  # [n, n_dead]
        missing = np.matmul(acts, rows)
        missing += at.error
        flat = missing.reshape(-1)
        loss = weight * float(np.dot(flat, flat))
        missing *= np.float32(2.0 * weight)
        grad_pre = np.matmul(missing, rows.T)
        grad_pre *= acts > 0
        u = at.target if self.center_input else x.numpy()
        grads = np.matmul(acts.T, missing), np.matmul(grad_pre.T, u), np.dot(at.ones, grad_pre)
        return Revival(dead, loss, *map(torch.from_numpy, grads))

    def gradient_norm(self) -> float:
        """Of all gradients together."""
        if not self.is_small:
            return super().gradient_norm()
        return self.norms.of_gradient()

    def applied(self, share: float) -> None:
        """Take note that the step of the last ``forward`` was applied; of small ones nothing is kept."""
        if not self.is_small:
            super().applied(share)

    def keep_norms(self) -> None:
        """Take out of the decoder's gradient what would only change its rows' norms."""
        if self.is_small:
            self.norms.keep()
        else:
            super().keep_norms()

    def unit_norm(self) -> None:
        """Bring every decoder row to norm 1."""
        if self.is_small:
            self.norms.make_one()
        else:
            super().unit_norm()


class SmallReLUWorkspace(SmallWorkspace, ReLUWorkspace):
    """ReLU and an L1 penalty; small batches are never sparse."""

    in_place = True

    def firing(self, at: Passes) -> Callable[[], object]:
        """ReLU in place."""
        return partial(torch.relu_, at.tensors.acts)


class SmallTopKWorkspace(SmallWorkspace, TopKWorkspace):
    """The k largest of each token; small batches are never sparse."""

    def firing(self, at: Passes) -> Callable[[], object]:
        """Keep what is above the largest that is left out, unless two numbers of a row share the last place."""
        k, of = self.k, at.tensors
        by_torch = partial(keep_largest, of.pre, k, of.acts, of.scratch)
        if k == self.d_sae or not sorting_is_fast():
            return by_torch
        pre, acts, fires, rising = at.pre, at.acts, at.fires, at.scratch
        least, next_one, zero = rising[:, -k], rising[:, -k - 1], np.float32(0)
        copyto, maximum, greater, multiply = np.copyto, np.maximum, np.greater, np.multiply

        def fire() -> None:
            copyto(rising, pre)
            rising.sort(axis=1)
            bound = maximum(next_one, zero)
            shared = least == bound
            if shared.any() and bound[shared].any():
                by_torch()
            else:
                greater(pre, bound[:, None], fires)
                multiply(pre, fires, acts)

        return fire
