"""The sparse autoencoder in which each feature learns its own threshold."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from sae_widget.sae.base import SAE


@dataclass(frozen=True, eq=False, repr=False)
class JumpReLUSAE(SAE):
    """``feature_acts = hidden_pre * (hidden_pre > threshold)``, with a learned threshold for each feature.

    What fires keeps its full size, so there is no shrinkage (Rajamanoharan et al. 2024,
    https://arxiv.org/abs/2407.14435).

    Args:
        threshold: ``[d_sae]``, at least 0. The others are those of ``SAE``.

    Raises:
        ValueError: a threshold that is not at least 0, or shapes that do not fit together.
    """

    threshold: torch.Tensor = field(default_factory=lambda: torch.zeros(0))  # [d_sae]

    trains_apart = True
    architecture = "jumprelu"
    words = "JumpReLU: own thresholds"
    about = "Each feature learns its own threshold to fire and keeps its full size; strong in long runs."
    vectors = ("threshold",)

    def __post_init__(self) -> None:
        super().__post_init__()
        bad = self.threshold[~(self.threshold >= 0)]  # NaN among them
        if len(bad):
            raise ValueError(f"threshold must be at least 0, got {float(bad[0]):g}")

    def activate(self, hidden_pre: torch.Tensor) -> torch.Tensor:
        """What exceeds the threshold of its feature. ``[pos, d_sae] -> [pos, d_sae]``."""
        return hidden_pre.masked_fill(hidden_pre <= self.threshold, 0.0)  # a product makes NaN of -inf
