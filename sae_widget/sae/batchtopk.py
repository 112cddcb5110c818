"""The sparse autoencoder that keeps the largest activations of a whole batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sae_widget.sae.base import SAE
from sae_widget.sae.topk import check_k

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, eq=False, repr=False)
class BatchTopKSAE(SAE):
    """In training the ``k`` times batch size largest ``hidden_pre`` of a batch; afterwards those above a threshold.

    So easy tokens take fewer features and hard ones more, ``k`` on average (Bussmann et al. 2024,
    https://arxiv.org/abs/2412.06410). ``feature_acts = hidden_pre * (hidden_pre > threshold)``, with the running mean
    of the smallest activation that training kept as the threshold.

    Args:
        k: features that fire on a token, on average over the training; the others are those of ``SAE``.
        threshold: what ``hidden_pre`` must exceed, at least 0.

    Raises:
        TypeError: a ``k`` that is no whole number.
        ValueError: a ``k`` that is not between 1 and ``d_sae``, a negative threshold, or shapes that do not fit.
    """

    k: int = 16
    threshold: float = 0.0

    trains_apart = True
    architecture = "batchtopk"
    words = "BatchTopK: k on average"
    about = "Like TopK, but hard tokens may use more features than easy ones: often better at equal k."
    elementwise = True
    revives_dead = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_k(self.k, self.d_sae)
        if not self.threshold >= 0:
            raise ValueError(f"threshold must be at least 0, got {self.threshold:g}")

    def activate(self, hidden_pre: torch.Tensor) -> torch.Tensor:
        """What exceeds the threshold. ``[pos, d_sae] -> [pos, d_sae]``."""
        return hidden_pre.masked_fill(hidden_pre <= self.threshold, 0.0)

    def config_fields(self) -> dict[str, Any]:
        """``k``, and that it is not multiplied by the decoder norms (SAELens' name)."""
        return {"k": self.k, "rescale_acts_by_decoder_norm": False}
