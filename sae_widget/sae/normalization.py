"""What some SAEs do to each token before they read it, undone after they have written: SAELens' ways, and centring."""

from __future__ import annotations

from typing import NamedTuple

import torch

NORMALIZATIONS = ("none", "layer_norm", "constant_norm_rescale", "center")
LAYER_NORM_EPS = 1e-5  # beside the standard deviation on the way in only, as SAELens has it


class Undo(NamedTuple):
    """``written * gain + shift`` brings what an SAE wrote back to a token's own size and place."""

    gain: torch.Tensor | float  # [pos, 1]
    shift: torch.Tensor | float  # [pos, 1]


def normalized(x: torch.Tensor, way: str) -> tuple[torch.Tensor, Undo]:
    """Each token as an SAE with this normalisation reads it, and how to undo that.

    - ``layer_norm``: less its mean over the width, divided by its standard deviation (with ``d_in - 1``).
    - ``constant_norm_rescale``: brought to the norm ``sqrt(d_in)``.
    - ``center``: less its mean over the width, as an SAE needs that was trained on a model with centred writing
      weights (TransformerLens' ``center_writing_weights``).

    Args:
        x: ``[pos, d_in]``.
        way: one of ``NORMALIZATIONS``.
    """
    if way == "none":
        return x, Undo(1.0, 0.0)
    if way == "constant_norm_rescale":
        size = x.norm(dim=-1, keepdim=True).clamp_min(1e-30) / x.shape[-1] ** 0.5  # [pos, 1]
        return x / size, Undo(size, 0.0)
    mean = x.mean(dim=-1, keepdim=True)  # [pos, 1]
    x = x - mean
    if way == "center":
        return x, Undo(1.0, mean)
    std = x.std(dim=-1, keepdim=True)  # [pos, 1]
    return x / (std + LAYER_NORM_EPS), Undo(std, mean)
