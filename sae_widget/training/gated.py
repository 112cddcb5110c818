"""The training rule of Gated SAEs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from sae_widget.training.base import first
from sae_widget.training.gradients import Losses
from sae_widget.training.pairs import sampled
from sae_widget.training.rare import RareWorkspace

if TYPE_CHECKING:
    from sae_widget.sae.gated import GatedSAE
    from sae_widget.training.gradients import Weights
    from sae_widget.training.pairs import Pairs


class GatedWorkspace(RareWorkspace):
    """The loss of Rajamanoharan et al. 2024 (https://arxiv.org/abs/2404.16014).

    ``||x - sae_out||^2 + l1_coefficient * sum relu(gate) + ||x - (relu(gate) @ W_dec + b_dec)||^2`` with decoder and
    ``b_dec`` held fixed in the last term: the gate alone must be able to reconstruct.
    """

    kind: type[GatedSAE]

    def resize(self, batch_size: int) -> None:
        """Make the buffers for another batch size."""
        super().resize(batch_size)
        self.gate = torch.empty_like(self.pre)  # relu(gate)
        self.gate_grad = torch.empty_like(self.pre)
        self.gate_error = torch.empty_like(self.error)
        self._summed = torch.empty_like(self.params.b_enc)

    def _gain(self) -> torch.Tensor:
        return self.params.extra["r_mag"].exp()

    def _magnitude(self) -> tuple[torch.Tensor, torch.Tensor]:
        """What ``hidden_pre`` is multiplied by for it, and what is added. Both ``[d_sae]``."""
        p, gain = self.params, self._gain()
        return gain, p.extra["b_mag"] - gain * p.b_enc

    def _fire(self, pre: torch.Tensor, acts: torch.Tensor) -> None:
        gain, shift = (vector.to(pre.dtype) for vector in self._magnitude())
        torch.mul(pre, gain, out=acts).add_(shift).clamp_min_(0.0)
        torch.ops.aten.threshold_backward.grad_input(acts, pre, 0.0, grad_input=acts)

    def _n_pairs(self, fired: torch.Tensor) -> float:
        return self._n_open

    def _fired_by(self, pairs: Pairs) -> torch.Tensor:
        gain, shift = self._magnitude()
        return (pairs.value * gain[pairs.feature]).add_(shift[pairs.feature]).clamp_min_(0.0)

    def _through_pairs(self, grad: torch.Tensor, fires: torch.Tensor, fired: torch.Tensor, weights: Weights) -> float:
        n, g, pairs = len(self.pairs.starts) - 1, self.grads, self.pairs
        gate, gate_error = pairs._replace(value=self.hidden), first(self.gate_error, n)
        self.decode(gate, gate_error).sub_(first(self.target, n))
        sparsity = weights.error * float(torch.dot(gate_error.view(-1), gate_error.view(-1)))
        sparsity += weights.act * float(gate.value.sum())
        gate_grad = sampled(gate, gate_error.mul_(2.0 * weights.error), self.params.W_dec).add_(weights.act)
        grad.mul_(fires)
        gain, without_bias = self._gain(), self.hidden - self.params.b_enc[pairs.feature]
        g.b_enc.copy_(self._by_feature(gate_grad))
        g.extra["b_mag"].copy_(self._by_feature(grad))
        g.extra["r_mag"].copy_(self._by_feature(without_bias.mul_(grad))).mul_(gain)
        grad.mul_(gain[pairs.feature]).add_(gate_grad)
        return sparsity

    def _over_matrices(self, x: torch.Tensor, penalty: float, dead: torch.Tensor | None) -> Losses:
        n, g, p = len(x), self.grads, self.params
        acts, grad_pre, gate, gate_grad = self.acts[:n], self.scratch[:n], self.gate[:n], self.gate_grad[:n]
        pre, weights, gate_error = self.pre[:n], self._weights(n, penalty), self.gate_error[:n]
        fired = self.products.count(acts, grad_pre)
        torch.clamp_min(pre, 0.0, out=gate)
        if self._counts:
            self._n_open = float(self.products.count(gate, gate_grad).sum())
        self.products.decode(gate, self.target[:n], gate_error)
        auxiliary = weights.error * float(torch.dot(gate_error.view(-1), gate_error.view(-1)))
        sparsity = auxiliary + (weights.act * self.products.total(gate) if weights.act else 0.0)
        reconstruction = weights.error * self.squared_error(n)
        error = self.error[:n].mul_(2.0 * weights.error)
        torch.sum(error, 0, out=g.b_dec)
        grad_out = self.products.rounded(error)
        self.products.outer(acts, grad_out, g.W_dec)
        self.products.back(grad_out, grad_pre)
        torch.ops.aten.threshold_backward.grad_input(grad_pre, acts, 0.0, grad_input=grad_pre)  # of the magnitude
        keep = self.u if self.u.dtype == torch.float32 else self.u.clone()
        self.products.back(self.products.rounded(gate_error.mul_(2.0 * weights.error)), gate_grad)
        self.u = keep
        if weights.act:
            gate_grad.add_(weights.act)
        torch.ops.aten.threshold_backward.grad_input(gate_grad, gate, 0.0, grad_input=gate_grad)
        gain = self._gain()
        self.products.columns(gate_grad, g.b_enc)
        self.products.columns(grad_pre, g.extra["b_mag"])
        product = torch.sub(pre, p.b_enc.to(pre.dtype), out=gate).mul_(grad_pre)
        self.products.columns(product, g.extra["r_mag"])
        g.extra["r_mag"].mul_(gain)
        grad_pre.mul_(gain.to(pre.dtype)).add_(gate_grad)
        self.products.columns(grad_pre, self._summed)
        self.products.outer(grad_pre, self.u, g.W_enc)
        self._bias_gradients()
        return Losses(reconstruction, sparsity, fired)

    def _through(self) -> torch.Tensor:
        return self._summed
