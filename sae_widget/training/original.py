"""The fast path for small full-batch runs, as in the original tutorial: many epochs at a time.

The loss and its gradients are those of ``gradients.Workspace`` without its extras. An epoch is a dozen calls
into buffers that are made once; what its record needs stays in those buffers, and the records of up to 25
epochs are worked out together. Whoever wants the weights in the middle of them gets them exactly: the epochs
are done again from the copy that was made before the first (``rewind``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from sae_widget.metrics import spread, variance_share
from sae_widget.training.base import Adam

if TYPE_CHECKING:
    from collections.abc import Callable

    from sae_widget.config import TrainConfig
    from sae_widget.training.base import Moments
    from sae_widget.training.gradients import Workspace

MOST_EPOCHS = 25
BUFFER_FLOATS = 320_000  # of all epochs' errors together, so that they stay in the cache
MOST_FEATURES = 512
SMALL_PRODUCT = 250_000  # multiplications; numpy's product is then quicker than torch's, and takes one thread


def fits(config: TrainConfig, n_rows: int, d_in: int) -> bool:
    """Whether a full-batch run of this size and recipe takes the fast path."""
    plain = not (config.unit_norm_decoder or config.center or config.max_grad_norm or config.target_l0)
    small = 4 * n_rows * d_in <= BUFFER_FLOATS and config.d_sae <= MOST_FEATURES
    plain = plain and not config.resample_every and config.precision != "bfloat16"
    return config.architecture == "standard" and plain and small


@dataclass(frozen=True, eq=False)
class Epochs:
    """What some epochs in a row showed, one entry an epoch."""

    reconstruction: list[float]
    sparsity: list[float]
    l0: list[float]
    explained_variance: list[float]
    explained_variance_with_first: list[float]
    fired: np.ndarray  # [n_epochs, d_sae] bool

    def __len__(self) -> int:
        """How many epochs."""
        return len(self.l0)


class _Slot(NamedTuple):
    """One epoch's buffers: as numpy has them, and the same memory as the products take it."""

    error: np.ndarray  # sae_out - x, [n, d_in]
    acts: np.ndarray  # feature_acts and a column of ones, [n, d_sae + 1]
    features: np.ndarray  # feature_acts, [n, d_sae]
    error_out: Any
    acts_in: Any
    pre: Any  # the memory of ``features``


