"""The sparse autoencoder whose first features must do alone."""

from __future__ import annotations

from dataclasses import dataclass

from sae_widget.sae.batchtopk import BatchTopKSAE


@dataclass(frozen=True, eq=False, repr=False)
class MatryoshkaBatchTopKSAE(BatchTopKSAE):
    """A BatchTopK SAE trained so that its first half, quarter, ... of the features reconstructs on its own.

    General features come first and special ones do not swallow them (Bussmann et al. 2025,
    https://arxiv.org/abs/2503.17547). The loss is the mean of the reconstruction losses of the nested dictionaries.
    Arguments and errors are those of ``BatchTopKSAE``.
    """

    architecture = "matryoshka_batchtopk"
    words = "Matryoshka: general first"
    about = "Like BatchTopK, but the first features must do alone: it keeps general ideas whole."
