"""Kinds of which few features fire: products over the pairs (token, feature) that fire instead of whole matrices.

One dense product is left of five, the encoder's. The others are: ``decode`` a weighted sum of decoder rows
(``sums``), the gradient of the activations a product sampled at the pairs (``sampled_addmm``), the gradients of both
matrices weighted sums of the batch's rows, after the pairs were sorted by feature. What is as short as the list of
pairs has one thread (``using(1)``): others would be waited for longer than they compute.
"""

from __future__ import annotations

import warnings
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import torch

from sae_widget.threads import using
from sae_widget.training.base import first
from sae_widget.training.dense import DenseWorkspace
from sae_widget.training.gradients import Losses
from sae_widget.training.largest import dividing_is_fast, keep_largest, places_of_largest
from sae_widget.training.sums import can_multiply, multiplying_is_fast, weighted_sums

if TYPE_CHECKING:
    from sae_widget.training.gradients import Weights

SPARSE_BELOW = 1 / 8  # of the features firing; with more, whole matrices are faster
GATHERED = 4096  # pairs at a time, where there is no sampled product
SMALLEST = 2**21  # multiplications of a dense product; below, whole matrices are faster


class Pairs(NamedTuple):
    """Which features fire on which tokens, sorted by token."""

    starts: torch.Tensor  # [n + 1] int64, where each token's begin
    feature: torch.Tensor  # [n_pairs] int64
    value: torch.Tensor  # [n_pairs] float32, at least 0


class ByFeature(NamedTuple):
    """The same pairs sorted by feature."""

    order: torch.Tensor  # [n_pairs] int64, into ``Pairs``
    token: torch.Tensor  # [n_pairs] int64
    starts: torch.Tensor  # [d_sae + 1] int64, where each feature's begin


def token_of(pairs: Pairs) -> torch.Tensor:
    """The token of each pair. ``[n_pairs]``."""
    counts = pairs.starts[1:] - pairs.starts[:-1]
    return torch.repeat_interleave(
        torch.arange(len(counts), device=counts.device), counts, output_size=len(pairs.feature)
    )


def by_feature(pairs: Pairs, token: torch.Tensor, d_sae: int) -> ByFeature:
    """Sort by feature; tokens stay in order within one."""
    small = pairs.feature.to(torch.int16) if d_sae <= 2**15 else pairs.feature.to(torch.int32)
    order = torch.sort(small, stable=True).indices
    starts = order.new_zeros(d_sae + 1)
    torch.cumsum(torch.bincount(pairs.feature, minlength=d_sae), 0, out=starts[1:])
    return ByFeature(order, token.index_select(0, order), starts)


