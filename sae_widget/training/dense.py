"""Kinds whose feature activations are a whole matrix: ReLU + L1, and any other by its ``fire``."""

from __future__ import annotations

import torch

from sae_widget.training.base import first
from sae_widget.training.gradients import Losses, Workspace


class DenseWorkspace(Workspace):
    """The rule of ``SAE.fire`` and an L1 penalty: where a feature fires, its activation is its ``hidden_pre``."""

    def resize(self, batch_size: int) -> None:
        """Make the buffers for another batch size."""
        super().resize(batch_size)
        self.acts, self.scratch = self._more_buffers()  # feature_acts, and room

    def _more_buffers(self) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.empty_like(self.pre), torch.empty_like(self.pre)

    def _let_go(self) -> None:
        super()._let_go()
        self.acts = self.scratch = self.pre

    def forward(self, x: torch.Tensor) -> None:
        """Fill ``error``, and what ``backward`` needs."""
        self._encode(x)
        self._activate(x.shape[0])

    def backward(self, x: torch.Tensor, penalty: float, dead: torch.Tensor | None) -> Losses:
        """Fill ``grads`` from what ``forward`` left."""
        n, g = len(x), self.grads
        acts, grad_pre, weights = first(self.acts, n), first(self.scratch, n), self._weights(n, penalty)
        fired = self.products.count(acts, grad_pre)
        reconstruction = weights.error * self.squared_error(n)
        sparsity = self._penalty(acts, fired, weights.act)
        revive = self.revive(dead, x, weights.error)
        error = first(self.error, n).mul_(2.0 * weights.error)  # the gradient of sae_out, [batch, d_in]
        torch.sum(error, 0, out=g.b_dec)
        grad_out = self.products.rounded(error)
        self.products.outer(acts, grad_out, g.W_dec)
        self.products.back(grad_out, grad_pre)  # so far the gradient of feature_acts, [batch, d_sae]
        self._through_activation(grad_pre, acts, weights.act)
        self.products.outer(grad_pre, self.u, g.W_enc)
        self.products.columns(grad_pre, g.b_enc)
        if revive is not None:
            sparsity += revive.add_to(g)
        self._bias_gradients()
        return Losses(reconstruction, sparsity, fired)

    def _activate(self, n: int) -> None:
        """From ``hidden_pre`` to the error."""
        acts = first(self.acts, n)
        self._fire(first(self.pre, n), acts)
        self.products.decode(acts, first(self.target, n), first(self.error, n))

    def _fire(self, pre: torch.Tensor, acts: torch.Tensor) -> None:
        self.kind.fire(pre, acts, self.config)

    def _penalty(self, acts: torch.Tensor, fired: torch.Tensor, per_act: float) -> float:
        return per_act * self.products.total(acts) if per_act else 0.0

    def _through_activation(self, grad: torch.Tensor, acts: torch.Tensor, per_act: float) -> None:
        """The gradient of ``hidden_pre`` in place of that of ``feature_acts``, both ``[batch, d_sae]``."""
        if per_act:
            grad.add_(per_act)
        torch.ops.aten.threshold_backward.grad_input(grad, acts, 0.0, grad_input=grad)
