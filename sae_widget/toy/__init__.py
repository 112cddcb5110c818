"""Data whose truth is known: toy models of superposition, and activations made of chosen features."""

from sae_widget.toy.known import ToyConfig, ToyData, toy_data
from sae_widget.toy.models import SuperpositionConfig, SuperpositionModels, feature_dimensionality, interference
from sae_widget.toy.superposition import SuperpositionStep, run_superposition, train_superposition

__all__ = [
    "SuperpositionConfig",
    "SuperpositionModels",
    "SuperpositionStep",
    "ToyConfig",
    "ToyData",
    "feature_dimensionality",
    "interference",
    "run_superposition",
    "toy_data",
    "train_superposition",
]
