"""The loss of one batch and its gradients, by hand, in buffers that are made once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from sae_widget.sae.base import trainable
from sae_widget.training.base import Flat

if TYPE_CHECKING:
    from sae_widget.config import TrainConfig

AUX_COEFFICIENT = 1 / 32  # of the dead features' loss (Gao et al. 2024, appendix A.2)
DOT_ROWS = 1024  # decoder rows at a time, where a temporary of the size of the rows is needed


@dataclass(frozen=True, eq=False)
class Losses:
    """The parts of the loss of one batch, and what fired."""

    reconstruction: float
    sparsity: float
    fired: torch.Tensor  # [d_sae] float32, on how many tokens of the batch

    @property
    def total(self) -> float:
        """What is minimised."""
        return self.reconstruction + self.sparsity


class Workspace:
    """Parameters, gradients and scratch buffers of one SAE in training.

    The forward pass is the one of ``SAE``: with ``x`` already scaled, ``u = x - b_dec`` (or ``x``),
    ``hidden_pre = u @ W_enc + b_enc``, ``sae_out - x = feature_acts @ W_dec - (x - b_dec)``.
    """

    def __init__(self, d_in: int, d_sae: int, batch_size: int, config: TrainConfig, center_input: bool) -> None:
        self.config, self.center_input, self.kind = config, center_input, trainable(config.architecture)
        self.params, self.grads = Flat(d_in, d_sae), Flat(d_in, d_sae)
        self.d_in, self.d_sae = d_in, d_sae
        self.resize(batch_size)

    def resize(self, batch_size: int) -> None:
        """Make the buffers for another batch size."""
        self.target = torch.empty(batch_size, self.d_in, dtype=torch.float32)  # x - b_dec
        self.error = torch.empty(batch_size, self.d_in, dtype=torch.float32)  # sae_out - x
        self.pre = torch.empty(batch_size, self.d_sae, dtype=torch.float32)  # hidden_pre
        self.acts = torch.empty(batch_size, self.d_sae, dtype=torch.float32)  # feature_acts
        self.scratch = torch.empty(batch_size, self.d_sae, dtype=torch.float32)
        self.ones = torch.ones(batch_size, dtype=torch.float32)

    def forward(self, x: torch.Tensor) -> None:
        """Fill ``target``, ``pre``, ``acts`` and ``error`` (their first rows, for a short ``x``).

        Args:
            x: ``[batch, d_in]`` scaled activations.
        """
        n, p = len(x), self.params
        target, pre, acts = self.target[:n], self.pre[:n], self.acts[:n]
        torch.sub(x, p.b_dec, out=target)
        torch.addmm(p.b_enc, target if self.center_input else x, p.W_enc.t(), out=pre)  # [batch, d_sae]
        self.kind.fire(pre, acts, self.config)
        torch.addmm(target, acts, p.W_dec, beta=-1, out=self.error[:n])  # [batch, d_in]

    def backward(self, x: torch.Tensor, l1: float, dead: torch.Tensor | None) -> Losses:
        """Fill ``grads`` from what ``forward`` left, using up ``error``.

        Args:
            x: the same ``[batch, d_in]``.
            l1: weight of the summed feature activations, before the division of ``loss_reduction``.
            dead: numbers of the features to revive (``SAE.revives_dead``), or None.
        """
        p, g, acts, n = self.params, self.grads, self.acts, len(x)
        mean = self.config.loss_reduction == "mean"
        per_error = 1.0 / (n * self.d_in) if mean else 1.0 / n
        per_act = l1 / (n * self.d_sae) if mean else l1 / n
        fired = self.ones @ torch.sign(acts, out=self.scratch)  # exact in float32
        reconstruction = per_error * float(torch.dot(self.error.view(-1), self.error.view(-1)))
        sparsity = per_act * float(acts.sum()) if l1 else 0.0
        revive = self._revive(dead, per_error) if dead is not None and len(dead) else None
        grad_out = self.error.mul_(2.0 * per_error)  # [batch, d_in]
        torch.mm(acts.t(), grad_out, out=g.W_dec)
        torch.sum(grad_out, 0, out=g.b_dec)
        grad_pre = torch.mm(grad_out, p.W_dec.t(), out=self.scratch)  # [batch, d_sae]
        if per_act:
            grad_pre.add_(per_act)
        torch.ops.aten.threshold_backward.grad_input(grad_pre, acts, 0.0, grad_input=grad_pre)
        if revive is not None:
            sparsity += revive.add_to(g, grad_pre)
        self._encoder_gradients(x, grad_pre)
        return Losses(reconstruction, sparsity, fired)

    def _encoder_gradients(self, x: torch.Tensor, grad_pre: torch.Tensor) -> None:
        p, g = self.params, self.grads
        torch.mm(grad_pre.t(), self.target if self.center_input else x, out=g.W_enc)
        torch.sum(grad_pre, 0, out=g.b_enc)
        if self.center_input:  # hidden_pre holds -b_dec @ W_enc
            g.b_dec.sub_(g.b_enc @ p.W_enc)

    def _revive(self, dead: torch.Tensor, per_error: float) -> _Revival:
        """The loss by which dead features learn what the live ones miss (Gao et al. 2024, appendix A.2).

        ``AUX_COEFFICIENT * ||e - e_hat||^2`` in the units of the reconstruction loss: ``e`` is the error of
        the batch, and ``e_hat`` what the d_in / 2 strongest dead features of each token make of it.
        """
        rows, pre = self.params.W_dec[dead], self.pre[:, dead]  # [n_dead, d_in], [batch, n_dead]
        values, indices = pre.topk(min(len(dead), max(1, self.d_in // 2)), dim=-1, sorted=False)
        acts = torch.zeros_like(pre).scatter_(-1, indices, values.clamp_min_(0.0))
        missing = torch.addmm(self.error, acts, rows)  # e_hat - e, with e = -error; [batch, d_in]
        weight = AUX_COEFFICIENT * per_error
        loss = weight * float(torch.dot(missing.view(-1), missing.view(-1)))
        grad_out = missing.mul_(2.0 * weight)
        grad_pre = (grad_out @ rows.t()).mul_(acts > 0)
        return _Revival(dead, loss, acts.t() @ grad_out, grad_pre)

    def keep_norms(self) -> None:
        """Take out of the decoder's gradient what would only change its rows' norms."""
        for start in range(0, self.d_sae, DOT_ROWS):
            rows, grad = self.params.W_dec[start : start + DOT_ROWS], self.grads.W_dec[start : start + DOT_ROWS]
            along = (rows * grad).sum(1, keepdim=True)
            grad.addcmul_(rows, along, value=-1)

    def unit_norm(self) -> None:
        """Bring every decoder row to norm 1."""
        rows = self.params.W_dec
        rows.div_(torch.linalg.vector_norm(rows, dim=1, keepdim=True).clamp_min_(1e-12))


@dataclass(frozen=True, eq=False)
class _Revival:
    dead: torch.Tensor  # [n_dead]
    loss: float
    grad_W_dec: torch.Tensor  # [n_dead, d_in]
    grad_pre: torch.Tensor  # [batch, n_dead]

    def add_to(self, grads: Flat, grad_pre: torch.Tensor) -> float:
        """Add these gradients to the others; the loss is returned."""
        grads.W_dec.index_add_(0, self.dead, self.grad_W_dec)
        grad_pre.index_add_(1, self.dead, self.grad_pre)
        return self.loss
