"""Measures against known features: which directions were found, and how much too small activations are."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

from sae_widget.metrics.base import check_alike, check_tensor


class BestMatch(NamedTuple):
    """For each true direction the decoder row that is nearest to it."""

    cosine: torch.Tensor
    """``[n_true]``, of the nearest row."""
    feature: torch.Tensor
    """``[n_true]`` int64, its number."""


def best_match(W_dec: torch.Tensor, directions: torch.Tensor, live: torch.Tensor | None = None) -> BestMatch:
    """The decoder row with the largest cosine for each true direction; a row of norm zero has cosine 0.

    Args:
        W_dec: ``[d_sae, d_in]`` decoder.
        directions: ``[n_true, d_in]`` known directions of any norm.
        live: ``[d_sae]`` bool, which features fire at all; the others are left out. None: all are live.

    Returns:
        Cosines and feature numbers; all cosines 0 and features -1 when none is live.

    Raises:
        TypeError: not tensors.
        ValueError: shapes that do not fit together.
    """
    for name, given in (("W_dec", W_dec), ("directions", directions)):
        check_tensor(name, given)
    if W_dec.ndim != 2 or directions.ndim != 2 or W_dec.shape[1] != directions.shape[1] or not len(directions):
        got = f"{list(W_dec.shape)} and {list(directions.shape)}"
        raise ValueError(f"W_dec must be [d_sae, d_in] and directions [n_true, d_in], got {got}")
    numbers = torch.arange(len(W_dec))
    if live is not None:
        check_tensor("live", live)
        if live.dtype != torch.bool or live.shape != W_dec.shape[:1]:
            raise ValueError(f"live must be [{len(W_dec)}] bool, got {list(live.shape)} {live.dtype}")
        numbers = numbers[live.cpu()]
    if not len(numbers):
        return BestMatch(torch.zeros(len(directions)), torch.full((len(directions),), -1))
    wide = torch.promote_types(torch.float32, torch.promote_types(W_dec.dtype, directions.dtype))
    rows = _unit(W_dec.detach()[numbers.to(W_dec.device)].to(wide))  # [n_live, d_in]
    true = _unit(directions.detach().to(wide))
    found = [(part @ rows.T).max(dim=1) for part in true.split(1024)]
    best = torch.cat([part.indices for part in found])
    return BestMatch(torch.cat([part.values for part in found]), numbers[best.cpu()])


def _unit(rows: torch.Tensor) -> torch.Tensor:
    """``[n, d]`` of norm 1, of however small or large a norm they were; rows of zeros stay."""
    size = rows.abs().amax(1, keepdim=True)
    return torch.nn.functional.normalize(rows / torch.where(size > 0, size, torch.ones_like(size)), dim=1)


def mmcs(W_dec: torch.Tensor, directions: torch.Tensor, live: torch.Tensor | None = None) -> float:
    """Mean max cosine similarity: the mean over true directions of the largest cosine with a decoder row.

    ``mean_i max_j cos(directions_i, W_dec_j)`` (Sharkey, Braun & Millidge 2022, "Taking features out of
    superposition with sparse autoencoders"). 1: all were found; chance is not 0, but 0.40 for 64
    random rows and 64 directions in 32 dimensions.

    Args:
        W_dec: ``[d_sae, d_in]`` decoder.
        directions: ``[n_true, d_in]`` known directions.
        live: ``[d_sae]`` bool, which features fire at all; None: all.

    Raises:
        TypeError: not tensors.
        ValueError: shapes that do not fit together.
    """
    return float(best_match(W_dec, directions, live).cosine.mean())


def recovered(
    W_dec: torch.Tensor, directions: torch.Tensor, live: torch.Tensor | None = None, threshold: float = 0.9
) -> int:
    """Number of true directions that were found: ``#{i: max_j cos(directions_i, W_dec_j) > threshold}``.

    Args:
        W_dec: ``[d_sae, d_in]`` decoder.
        directions: ``[n_true, d_in]`` known directions.
        live: ``[d_sae]`` bool, which features fire at all (a dead row finds nothing); None: all.
        threshold: the cosine above which a direction counts as found.

    Raises:
        TypeError: not tensors.
        ValueError: shapes that do not fit together, or a threshold outside -1 to 1.
    """
    if not -1 <= threshold <= 1:
        raise ValueError(f"threshold must be between -1 and 1, got {threshold:g}")
    return int((best_match(W_dec, directions, live).cosine > threshold).sum())


def shrinkage(true_acts: torch.Tensor, feature_acts: torch.Tensor) -> float:
    """How much too small activations are, where the truth is known: ``mean(a - f)`` where both fire.

    The mean of ``true_acts - feature_acts`` over all places at which both are above 0. With a penalty of
    lambda times the sum of activations on the squared error, unit decoder rows and features at right angles, each
    activation is too small by lambda / 2: the slope of ``(a - f)^2 + lambda f`` is zero there. Bias that comes with
    L1: Wright & Sharkey 2024, "Addressing feature suppression in SAEs".

    Args:
        true_acts: ``[pos, n_true]`` true strengths.
        feature_acts: ``[pos, n_true]`` activations in the same unit, column i of the feature that is true feature i
            (``best_match``).

    Returns:
        The mean in the unit of the strengths, or ``nan`` when nothing fires in both.

    Raises:
        TypeError: not tensors.
        ValueError: two shapes, or not two dimensions.
    """
    check_alike(true_acts, feature_acts, ("true_acts", "feature_acts"), "[pos, n_true]")
    both = (true_acts > 0) & (feature_acts > 0)
    return float((true_acts - feature_acts)[both].mean()) if bool(both.any()) else math.nan
