"""Sparse autoencoders: one file per architecture, found by name in ``REGISTRY``."""

from sae_widget.sae.base import REGISTRY, SAE
from sae_widget.sae.standard import StandardSAE
from sae_widget.sae.topk import TopKSAE

__all__ = ["REGISTRY", "SAE", "StandardSAE", "TopKSAE"]
