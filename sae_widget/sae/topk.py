"""The sparse autoencoder that keeps the k largest features of each token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sae_widget.sae.base import SAE

if TYPE_CHECKING:
    import torch

    from sae_widget.config import TrainConfig


@dataclass(frozen=True, eq=False, repr=False)
class TopKSAE(SAE):
    """The ``k`` largest ``hidden_pre`` of each token, then ReLU; everything else is zero.

    Sparsity is set by ``k`` instead of by a penalty (Gao et al. 2024, https://arxiv.org/abs/2406.04093).

    Args:
        k: most features that fire on a token; the others are those of ``SAE``.

    Raises:
        TypeError: a ``k`` that is no whole number.
        ValueError: a ``k`` that is not between 1 and ``d_sae``, or shapes that do not fit together.
    """

    k: int = 16

    architecture = "topk"
    words = "TopK: k per token"
    about = "The k strongest features of each token fire; the best kind to start with."
    revives_dead = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_k(self.k, self.d_sae)

    def activate(self, hidden_pre: torch.Tensor) -> torch.Tensor:
        """Keep the k largest, if positive. ``[pos, d_sae] -> [pos, d_sae]``."""
        values, indices = hidden_pre.topk(self.k, dim=-1, sorted=False)
        return hidden_pre.new_zeros(hidden_pre.shape).scatter_(-1, indices, values.clamp_min(0.0))

    @staticmethod
    def fire(hidden_pre: torch.Tensor, feature_acts: torch.Tensor, config: TrainConfig) -> None:
        """Keep the k largest, if positive, in a buffer; both ``[batch, d_sae]``."""
        values, indices = hidden_pre.topk(config.wanted_k, dim=-1, sorted=False)
        feature_acts.zero_().scatter_(-1, indices, values.clamp_min_(0.0))

    def config_fields(self) -> dict[str, Any]:
        """``k``, and that it is not multiplied by the decoder norms (SAELens' name)."""
        return {"k": self.k, "rescale_acts_by_decoder_norm": False}


def check_k(k: int, d_sae: int) -> None:
    """Refuse what cannot be a number of features that fire."""
    if not isinstance(k, int) or isinstance(k, bool):
        raise TypeError(f"k must be a whole number, got {k!r}")
    if not 1 <= k <= d_sae:
        raise ValueError(f"k must be between 1 and d_sae ({d_sae}), got {k}")
