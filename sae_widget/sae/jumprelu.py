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
        ValueError: shapes that do not fit together.
    """

    threshold: torch.Tensor = field(default_factory=lambda: torch.zeros(0))  # [d_sae]

    trains_apart = True
    architecture = "jumprelu"
    words = "JumpReLU: own thresholds"
    about = "Each feature learns its own threshold to fire and keeps its full size; strong in long runs."
    vectors = ("threshold",)

    def activate(self, hidden_pre: torch.Tensor) -> torch.Tensor:
        """What exceeds the threshold of its feature. ``[pos, d_sae] -> [pos, d_sae]``."""
        return hidden_pre * (hidden_pre > self.threshold)
