"""Toy models of superposition: their settings, the trained models, and what can be measured on them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch

MOST_NUMBERS = 100_000_000
"""Of n_models x n_features x batch_size: three arrays of that many float32 are held."""


MOST_LOG10 = 18
"""Of what a feature counts in the loss, so that float32 holds the squares of gradients."""


@dataclass(frozen=True)
class SuperpositionConfig:
    """Many toy models that squeeze ``n_features`` into ``d_hidden`` dimensions, trained side by side.

    Each is ``x' = relu(W W^T x + b)`` on features that are mostly zero, with the loss ``mean of importance *
    (x - x')^2`` (Elhage et al. 2022, https://transformer-circuits.pub/2022/toy_model). Features come in this order:
    first the correlated pairs, then the anticorrelated ones, then those that are independent.
    Raises ``ValueError`` or ``TypeError`` with what is allowed when a field is out of range.
    """

    n_features: int = 5
    """Features, n in the paper."""
    d_hidden: int = 2
    """Dimensions that they share, m in the paper."""
    n_models: int = 1
    """Models that are trained side by side, each from its own start on its own samples."""
    density: float | tuple[float, ...] = 0.02
    """Probability with which a feature is on (1 - S in the paper), with strength U(0, 1); or one for each model."""
    importance: float | tuple[float, ...] = 1.0
    """Feature i counts ``importance ** i`` in the loss; or one weight for each feature."""
    correlated_pairs: int = 0
    """Pairs of features that are on together, each with its own strength."""
    anticorrelated_pairs: int = 0
    """Pairs of features that are never on together; each is on with probability ``density``, at most 0.5."""
    steps: int = 10_000
    """Optimizer steps."""
    batch_size: int = 1024
    """New samples in each step, for each model."""
    learning_rate: float = 1e-3
    """AdamW's step size, the same all the time."""
    seed: int = 0
    """Of the starts and of the samples."""

    def __post_init__(self) -> None:
        for name in ("n_features", "d_hidden", "n_models", "steps", "batch_size"):
            _whole(name, getattr(self, name), 1)
        for name in ("correlated_pairs", "anticorrelated_pairs", "seed"):
            _whole(name, getattr(self, name), 0)
        _numbers("density", self.density, self.n_models, "model", 1.0)
        _numbers("importance", self.importance, self.n_features, "feature", 1e6)
        _numbers("learning_rate", self.learning_rate, 0, "", 10.0)
        paired = 2 * (self.correlated_pairs + self.anticorrelated_pairs)
        if paired > self.n_features:
            raise ValueError(f"the pairs need {paired} features, but n_features is {self.n_features}")
        if self.anticorrelated_pairs and max(self.densities()) > 0.5:
            raise ValueError(f"density must be at most 0.5 with anticorrelated pairs, got {max(self.densities()):g}")
        if not isinstance(self.importance, tuple) and self.importance > 1:
            last = (self.n_features - 1) * math.log10(self.importance)
            if last > MOST_LOG10:
                raise ValueError(
                    f"the last feature's importance ** {self.n_features - 1} must be at most 1e{MOST_LOG10}, "
                    f"got importance {self.importance:g}"
                )
        size = self.n_models * self.n_features * self.batch_size
        if size > MOST_NUMBERS:
            raise ValueError(f"n_models x n_features x batch_size must be at most {MOST_NUMBERS:,}, got {size:,}")

    def densities(self) -> tuple[float, ...]:
        """One for each model. ``[n_models]``."""
        return self.density if isinstance(self.density, tuple) else (self.density,) * self.n_models

    def weights(self) -> tuple[float, ...]:
        """What each feature counts in the loss. ``[n_features]``."""
        if isinstance(self.importance, tuple):
            return self.importance
        return tuple(self.importance**i for i in range(self.n_features))


@dataclass(frozen=True, eq=False)
class SuperpositionModels:
    """Toy models of superposition after training, and what they do.

    Args:
        config: what they were trained with.
        W: ``[n_models, n_features, d_hidden]``, row i the direction of feature i.
        b: ``[n_models, n_features]``.
        steps: ``[n_records]`` int64, the steps at which the loss was written down.
        losses: ``[n_records, n_models]``, on the batch of that step.
    """

    config: SuperpositionConfig
    W: torch.Tensor
    b: torch.Tensor
    steps: torch.Tensor
    losses: torch.Tensor

    def hidden(self, x: torch.Tensor) -> torch.Tensor:
        """``W^T x``, ``[n_models, batch, d_hidden]``, of ``x [batch, n_features]`` or one such for each model."""
        return x @ self.W

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """``relu(W W^T x + b)``, ``[n_models, batch, n_features]``; ``x`` as in ``hidden``."""
        return (self.hidden(x) @ self.W.transpose(1, 2) + self.b[:, None]).clamp_min(0.0)

    @property
    def norms(self) -> torch.Tensor:
        """Length of each feature's direction: near 1 it is kept, near 0 left out. ``[n_models, n_features]``."""
        return self.W.norm(dim=2)

    @property
    def dimensionality(self) -> torch.Tensor:
        """``feature_dimensionality`` of each feature. ``[n_models, n_features]``."""
        return feature_dimensionality(self.W)

    @property
    def dimensions_per_feature(self) -> torch.Tensor:
        """``m / ||W||_F^2``: 1 without superposition, 1/2 where features lie in opposite pairs. ``[n_models]``."""
        return self.config.d_hidden / self.W.square().sum((1, 2))

    @property
    def interference(self) -> torch.Tensor:
        """Cosines between features, zero on the diagonal. ``[n_models, n_features, n_features]``."""
        return interference(self.W)

    def __repr__(self) -> str:
        c = self.config
        return f"SuperpositionModels({c.n_models:,} models, {c.n_features} features in {c.d_hidden} dimensions)"


def feature_dimensionality(W: torch.Tensor) -> torch.Tensor:
    """What share of a dimension each feature has to itself.

    ``D_i = |W_i|^2 / sum_j (W_i_hat . W_j)^2`` with j over all features, i too (Elhage et al. 2022): 1 for a feature
    alone in its dimension, 1/2 for one of an opposite pair, 2/5 in a pentagon, 0 for one that is left out.

    Args:
        W: ``[..., n_features, d_hidden]``.

    Returns:
        ``[..., n_features]``, 0 to 1.
    """
    square = W.square().sum(-1)  # [..., n_features]
    overlaps = (W @ W.transpose(-1, -2)).square().sum(-1)  # |W_i|^2 times the sum of the formula
    return torch.where(square > 0, square.square() / overlaps, torch.zeros_like(square))


def interference(W: torch.Tensor) -> torch.Tensor:
    """Cosines between directions, with zeros on the diagonal.

    Args:
        W: ``[..., n_features, d_hidden]``; a row of norm zero has cosine 0 with all.

    Returns:
        ``[..., n_features, n_features]``, -1 to 1.
    """
    rows = torch.nn.functional.normalize(W, dim=-1)
    cosines = rows @ rows.transpose(-1, -2)
    return cosines * (1 - torch.eye(W.shape[-2], dtype=W.dtype, device=W.device))


def _whole(name: str, value: Any, low: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be a whole number, got {value!r}")
    if value < low:
        raise ValueError(f"{name} must be at least {low}, got {value}")


def _numbers(name: str, value: Any, count: int, each: str, most: float) -> None:
    """One number above 0, or (with a ``count``) a tuple of so many."""
    if isinstance(value, tuple) and count and len(value) != count:
        raise ValueError(f"{name} must be one number or {count}, one for each {each}; got {len(value)}")
    for number in value if isinstance(value, tuple) and count else (value,):
        if isinstance(number, bool) or not isinstance(number, (int, float)):
            raise TypeError(f"{name} must be a number, got {number!r}")
        if not (0 < number <= most and math.isfinite(number)):
            raise ValueError(f"{name} must be above 0 and at most {most:g}, got {number:g}")
