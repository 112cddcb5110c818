"""The loss of one batch and its gradients, by hand, in buffers that are made once: what every kind shares."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import torch

from sae_widget.metrics import spread
from sae_widget.sae.base import trainable
from sae_widget.training.base import BETA1, Flat, first
from sae_widget.training.mesh import ALONE
from sae_widget.training.products import BFloat16, Float32

if TYPE_CHECKING:
    from sae_widget.config import TrainConfig
    from sae_widget.training.mesh import Alone

AUX_COEFFICIENT = 1 / 32  # of the dead features' loss (Gao et al. 2024, appendix A.2)
CANCELS = 0.01  # of a sum of squares: a difference below that is not trusted
DOT_ROWS = 1024  # decoder rows at a time, where they are read twice or need a temporary of their size


class Losses(NamedTuple):
    """The parts of the loss of one batch, and what fired."""

    reconstruction: float
    sparsity: float
    fired: torch.Tensor  # [d_sae] float32, on how many tokens of the batch
    n_pairs: float = math.inf  # of a token and a feature, that a step over pairs goes over; infinite: not counted

    @property
    def total(self) -> float:
        """What is minimised."""
        return self.reconstruction + self.sparsity


class Weights(NamedTuple):
    """What the parts of a batch's loss are multiplied by."""

    error: float  # of the summed squared errors
    act: float  # of the summed activations, or of the summed number of features that fire


