"""Language models, the places where they are read, and the activations found there."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sae_widget.activations.base import (
    Activations,
    DamagedModelError,
    LanguageModel,
    LoadCancelled,
    ModelLoadError,
    check_site,
    layer_name,
)

if TYPE_CHECKING:
    from sae_widget.activations.build import language_model
    from sae_widget.activations.corpus import corpus_texts
    from sae_widget.activations.extract import get_activations
    from sae_widget.activations.hub import KNOWN_SIZES, gpt2_is_cached
    from sae_widget.activations.models import load_model
    from sae_widget.activations.text import clean_text, token_labels

__all__ = [
    "KNOWN_SIZES",
    "Activations",
    "DamagedModelError",
    "LanguageModel",
    "LoadCancelled",
    "ModelLoadError",
    "check_site",
    "clean_text",
    "corpus_texts",
    "get_activations",
    "gpt2_is_cached",
    "language_model",
    "layer_name",
    "load_model",
    "token_labels",
]

_HOMES = {
    "KNOWN_SIZES": "hub",
    "clean_text": "text",
    "corpus_texts": "corpus",
    "get_activations": "extract",
    "gpt2_is_cached": "hub",
    "language_model": "build",
    "load_model": "models",
    "token_labels": "text",
}


def __getattr__(name: str) -> Any:
    """Import torch and its users only when one of them is asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
