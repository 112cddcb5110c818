"""Measures of an SAE, each with one definition that everything else uses."""

from __future__ import annotations

import math

import torch


def explained_variance(x: torch.Tensor, sae_out: torch.Tensor) -> float:
    """Share of the variance of ``x`` that the reconstruction keeps.

    ``1 - sum ||x - sae_out||^2 / sum ||x - mean||^2`` with the mean over the rows: 1 is perfect, 0 is no
    better than always answering the mean, below 0 is worse. (The fraction of variance unexplained of the literature is
    1 minus this.)

    Args:
        x: ``[pos, d_in]`` activations.
        sae_out: ``[pos, d_in]`` reconstruction.

    Returns:
        The share, or ``nan`` when ``x`` does not vary (fewer than two rows, constant rows).

    Raises:
        TypeError: not tensors.
        ValueError: two shapes, or not two dimensions.
    """
    for name, given in (("x", x), ("sae_out", sae_out)):
        if not isinstance(given, torch.Tensor):
            raise TypeError(f"{name} must be a torch tensor, got {type(given).__name__}")
    if x.ndim != 2 or x.shape != sae_out.shape:
        raise ValueError(f"x and sae_out must both be [pos, d_in], got {list(x.shape)} and {list(sae_out.shape)}")
    return share_of_error(x, x - sae_out)


def share_of_error(x: torch.Tensor, error: torch.Tensor) -> float:
    """Explained variance from the rows and their errors, both ``[pos, d_in]``."""
    return variance_share(float(error.square().sum()), *spread(x))


def spread(x: torch.Tensor) -> tuple[float, float]:
    """``sum ||x - mean||^2`` and ``sum ||x||^2`` of ``[pos, d_in]``; zero spread for fewer than two rows."""
    if len(x) < 2:
        return 0.0, 1.0
    return float((x - x.mean(0)).square_().sum()), float(x.square().sum())


def variance_share(error: float, total: float, size: float) -> float:
    """``1 - error / total``; ``nan`` when ``total`` is no more than the rounding of a sum of ``size``."""
    return 1.0 - error / total if total > 1e-12 * size else math.nan
