"""The sparse autoencoder with a ReLU and an L1 penalty."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from sae_widget.sae.base import SAE

if TYPE_CHECKING:
    from sae_widget.config import TrainConfig


@dataclass(frozen=True, eq=False, repr=False)
class StandardSAE(SAE):
    """ReLU features, kept sparse by an L1 penalty in training.

    Arguments and errors are those of ``SAE``. ``feature_acts = relu(hidden_pre)`` (Bricken et al. 2023, https://transformer-circuits.pub/2023/monosemantic-features;
    Cunningham et al. 2023, https://arxiv.org/abs/2309.08600).
    """

    architecture = "standard"
    words = "ReLU + L1 penalty"
    about = "The classic: every activation costs a penalty, which also shrinks what fires."
    elementwise = True

    def activate(self, hidden_pre: torch.Tensor) -> torch.Tensor:
        """ReLU. ``[pos, d_sae] -> [pos, d_sae]``."""
        return hidden_pre.clamp_min(0.0)

    @staticmethod
    def fire(hidden_pre: torch.Tensor, feature_acts: torch.Tensor, config: TrainConfig) -> None:
        """ReLU into a buffer, both ``[batch, d_sae]``."""
        torch.clamp_min(hidden_pre, 0.0, out=feature_acts)
