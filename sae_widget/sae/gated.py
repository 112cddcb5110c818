"""The sparse autoencoder that decides whether a feature fires apart from how strongly."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from sae_widget.sae.base import SAE


@dataclass(frozen=True, eq=False, repr=False)
class GatedSAE(SAE):
    """A gate says which features fire, a magnitude how strongly (Rajamanoharan et al. 2024).

    With ``z = u @ W_enc`` (``hidden_pre`` less ``b_enc``): ``gate = z + b_enc``,
    ``magnitude = z * exp(r_mag) + b_mag``, ``feature_acts = (gate > 0) * relu(magnitude)``. The penalty acts on the
    gate alone, so that what fires does not shrink (https://arxiv.org/abs/2404.16014). ``b_enc`` is their ``b_gate``.

    Args:
        b_mag: ``[d_sae]``, bias of the magnitudes.
        r_mag: ``[d_sae]``, logarithm of their gain over the gate's weights. The others are those of ``SAE``.

    Raises:
        ValueError: shapes that do not fit together.
    """

    b_mag: torch.Tensor = field(default_factory=lambda: torch.zeros(0))  # [d_sae]
    r_mag: torch.Tensor = field(default_factory=lambda: torch.zeros(0))  # [d_sae]

    trains_apart = True
    architecture = "gated"
    words = "Gated: if, then how much"
    about = "Like ReLU + L1, but the penalty decides only what fires and shrinks nothing."
    vectors = ("b_mag", "r_mag")

    def activate(self, hidden_pre: torch.Tensor) -> torch.Tensor:
        """Magnitude where the gate is open. ``[pos, d_sae] -> [pos, d_sae]``."""
        magnitude = (hidden_pre - self.b_enc) * self.r_mag.exp() + self.b_mag
        return magnitude.clamp_min(0.0).masked_fill(hidden_pre <= 0, 0.0)  # a product makes NaN of inf