class FastEpochs:
    """Full-batch epochs of ReLU + L1 with Adam, on parameters that belong to a ``Workspace``.

    Args:
        x: ``[n, d_in]`` scaled activations, all of them.
        first: ``[n]`` bool, the rows of position 0.
        work: whose parameters are trained.
        moments: Adam's.
    """

    product: Callable[..., Any]
    view: Callable[[torch.Tensor], Any]

    def __init__(self, x: torch.Tensor, first: torch.Tensor, work: Workspace, moments: Moments) -> None:
        self.x, self.work, self.moments = x, work, moments
        n, d_in = x.shape
        self.most = max(1, min(MOST_EPOCHS, BUFFER_FLOATS // (n * d_in)))
        self.errors = _slots(self.most, n, d_in)  # sae_out - x of each epoch, [n_epochs, n, d_in]
        self.acts = _slots(self.most, n, work.d_sae + 1).fill_(1.0)  # a last column of ones: b_dec's input
        small = n * d_in * (work.d_sae + 1) <= SMALL_PRODUCT
        self.product = np.matmul if small else torch.mm  # called alike
        self.view = torch.Tensor.numpy if small else lambda tensor: tensor
        self.slots = [self._slot(error, acts) for error, acts in zip(self.errors, self.acts, strict=True)]
        self.grad_pre = torch.empty(n, work.d_sae, dtype=torch.float32)
        self.scaled = torch.empty(n, work.d_sae + 1, dtype=torch.float32)  # acts times the error's factor
        self.on = np.empty((n, work.d_sae), dtype=np.float32)
        self.adam = Adam(work.params, work.grads, moments)
        self.rest = (~first).nonzero()[:, 0]
        self.totals = spread(x), spread(x[self.rest])
        self.before: tuple[torch.Tensor, ...] = ()

    def run(self, step: int, rates: list[float], l1: list[float]) -> Epochs:
        """Train as many epochs as there are ``rates``, at most ``most``; ``rewind`` can undo them.

        Args:
            step: number of the first, counted from 1.
            rates: Adam's step size in each.
            l1: weight of the penalty in each.
        """
        self.before = tuple(vector.clone() for vector in self._vectors())
        self._train(step, rates, l1)
        return self._measure(l1)

    def rewind(self, epochs: int, step: int, rates: list[float], l1: list[float]) -> None:
        """Bring the weights to where they were after the first ``epochs`` of the last ``run``."""
        self.restore(self.before)
        self._train(step, rates[:epochs], l1[:epochs])

    def restore(self, vectors: tuple[torch.Tensor, ...]) -> None:
        """Put back what ``before`` was at some time."""
        for vector, before in zip(self._vectors(), vectors, strict=True):
            vector.copy_(before)

    def finite(self) -> bool:
        """Whether parameters and moments are all finite."""
        return all(math.isfinite(float(vector.sum())) for vector in self._vectors())

    def _vectors(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return self.work.params.vector, self.moments[0].vector, self.moments[1].vector

    def _slot(self, error: torch.Tensor, acts: torch.Tensor) -> _Slot:
        view, features = self.view, acts[:, :-1]
        return _Slot(error.numpy(), acts.numpy(), features.numpy(), view(error), view(acts), view(features))

    def _per_error(self) -> float:
        n, d_in = self.x.shape
        return 1.0 / (n * d_in) if self.work.config.loss_reduction == "mean" else 1.0 / n

    def _per_act(self) -> float:
        n = len(self.x)
        return 1.0 / (n * self.work.d_sae) if self.work.config.loss_reduction == "mean" else 1.0 / n

    def _train(self, step: int, rates: list[float], l1: list[float]) -> None:
        p, g, product, view = self.work.params, self.work.grads, self.product, self.view
        x, encoder, decoder, from_decoder = (view(t) for t in (self.x, p.W_enc.t(), p.decoder, p.W_dec.t()))
        grad_encoder, grad_decoder, grad_pre_t = view(g.W_enc), view(g.decoder), view(self.grad_pre.t())
        scaled_t, grad_pre_out = view(self.scaled.t()), view(self.grad_pre)
        rows, b_enc, grad_b_enc, grad_pre, scaled = (
            t.numpy() for t in (self.x, p.b_enc, g.b_enc, self.grad_pre, self.scaled)
        )
        on, both, per_act, adam = self.on, 2.0 * self._per_error(), self._per_act(), self.adam
        with np.errstate(all="ignore"):  # what is not finite is found afterwards, with its step
            for i, rate in enumerate(rates):
                slot = self.slots[i]
                product(x, encoder, out=slot.pre)
                np.add(slot.features, b_enc, out=slot.features)
                np.maximum(slot.features, 0.0, out=slot.features)  # [n, d_sae]
                product(slot.acts_in, decoder, out=slot.error_out)
                np.subtract(slot.error, rows, out=slot.error)  # [n, d_in]
                product(slot.error_out, from_decoder, out=grad_pre_out)
                np.multiply(grad_pre, both, out=grad_pre)
                np.add(grad_pre, per_act * l1[i], out=grad_pre)
                np.multiply(grad_pre, np.sign(slot.features, out=on), out=grad_pre)  # [n, d_sae]
                product(grad_pre_t, x, out=grad_encoder)
                np.add.reduce(grad_pre, 0, out=grad_b_enc)
                np.multiply(slot.acts, both, out=scaled)
                product(scaled_t, slot.error_out, out=grad_decoder)
                adam(step + i, rate)

    def _measure(self, l1: list[float]) -> Epochs:
        done, n = len(l1), len(self.x)
        rows = torch.linalg.vector_norm(self.errors[:done], dim=2).square_()  # [n_epochs, n]
        features = self.acts[:done, :, :-1]
        on = (features > 0).numpy()  # [n_epochs, n, d_sae]
        size = (features.sum((1, 2)) * self._per_act()).tolist()
        every, rest = rows.sum(1).tolist(), rows[:, self.rest].sum(1).tolist()
        return Epochs(
            reconstruction=[self._per_error() * error for error in every],
            sparsity=[weight * value for weight, value in zip(l1, size, strict=True)],
            l0=(np.count_nonzero(on, axis=(1, 2)) / n).tolist(),
            explained_variance=[variance_share(error, *self.totals[1]) for error in rest],
            explained_variance_with_first=[variance_share(error, *self.totals[0]) for error in every],
            fired=np.asarray(on.any(axis=1)),
        )


def tokens_since_fired(fired: np.ndarray, since: np.ndarray, n: int) -> np.ndarray:
    """For each epoch and feature, how many tokens ago it last fired, after that epoch.

    Args:
        fired: ``[n_epochs, d_sae]`` bool.
        since: ``[d_sae]`` before the first epoch.
        n: tokens in an epoch.

    Returns:
        ``[n_epochs, d_sae]`` int64.
    """
    epoch = np.arange(len(fired))[:, None]
    last = np.maximum.accumulate(np.where(fired, epoch, -1), axis=0)
    return np.where(last >= 0, (epoch - last) * n, since + (epoch + 1) * n)


def _slots(count: int, rows: int, columns: int) -> torch.Tensor:
    """``[count, rows, columns]`` zeros, each slot on a cache line: a product's last bit can hang on that."""
    stride = -(-rows * columns // 16) * 16
    return torch.zeros(count * stride, dtype=torch.float32).as_strided((count, rows, columns), (stride, columns, 1))
