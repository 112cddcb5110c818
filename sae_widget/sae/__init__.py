"""Sparse autoencoders: one file per architecture, found by name in ``REGISTRY``."""

from sae_widget.sae.base import REGISTRY, SAE
from sae_widget.sae.batchtopk import BatchTopKSAE
from sae_widget.sae.gated import GatedSAE
from sae_widget.sae.jumprelu import JumpReLUSAE
from sae_widget.sae.matryoshka import MatryoshkaBatchTopKSAE
from sae_widget.sae.standard import StandardSAE
from sae_widget.sae.topk import TopKSAE

__all__ = [
    "REGISTRY",
    "SAE",
    "BatchTopKSAE",
    "GatedSAE",
    "JumpReLUSAE",
    "MatryoshkaBatchTopKSAE",
    "StandardSAE",
    "TopKSAE",
]
