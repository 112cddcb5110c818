"""How well activations are reconstructed: explained variance and bias."""

from __future__ import annotations

import math

import torch


def explained_variance(x: torch.Tensor, sae_out: torch.Tensor, position: torch.Tensor | None = None) -> float:
    """Share of the variance of ``x`` that the reconstruction keeps.

    ``1 - sum ||x - sae_out||^2 / sum ||x - mean||^2`` with the mean over the rows: 1 is perfect, 0 is no
    better than always answering the mean, below 0 is worse. (The fraction of variance unexplained of the literature is
    1 minus this.) One token of huge norm, as the first of a text is in GPT-2, rules both sums: give ``position`` to
    leave it out.

    Args:
        x: ``[pos, d_in]`` activations.
        sae_out: ``[pos, d_in]`` reconstruction.
        position: ``[pos]`` place of each row in its window; where given, the rows at 0 are left out.

    Returns:
        The share, or ``nan`` when ``x`` does not vary (fewer than two rows, constant rows).

    Raises:
        TypeError: not tensors.
        ValueError: two shapes, or not two dimensions.
    """
    check_alike(x, sae_out)
    x, sae_out = _wide(x), _wide(sae_out)
    if position is not None:
        check_tensor("position", position)
        if position.shape != x.shape[:1]:
            raise ValueError(f"position must be [{len(x)}] like x, got shape {list(position.shape)}")
        x, sae_out = x[position != 0], sae_out[position != 0]
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


def relative_reconstruction_bias(x: torch.Tensor, sae_out: torch.Tensor) -> float:
    """By what factor reconstructions are too small: shrinkage where no truth is known.

    ``sum ||sae_out||^2 / sum sae_out . x``, the ``g`` for which ``sae_out / g`` is nearest to ``x``
    (Rajamanoharan et al. 2024, https://arxiv.org/abs/2404.16014): 1 is unbiased, below 1 is shrunk. A large
    common mean, which ``b_dec`` gives back whole, hides shrinkage: take the mean off both to see it.

    Args:
        x: ``[pos, d_in]`` activations.
        sae_out: ``[pos, d_in]`` reconstruction.

    Returns:
        The factor, or ``nan`` when ``sae_out . x`` sums to nothing.

    Raises:
        TypeError: not tensors.
        ValueError: two shapes, or not two dimensions.
    """
    check_alike(x, sae_out)
    x, sae_out = _wide(x), _wide(sae_out)
    common, size = float((x * sae_out).sum()), float(sae_out.square().sum())
    return size / common if abs(common) > 1e-12 * size else math.nan


def _wide(rows: torch.Tensor) -> torch.Tensor:
    """The same in a dtype that holds sums of squares: float16 ends at 65,504."""
    return rows if rows.dtype in (torch.float32, torch.float64) else rows.float()


def check_tensor(name: str, given: object) -> None:
    """Raise ``TypeError``, by name, unless this is a tensor."""
    if not isinstance(given, torch.Tensor):
        raise TypeError(f"{name} must be a torch tensor, got {type(given).__name__}")


def check_alike(
    first: torch.Tensor,
    second: torch.Tensor,
    names: tuple[str, str] = ("x", "sae_out"),
    shape: str = "[pos, d_in]",
) -> None:
    """Raise ``TypeError`` or ``ValueError``, by name, unless both are tensors of one shape with two dimensions."""
    for name, given in zip(names, (first, second), strict=True):
        check_tensor(name, given)
    if first.ndim != 2 or first.shape != second.shape:
        got = f"{list(first.shape)} and {list(second.shape)}"
        raise ValueError(f"{names[0]} and {names[1]} must both be {shape}, got {got}")