def sampled(pairs: Pairs, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """``left[token] . right[feature]`` of every pair. ``[n_pairs]``."""
    if not samples():
        token = token_of(pairs).split(GATHERED)
        parts = zip(token, pairs.feature.split(GATHERED), strict=True)
        return torch.cat([(left[t] * right[f]).sum(1) for t, f in parts])
    return _sampled(pairs, left, right)


def _sampled(pairs: Pairs, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    shape = (len(left), len(right))
    zeros = torch.zeros_like(pairs.value)
    at = torch.sparse_csr_tensor(pairs.starts, pairs.feature, zeros, shape, check_invariants=False)
    return torch.sparse.sampled_addmm(at, left, right.t(), beta=0.0).values()


@lru_cache(maxsize=1)
def samples() -> bool:
    """Whether this build of torch has the sampled product, tried on a small case once."""
    left, right = torch.arange(6.0).view(2, 3), torch.arange(12.0).view(4, 3)
    pairs = Pairs(torch.tensor([0, 1, 3]), torch.tensor([2, 0, 3]), torch.ones(3))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch says once that these are in beta
            found = _sampled(pairs, left, right)
    except RuntimeError:  # a build without it
        return False
    return found.tolist() == [23.0, 14.0, 122.0]


class TopKWorkspace(DenseWorkspace):
    """The k largest of each token: over pairs where that is faster, over whole matrices elsewhere."""

    pairs: Pairs  # of the last ``forward``, where ``is_sparse``
    is_sparse = False

    def resize(self, batch_size: int) -> None:
        """Make the buffers for another batch size."""
        self._small = batch_size * self.d_in * self.d_sae < SMALLEST
        super().resize(batch_size)
        if not self._small:
            self.acts = self.scratch = self.pre  # never used: a change to a dense k makes them

    def fresh(self) -> None:
        """Set what a new SAE starts with besides its matrices."""
        super().fresh()
        divides, multiplies = (
            dividing_is_fast(self.products.dtype, self.device.type),
            multiplying_is_fast(self.device.type),
        )
        # Of a run, and kept with it: of equal numbers each way takes others, and sums are rounded in other ways.
        self.memory["divides"] = torch.tensor(float(divides), dtype=torch.float32)
        self.memory["multiplies"] = torch.tensor(float(multiplies), dtype=torch.float32)

    @property
    def k(self) -> int:
        """Features that fire on a token."""
        wanted = round(self.config.target_l0) if self.config.target_l0 else self.config.k
        return max(1, min(wanted, self.d_sae))

    def _sparse(self) -> bool:
        return not self._small and self.k <= SPARSE_BELOW * self.d_sae

    def forward(self, x: torch.Tensor) -> None:
        """Fill ``error``, and what ``backward`` needs."""
        self.is_sparse = self._sparse()
        if not self.is_sparse:
            self._make_dense()
            super().forward(x)
            return
        self._encode(x)
        self.pairs = self._choose(self.pre[: len(x)])
        self._decode(len(x))

    def backward(self, x: torch.Tensor, penalty: float, dead: torch.Tensor | None) -> Losses:
        """Fill ``grads`` from what ``forward`` left."""
        if not self.is_sparse:
            return super().backward(x, penalty, dead)
        n, g, pairs, weights = len(x), self.grads, self.pairs, self._weights(len(x), penalty)
        reconstruction = self._reconstruction(n, weights)
        revive = self._revive(dead, x, weights.error)
        with using(1):
            fires = (pairs.value > 0).float()
            fired = self._by_feature(fires)
            sorted_pairs = by_feature(pairs, token_of(pairs), self.d_sae)
        grad_pre = self._decoder_gradients(n, sorted_pairs, weights)
        with using(1):
            # W_dec[f] . grads.W_dec[f], as both are sums over the pairs: value * (error . W_dec[f])
            self._along = self._by_feature(pairs.value * grad_pre)
            g.b_enc.copy_(self._by_feature(grad_pre.mul_(fires)))
        u = self.target[:n] if self.center_input else x
        self.gradient(sorted_pairs, grad_pre, u, g.W_enc)
        sparsity = revive.add_to(g) if revive is not None else 0.0
        if revive is not None:
            self._along[revive.dead] = (self.params.W_dec[revive.dead] * g.W_dec[revive.dead]).sum(1)
        self._bias_gradients()
        return Losses(reconstruction, sparsity, fired)

    def keep_norms(self) -> None:
        """Take out of the decoder's gradient what would only change its rows' norms."""
        if not self.is_sparse or self.mesh.size > 1:
            super().keep_norms()
            return
        self.grads.W_dec.addcmul_(self.params.W_dec, self._along.unsqueeze(1), value=-1)

    def decode(self, pairs: Pairs, out: torch.Tensor) -> torch.Tensor:
        """``acts @ W_dec`` of the pairs' matrix, into ``[n, d_in]``."""
        rows = self.params.W_dec
        return weighted_sums(rows, pairs.feature, pairs.starts, pairs.value, out, multiply=self._multiplies)

    def gradient(self, pairs: ByFeature, weight: torch.Tensor, rows: torch.Tensor, out: torch.Tensor) -> None:
        """``weights.T @ rows`` of the pairs' matrix with these weights ``[n_pairs]``, into ``[d_sae, d_in]``."""
        weight = weight.index_select(0, pairs.order)
        weighted_sums(rows, pairs.token, pairs.starts, weight, out, multiply=self._multiplies)

    @property
    def _multiplies(self) -> bool:
        return bool(self.memory["multiplies"]) and can_multiply(self.device.type)

    def _by_feature(self, weights: torch.Tensor) -> torch.Tensor:
        """Their sums over the pairs of each feature. ``[n_pairs]`` -> ``[d_sae]``."""
        return torch.bincount(self.pairs.feature, weights=weights, minlength=self.d_sae)

    def _fire(self, pre: torch.Tensor, acts: torch.Tensor) -> None:
        keep_largest(pre, self.k, acts, first(self.scratch, pre.shape[0]))

    def _choose(self, pre: torch.Tensor) -> Pairs:
        if self.memory["divides"]:
            return self._pairs(pre, places_of_largest(pre, self.k))
        values, indices = pre.topk(self.k, dim=-1, sorted=False)
        starts = torch.arange(0, indices.numel() + 1, self.k, device=pre.device)
        return Pairs(starts, indices.view(-1), values.float().clamp_min_(0.0).view(-1))

    def _pairs(self, pre: torch.Tensor, flat: torch.Tensor) -> Pairs:
        """The pairs at these places of the flat ``pre``, which rise."""
        with using(1):
            token = torch.div(flat, self.d_sae, rounding_mode="floor")
            starts = token.new_zeros(len(pre) + 1)
            torch.cumsum(torch.bincount(token, minlength=len(pre)), 0, out=starts[1:])
            value = pre.reshape(-1).index_select(0, flat).float()
            return Pairs(starts, flat - token.mul_(self.d_sae), value)

    def _decode(self, n: int) -> None:
        self.decode(self.pairs, self.error[:n]).sub_(self.target[:n])

    def _reconstruction(self, n: int, weights: Weights) -> float:
        return weights.error * self.squared_error(n)

    def _decoder_gradients(self, n: int, sorted_pairs: ByFeature, weights: Weights) -> torch.Tensor:
        """Fill ``W_dec``'s and ``b_dec``'s; the gradient of each pair's activation is returned. ``[n_pairs]``."""
        error = self.error[:n].mul_(2.0 * weights.error)
        torch.sum(error, 0, out=self.grads.b_dec)
        self.gradient(sorted_pairs, self.pairs.value, error, self.grads.W_dec)
        return sampled(self.pairs, error, self.params.W_dec)

    def _make_dense(self) -> None:
        if self.acts is self.pre:
            self.acts, self.scratch = torch.empty_like(self.pre), torch.empty_like(self.pre)
