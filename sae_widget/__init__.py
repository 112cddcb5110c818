"""A Jupyter widget that takes a language model apart with sparse autoencoders.

Names are imported when they are first used, so that ``import sae_widget`` costs next to nothing.
"""

from __future__ import annotations

import importlib
import logging
from typing import TYPE_CHECKING, Any

from sae_widget.journal import JOURNAL

if TYPE_CHECKING:
    from sae_widget.activations import get_activations, load_model
    from sae_widget.activations.base import Activations, LanguageModel, ModelLoadError, layer_name
    from sae_widget.activations.splice import spliced_logits
    from sae_widget.checkpoint import SaeFileError, load_sae, load_stats, save_sae
    from sae_widget.config import TrainConfig
    from sae_widget.explorer import SuperpositionExplorer
    from sae_widget.features import feature_stats, prompt_features, top_contexts
    from sae_widget.fidelity import Fidelity, measure_fidelity
    from sae_widget.metrics import (
        BestMatch,
        FrequencyHistogram,
        best_match,
        dead_count,
        explained_variance,
        feature_frequency,
        frequency_histogram,
        l0,
        mmcs,
        recovered,
        relative_reconstruction_bias,
        shrinkage,
    )
    from sae_widget.recovery import Recovery, measure_recovery
    from sae_widget.sae import SAE, StandardSAE, TopKSAE
    from sae_widget.toy import (
        SuperpositionConfig,
        SuperpositionModels,
        SuperpositionStep,
        ToyConfig,
        ToyData,
        feature_dimensionality,
        interference,
        run_superposition,
        toy_data,
        train_superposition,
    )
    from sae_widget.training import History, Trainer, TrainingFault, TrainStep, train

__version__ = "0.1.0"
logging.getLogger(__name__).addHandler(JOURNAL)

_HOME = {
    "activations": ("get_activations", "load_model"),
    "activations.splice": ("spliced_logits",),
    "activations.base": ("Activations", "LanguageModel", "ModelLoadError", "layer_name"),
    "checkpoint": ("SaeFileError", "load_sae", "load_stats", "save_sae"),
    "config": ("TrainConfig",),
    "explorer": ("SuperpositionExplorer",),
    "features": ("feature_stats", "prompt_features", "top_contexts"),
    "fidelity": ("Fidelity", "measure_fidelity"),
    "metrics": (
        "BestMatch",
        "FrequencyHistogram",
        "best_match",
        "dead_count",
        "explained_variance",
        "feature_frequency",
        "frequency_histogram",
        "l0",
        "mmcs",
        "recovered",
        "relative_reconstruction_bias",
        "shrinkage",
    ),
    "recovery": ("Recovery", "measure_recovery"),
    "sae": ("SAE", "StandardSAE", "TopKSAE"),
    "toy": (
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
    ),
    "training": ("History", "TrainStep", "Trainer", "TrainingFault", "train"),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "SAE",
    "Activations",
    "BestMatch",
    "Fidelity",
    "FrequencyHistogram",
    "History",
    "LanguageModel",
    "ModelLoadError",
    "Recovery",
    "SaeFileError",
    "StandardSAE",
    "SuperpositionConfig",
    "SuperpositionExplorer",
    "SuperpositionModels",
    "SuperpositionStep",
    "TopKSAE",
    "ToyConfig",
    "ToyData",
    "TrainConfig",
    "TrainStep",
    "Trainer",
    "TrainingFault",
    "best_match",
    "dead_count",
    "explained_variance",
    "feature_dimensionality",
    "feature_frequency",
    "feature_stats",
    "frequency_histogram",
    "get_activations",
    "interference",
    "l0",
    "layer_name",
    "load_model",
    "load_sae",
    "load_stats",
    "measure_fidelity",
    "measure_recovery",
    "mmcs",
    "prompt_features",
    "recovered",
    "relative_reconstruction_bias",
    "run_superposition",
    "save_sae",
    "shrinkage",
    "spliced_logits",
    "top_contexts",
    "toy_data",
    "train",
    "train_superposition",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'sae_widget' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"sae_widget.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})