class Workspace:
    """Parameters, gradients and scratch buffers of one SAE in training; a kind is a subclass.

    The forward pass is the one of ``SAE``: with ``x`` already scaled, ``u = x - b_dec`` (or ``x``),
    ``hidden_pre = u @ W_enc + b_enc``, ``sae_out - x = feature_acts @ W_dec - (x - b_dec)``.

    Args:
        d_in: width of the activations.
        d_sae: number of features.
        batch_size: most rows at once.
        config: the settings; their owner calls ``configure`` when they change.
        center_input: encode ``x - b_dec``.
        bfloat16: take the products in bfloat16.
        device: where everything is.
    """

    beta1 = BETA1  # Adam's
    starts_at: ClassVar[dict[str, float]] = {}  # what a vector of the kind's own starts at; 0 where nothing is said

    def __init__(
        self,
        d_in: int,
        d_sae: int,
        batch_size: int,
        config: TrainConfig,
        center_input: bool,
        *,
        bfloat16: bool = False,
        device: torch.device | str = "cpu",
    ) -> None:
        self.config, self.center_input, self.kind = config, center_input, trainable(config.architecture)
        self.device = torch.device(device)
        self.params, self.grads = (Flat(d_in, d_sae, self.kind.vectors, self.device) for _ in range(2))
        self.mesh: Alone = ALONE
        self.memory: dict[str, torch.Tensor] = {}  # what else goes on from step to step: scalars by name
        self.d_in, self.d_sae, self.bfloat16 = d_in, d_sae, bfloat16
        self.resize(batch_size)
        self._rows = batch_size  # for which the buffers were made; 0 while that is not done

    def resize(self, batch_size: int) -> None:
        """Make the buffers for another batch size."""
        self.products = (BFloat16 if self.bfloat16 else Float32)(self.params, batch_size)
        rows = torch.empty(2, batch_size, self.d_in, dtype=torch.float32, device=self.device)
        self.target, self.error = rows  # x - b_dec, sae_out - x
        self.pre = torch.empty(batch_size, self.d_sae, dtype=self.products.dtype, device=self.device)  # hidden_pre

    def configure(self, config: TrainConfig, batch_size: int) -> None:
        """Use other settings and another batch size from the next step on; where that fails, everything stays."""
        before, rows = self.config, self._rows
        self.config = config
        if self._has_room_for(batch_size):
            return
        self._rows = 0
        try:
            self.resize(batch_size)
        except BaseException:
            self.config = before
            self._let_go()
            self.resize(rows)
            self._rows = rows
            raise
        self._rows = batch_size

    def _has_room_for(self, batch_size: int) -> bool:
        """Whether the buffers are those of such batches with the settings as they are."""
        return batch_size == self._rows

    def _let_go(self) -> None:
        """Give the memory of the largest buffers back."""
        self.pre = self.pre.new_empty(0)

    def fresh(self) -> None:
        """Set what a new SAE starts with besides its matrices."""
        for name, vector in self.params.extra.items():
            vector.fill_(self.starts_at.get(name, 0.0))

    def applied(self, share: float) -> None:
        """Take note that the step of the last ``forward`` was applied.

        Args:
            share: of all pairs of a token and a feature, those of ``Losses.n_pairs``; of all processes' rows.
        """

    def forward(self, x: torch.Tensor) -> None:
        """Fill ``target``, ``pre`` and ``error`` (their first rows, for a short ``x``), and what ``backward`` needs.

        Args:
            x: ``[batch, d_in]`` scaled activations.
        """
        raise NotImplementedError  # every kind's workspace has its own

    def measure(self, x: torch.Tensor) -> None:
        """``forward`` as the trained SAE does it, where that is not the rule of training."""
        self.forward(x)

    def backward(self, x: torch.Tensor, penalty: float, dead: torch.Tensor | None) -> Losses:
        """Fill ``grads`` from what ``forward`` left, using up ``error``.

        Args:
            x: the same ``[batch, d_in]``.
            penalty: weight of the sparsity penalty, before the division of ``loss_reduction``.
            dead: numbers of the features to revive (``SAE.revives_dead``), or None.
        """
        raise NotImplementedError  # every kind's workspace has its own

    def _encode(self, x: torch.Tensor) -> None:
        n = x.shape[0]
        target = torch.sub(x, self.params.b_dec, out=first(self.target, n))
        self.u = self.products.rounded(target if self.center_input else x)  # [batch, d_in]
        self.products.encode(self.u, first(self.pre, n))
        self._squared: float | None = None

    def _weights(self, n: int, penalty: float) -> Weights:
        if self.config.loss_reduction == "mean":
            return Weights(1.0 / (n * self.d_in), penalty / (n * self.d_sae))
        return Weights(1.0 / n, penalty / n)

    def squared_error(self, n: int) -> float:
        """``sum ||sae_out - x||^2`` of the last ``forward`` of ``n`` rows, also when ``backward`` has used it up."""
        if self._squared is None:
            error = first(self.error, n).view(-1)
            self._squared = float(torch.dot(error, error))
        return self._squared

    def spread(self, x: torch.Tensor) -> tuple[float, float]:
        """``metrics.spread`` of the rows of the last ``forward``, from ``target``: its mean is near 0 in training.

        ``sum ||x - mean||^2 = sum ||target||^2 - n ||mean target||^2``, unless too many digits cancel.
        """
        n = x.shape[0]
        target = first(self.target, n)
        flat, summed = target.view(-1), target.sum(0)
        size = float(torch.dot(flat, flat))
        total = size - float(torch.dot(summed, summed)) / n
        return (total, size) if total > CANCELS * size else spread(x)

    def _bias_gradients(self) -> None:
        """The part of ``b_dec`` that goes through the encoder: ``hidden_pre`` holds ``-b_dec @ W_enc``."""
        if self.center_input:
            self.grads.b_dec.sub_(torch.mv(self.params.W_enc.t(), self._through()))

    def _through(self) -> torch.Tensor:
        """The gradient of ``u @ W_enc`` summed over the batch, ``[d_sae]``."""
        return self.grads.b_enc

    def revive(self, dead: torch.Tensor | None, x: torch.Tensor, per_error: float) -> Revival | None:
        """The loss by which dead features learn what the live ones miss (Gao et al. 2024, appendix A.2).

        ``AUX_COEFFICIENT * ||e - e_hat||^2`` in the units of the reconstruction loss: ``e`` is the error of
        the batch, and ``e_hat`` what the d_in / 2 strongest dead features of each token make of it.
        """
        if dead is None or not len(dead):
            return None
        n = len(x)
        rows, pre = self.params.W_dec[dead], self.pre[:n, dead].float()  # [n_dead, d_in], [batch, n_dead]
        strongest = max(1, self.d_in // 2)
        if len(dead) > strongest:
            values, indices = pre.topk(strongest, dim=-1, sorted=False)
            acts = torch.zeros_like(pre).scatter_(-1, indices, values.clamp_min_(0.0))
        else:
            acts = pre.clamp_min_(0.0)
        missing = torch.addmm(first(self.error, n), acts, rows)  # e_hat - e, with e = -error; [batch, d_in]
        weight = AUX_COEFFICIENT * per_error
        loss = weight * float(torch.dot(missing.view(-1), missing.view(-1)))
        grad_out = missing.mul_(2.0 * weight)
        grad_pre = (grad_out @ rows.t()).mul_(acts > 0)
        u = first(self.target, n) if self.center_input else x
        return Revival(dead, loss, acts.t() @ grad_out, grad_pre.t() @ u, grad_pre.sum(0))

    def gradient_norm(self) -> float:
        """Of all gradients together; infinite where their squares are too large to be added up."""
        grads = self.grads.vector
        return float(torch.dot(grads, grads)) ** 0.5  # less than half the time of a norm

    def keep_norms(self) -> None:
        """Take out of the decoder's gradient what would only change its rows' norms."""
        for row, grad in zip(self.params.W_dec.split(DOT_ROWS), self.grads.W_dec.split(DOT_ROWS), strict=True):
            along = (row * grad).sum(1, keepdim=True)
            grad.addcmul_(row, along, value=-1)

    def unit_norm(self) -> None:
        """Bring every decoder row to norm 1."""
        for rows in self.params.W_dec.split(DOT_ROWS):
            rows.div_(torch.linalg.vector_norm(rows, dim=1, keepdim=True).clamp_min_(1e-12))


@dataclass(frozen=True, eq=False)
class Revival:
    """The loss of the dead features and its gradients."""

    dead: torch.Tensor  # [n_dead]
    loss: float
    W_dec: torch.Tensor  # [n_dead, d_in]
    W_enc: torch.Tensor  # [n_dead, d_in]
    b_enc: torch.Tensor  # [n_dead]

    def add_to(self, grads: Flat) -> float:
        """Add these gradients to the others; the loss is returned."""
        for name in ("W_dec", "W_enc", "b_enc"):
            getattr(grads, name).index_add_(0, self.dead, getattr(self, name))
        return self.loss
