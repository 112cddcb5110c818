"""How many features fire on a token, and how often each does."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from sae_widget.metrics.base import check_tensor

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

LEAST_LOG10 = -7.0  # of the histogram: one token in ten million
ROUNDING = 1e-7  # of a log10 from float32: 1/100 is 0.0099999998 there, and belongs behind the edge all the same


def l0(feature_acts: torch.Tensor) -> float:
    """Mean number of features that fire on a token: the mean over tokens of ``#{i: feature_acts_i > 0}``.

    Args:
        feature_acts: ``[pos, d_sae]``.

    Returns:
        The number, or ``nan`` without a token.

    Raises:
        TypeError: not a tensor.
        ValueError: not two dimensions.
    """
    _check_acts(feature_acts)
    return float((feature_acts > 0).sum()) / len(feature_acts) if len(feature_acts) else math.nan


def feature_frequency(feature_acts: torch.Tensor) -> torch.Tensor:
    """Share of tokens on which each feature fires: ``#{tokens: feature_acts_i > 0} / #tokens``.

    Args:
        feature_acts: ``[pos, d_sae]`` with at least one token.

    Returns:
        ``[d_sae]`` float32, 0 to 1.

    Raises:
        TypeError: not a tensor.
        ValueError: not two dimensions, or no token.
    """
    _check_acts(feature_acts)
    if not len(feature_acts):
        raise ValueError("feature_acts must have at least one token, got none")
    return (feature_acts > 0).sum(0).to(torch.float32) / len(feature_acts)


def dead_count(frequency: ArrayLike) -> int:
    """Number of features that never fired: ``#{i: frequency_i = 0}`` on the tokens that were looked at.

    On few tokens a rare feature looks dead: say with it on how many.

    Args:
        frequency: ``[d_sae]`` tensor or array, share of tokens on which each feature fires (``feature_frequency``,
            ``FeatureStats.frequency``).

    Raises:
        ValueError: not one dimension, or a share outside 0 to 1.
    """
    return int((_shares(frequency) == 0).sum())


class FrequencyHistogram(NamedTuple):
    """How many features fire how often, on a log10 axis; those that never fire stand apart."""

    edges: np.ndarray
    """``[n_bins + 1]`` float64, log10 of the share of tokens, rising to 0 (every token)."""
    counts: np.ndarray
    """``[n_bins]`` int64 features between two edges; the first bin holds all that are rarer."""
    share_zero: float
    """Share of all features that never fire, 0 to 1; they are in no bin."""


def frequency_histogram(frequency: ArrayLike, n_bins: int = 28, low: float = LEAST_LOG10) -> FrequencyHistogram:
    """Histogram of ``log10 frequency``, as in Bricken et al. 2023 (feature density histograms).

    Args:
        frequency: ``[d_sae]`` tensor or array, share of tokens on which each feature fires.
        n_bins: bins of equal width between ``low`` and 0; each has its left edge, the last also its right.
        low: log10 of the rarest share that has a bin of its own, below 0.

    Raises:
        ValueError: not one dimension, no feature, a share outside 0 to 1, no bin, or ``low`` not below 0.
    """
    shares = _shares(frequency)
    if not len(shares):
        raise ValueError("frequency must have at least one feature, got none")
    if n_bins < 1:
        raise ValueError(f"n_bins must be at least 1, got {n_bins}")
    if not -math.inf < low < 0:
        raise ValueError(f"low must be below 0, got {low:g}")
    edges = np.linspace(low, 0.0, n_bins + 1)
    counts, _ = np.histogram(np.clip(np.log10(shares[shares > 0]) + ROUNDING, low, 0.0), edges)
    return FrequencyHistogram(edges, counts.astype(np.int64), float((shares == 0).mean()))


def _shares(frequency: ArrayLike) -> np.ndarray:
    """``[d_sae]`` float64 shares, checked; float32 is kept as exact as it is."""
    shares = np.asarray(
        frequency.detach().cpu().double() if isinstance(frequency, torch.Tensor) else frequency, np.float64
    )
    if shares.ndim != 1:
        raise ValueError(f"frequency must be [d_sae], got shape {list(shares.shape)}")
    outside = ~((shares >= 0) & (shares <= 1))
    if outside.any():
        at = int(outside.argmax())
        raise ValueError(f"frequency must be between 0 and 1, got {shares[at]:g} for feature {at:,}")
    return shares


def _check_acts(feature_acts: torch.Tensor) -> None:
    check_tensor("feature_acts", feature_acts)
    if feature_acts.ndim != 2:
        raise ValueError(f"feature_acts must be [pos, d_sae], got shape {list(feature_acts.shape)}")
