"""Kinds of which few features fire: products over the pairs (token, feature) that fire instead of whole matrices.

One dense product is left of five, the encoder's. The others are: ``decode`` a weighted sum of decoder rows
(``sums``), the gradient of the activations a product sampled at the pairs (``sampled_addmm``), the gradients of both
matrices weighted sums of the batch's rows, after the pairs were sorted by feature. What is as short as the list of
pairs has one thread (``using(1)``): others would be waited for longer than they compute.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from sae_widget.threads import using
from sae_widget.training.base import first
from sae_widget.training.dense import DenseWorkspace
from sae_widget.training.gradients import Losses
from sae_widget.training.pairs import by_feature, sampled, token_of
from sae_widget.training.sums import can_multiply, multiplying_is_fast, weighted_sums

if TYPE_CHECKING:
    from sae_widget.training.gradients import Weights
    from sae_widget.training.pairs import ByFeature, Pairs


class SparseWorkspace(DenseWorkspace):
    """Steps over pairs where that is faster, over whole matrices elsewhere; ``_sparse`` says which."""

    pairs: Pairs  # of the last ``forward``, where ``is_sparse``
    is_sparse: bool

    def resize(self, batch_size: int) -> None:
        """Make the buffers for another batch size."""
        super().resize(batch_size)
        self.is_sparse = False

    def fresh(self) -> None:
        """Set what a new SAE starts with besides its matrices."""
        super().fresh()
        # Of a run, and kept with it: sums are rounded in other ways.
        self.memory["multiplies"] = torch.tensor(float(multiplying_is_fast(self.device.type)), dtype=torch.float32)

    def forward(self, x: torch.Tensor) -> None:
        """Fill ``error``, and what ``backward`` needs."""
        n = x.shape[0]
        self._encode(x)
        pairs = self._choose(first(self.pre, n)) if self._sparse(n) else None
        self.is_sparse = pairs is not None
        if pairs is not None:
            self.pairs = pairs
            self._decode(n)
        else:
            self._activate(n)

    def backward(self, x: torch.Tensor, penalty: float, dead: torch.Tensor | None) -> Losses:
        """Fill ``grads`` from what ``forward`` left."""
        return (self._over_pairs if self.is_sparse else self._over_matrices)(x, penalty, dead)

    def _over_matrices(self, x: torch.Tensor, penalty: float, dead: torch.Tensor | None) -> Losses:
        return super().backward(x, penalty, dead)

    def _over_pairs(self, x: torch.Tensor, penalty: float, dead: torch.Tensor | None) -> Losses:
        n, g, pairs, weights = len(x), self.grads, self.pairs, self._weights(len(x), penalty)
        reconstruction = self._reconstruction(n, weights)
        revive = self.revive(dead, x, weights.error)
        with using(1):
            fires = (pairs.value > 0).float()
            fired = self._by_feature(fires)
            sorted_pairs = by_feature(pairs, token_of(pairs), self.d_sae)
        grad = self._decoder_gradients(n, sorted_pairs, weights)  # of feature_acts, [n_pairs]
        with using(1):
            # W_dec[f] . grads.W_dec[f], as both are sums over the pairs: value * (error . W_dec[f])
            self._along = self._by_feature(pairs.value * grad)
        sparsity = self._through_pairs(grad, fires, fired, weights)
        with using(1):
            self._through().copy_(self._by_feature(grad))
        self.gradient(sorted_pairs, grad, first(self.target, n) if self.center_input else x, g.W_enc)
        if revive is not None:
            sparsity += revive.add_to(g)
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

    def _sparse(self, n: int) -> bool:
        """Whether to look for the pairs in a step of ``n`` rows."""
        raise NotImplementedError  # every kind's workspace has its own

    def _choose(self, pre: torch.Tensor) -> Pairs | None:
        """The pairs of these ``[n, d_sae]``, None if too many; where a value is 0, the feature does not fire."""
        raise NotImplementedError  # every kind's workspace has its own

    def _through_pairs(self, grad: torch.Tensor, fires: torch.Tensor, fired: torch.Tensor, weights: Weights) -> float:
        """The gradient of ``hidden_pre`` in place of that of ``feature_acts``; what sparsity costs is returned.

        Args:
            grad: ``[n_pairs]``, changed in place.
            fires: ``[n_pairs]``, 1 where the feature fires and 0 elsewhere.
            fired: ``[d_sae]``, on how many rows.
            weights: of the losses.
        """
        with using(1):
            grad.mul_(fires)
        return 0.0

    def _by_feature(self, weights: torch.Tensor) -> torch.Tensor:
        """Their sums over the pairs of each feature. ``[n_pairs]`` -> ``[d_sae]``."""
        summed = torch.bincount(self.pairs.feature, weights=weights, minlength=self.d_sae)
        return summed.float()  # of no pair at all it is int64

    def _decode(self, n: int) -> None:
        self.decode(self.pairs, first(self.error, n)).sub_(first(self.target, n))

    def _reconstruction(self, n: int, weights: Weights) -> float:
        return weights.error * self.squared_error(n)

    def _decoder_gradients(self, n: int, sorted_pairs: ByFeature, weights: Weights) -> torch.Tensor:
        """Fill ``W_dec``'s and ``b_dec``'s; the gradient of each pair's activation is returned. ``[n_pairs]``."""
        error = first(self.error, n).mul_(2.0 * weights.error)
        torch.sum(error, 0, out=self.grads.b_dec)
        self.gradient(sorted_pairs, self.pairs.value, error, self.grads.W_dec)
        return sampled(self.pairs, error, self.params.W_dec)
