"""Training of toy models of superposition, many at once, with gradients worked out by hand."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sae_widget.threads import one_thread
from sae_widget.toy.models import SuperpositionConfig, SuperpositionModels, feature_dimensionality

if TYPE_CHECKING:
    from collections.abc import Iterator

WEIGHT_DECAY = 0.01  # of AdamW, as torch has it
LEAST = 1e-30  # density; float32 cannot hold the inverse of much smaller ones
BETA1, BETA2, EPS = 0.9, 0.999, 1e-8


@dataclass(frozen=True, eq=False)
class SuperpositionStep:
    """How far the training of toy models has come, with its own copies of the weights.

    Args:
        step: counted from 1.
        losses: ``[n_models]``, on the batch of this step, before it was applied.
        W: ``[n_models, n_features, d_hidden]``.
        b: ``[n_models, n_features]``.
    """

    step: int
    losses: torch.Tensor
    W: torch.Tensor
    b: torch.Tensor

    @property
    def dimensionality(self) -> torch.Tensor:
        """``feature_dimensionality`` of each feature. ``[n_models, n_features]``."""
        return feature_dimensionality(self.W)


def run_superposition(config: SuperpositionConfig, *, record_every: int = 100) -> Iterator[SuperpositionStep]:
    """Train toy models of superposition and yield a record now and then.

    Everything random comes from an own generator. The work between two records is done in one torch thread: half
    of it is drawing samples, which never uses more, and for small models more threads only wait for each other.

    Args:
        config: the models.
        record_every: steps between two records; the first and the last step have one as well.

    Returns:
        A generator; not asking for the next record is a pause.

    Raises:
        TypeError: ``config`` is no ``SuperpositionConfig``.
        ValueError: ``record_every`` below 1.
    """
    if not isinstance(config, SuperpositionConfig):
        raise TypeError(f"config must be a SuperpositionConfig, got {type(config).__name__}")
    if record_every < 1:
        raise ValueError(f"record_every must be at least 1, got {record_every}")
    return _records(config, record_every)


def train_superposition(config: SuperpositionConfig | None = None, **changes: Any) -> SuperpositionModels:
    """Train toy models of superposition to the end: ``train_superposition(density=0.02, n_models=4)``.

    Args:
        config: the models; None for the defaults, five features in two dimensions.
        changes: fields of ``SuperpositionConfig``, instead of a ``config``.

    Returns:
        The trained models with their loss curves, a hundred points each.

    Raises:
        TypeError: an unknown field, or fields together with a ``config``.
        ValueError: a field out of its range.
    """
    known = [field.name for field in fields(SuperpositionConfig)]
    for name in changes:
        if name not in known:
            raise TypeError(f"unknown setting {name!r}; known: {', '.join(known)}")
    if config is not None and changes:
        raise TypeError(f"give a config or single settings, not both: got {', '.join(changes)} as well")
    config = config or SuperpositionConfig(**changes)
    records = list(run_superposition(config, record_every=max(1, config.steps // 100)))
    steps = torch.tensor([record.step for record in records])
    return SuperpositionModels(config, records[-1].W, records[-1].b, steps, torch.stack([r.losses for r in records]))


def _records(config: SuperpositionConfig, record_every: int) -> Iterator[SuperpositionStep]:
    training = _Training(config)
    step = 0
    while step < config.steps:
        goal = 1 if step == 0 else min(config.steps, step - step % record_every + record_every)
        with one_thread():
            while step < goal:
                step += 1
                losses = training.one_step(step, measure=step == goal)
        assert losses is not None
        yield SuperpositionStep(step, losses, training.W.clone(), training.b.clone())


class _Training:
    """The weights of all models, AdamW and the buffers; samples are columns, so that the products are long."""

    def __init__(self, config: SuperpositionConfig) -> None:
        c, f32 = config, torch.float32
        self.config, n_weights = config, config.n_models * config.n_features * config.d_hidden
        self.random = np.random.Generator(np.random.SFC64(c.seed))  # twice as fast as torch's
        self.params, self.grads, self.mean, self.square = torch.zeros(
            4, n_weights + c.n_models * c.n_features, dtype=f32
        )
        self.W, self.b = self._views(self.params)
        self.W_grad, self.b_grad = self._views(self.grads)
        start = self.random.standard_normal(self.W.shape, dtype=np.float32)
        self.W.copy_(torch.from_numpy(start)).mul_(math.sqrt(2 / (c.n_features + c.d_hidden)))  # Xavier
        shape = c.n_models, c.n_features, c.batch_size
        self.x, self.out, self.error = (torch.empty(shape, dtype=f32) for _ in range(3))
        self.density = torch.tensor(c.densities(), dtype=f32).clamp_min(LEAST)[:, None, None]  # [n_models, 1, 1]
        self.weights = torch.tensor(c.weights(), dtype=f32)[:, None]  # [n_features, 1]
        self.slope = self.weights * (2 / (c.batch_size * c.n_features))
        self.count = torch.zeros((), dtype=f32)

    def _views(self, flat: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        c = self.config
        split = c.n_models * c.n_features * c.d_hidden
        return flat[:split].view(c.n_models, c.n_features, c.d_hidden), flat[split:].view(c.n_models, c.n_features)

    def sample(self) -> None:
        """Fill ``x [n_models, n_features, batch]``: on with probability ``density``, then U(0, 1).

        With u uniform, ``relu(1 - u / p)`` is just that from a single number.
        """
        c, x = self.config, self.x
        self.random.random(out=x.numpy(), dtype=np.float32)
        together, apart = 2 * c.correlated_pairs, 2 * (c.correlated_pairs + c.anticorrelated_pairs)
        both = x[:, 0:together:2] < self.density
        other = (x[:, together:apart:2] >= self.density) & (x[:, together:apart:2] < 2 * self.density)
        partners = x[:, 1:together:2].clone(), x[:, together + 1 : apart : 2].clone()
        x.mul_(-1 / self.density).add_(1.0).clamp_min_(0.0)
        x[:, 1:together:2] = partners[0] * both
        x[:, together + 1 : apart : 2] = partners[1] * other

    def gradients(self, measure: bool) -> torch.Tensor | None:
        """Fill ``W_grad`` and ``b_grad`` for the samples; with ``measure`` the loss of each model ``[n_models]``."""
        x, out, error, W = self.x, self.out, self.error, self.W
        W_t = W.transpose(1, 2)
        hidden = torch.bmm(W_t, x)  # [n_models, d_hidden, batch]
        torch.baddbmm(self.b[:, :, None], W, hidden, out=out).clamp_min_(0.0)
        torch.sub(out, x, out=error)
        losses = (self.weights * error.square()).mean((1, 2)) if measure else None
        error.mul_(self.slope).mul_(out.sign_())  # the slope at what the ReLU reads; sign: 1 where it lets through
        torch.bmm(error, hidden.transpose(1, 2), out=self.W_grad)
        back = torch.bmm(W_t, error)  # [n_models, d_hidden, batch]
        self.W_grad.baddbmm_(x, back.transpose(1, 2))
        torch.sum(error, 2, out=self.b_grad)
        return losses

    def one_step(self, step: int, measure: bool) -> torch.Tensor | None:
        """New samples, gradients, AdamW; the losses ``[n_models]`` when they are asked for."""
        self.sample()
        losses = self.gradients(measure)
        torch._fused_adamw_(
            [self.params],
            [self.grads],
            [self.mean],
            [self.square],
            [],
            [self.count.fill_(step)],
            lr=self.config.learning_rate,
            beta1=BETA1,
            beta2=BETA2,
            weight_decay=WEIGHT_DECAY,
            eps=EPS,
            amsgrad=False,
            maximize=False,
        )
        return losses
