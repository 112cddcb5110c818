"""What an explorer is made from: its keywords, and the checks of them that look at files."""

from __future__ import annotations

import inspect
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from sae_widget.activations.base import check_site
from sae_widget.activations.corpus import corpus_files
from sae_widget.activations.models import known_blocks
from sae_widget.activations.text import clean_text
from sae_widget.config import TrainConfig, check_inputs, refuse_unknown
from sae_widget.state import ExplorerState

if TYPE_CHECKING:
    from collections.abc import Callable

    from sae_widget.sae.base import SAE

INPUTS = ("model", "layer", "hook_name", "prepend_bos", "corpus", "corpus_tokens")
"""Keywords that are inputs of the state; the others are settings of the training."""
SETTINGS = tuple(field.name for field in fields(TrainConfig))


def split(given: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The inputs among some keywords (None stands for the default), and the settings.

    Raises:
        TypeError: for an unknown keyword, naming the nearest known one.
    """
    refuse_unknown(given, [*SETTINGS, *INPUTS, "text", "preset", "name"])
    inputs = {key: value for key, value in given.items() if key in INPUTS and value is not None}
    return inputs, {key: value for key, value in given.items() if key in SETTINGS}


def check(inputs: dict[str, Any], name: Any) -> None:
    """Refuse what can be known to be wrong before anything is loaded.

    Args:
        inputs: values of inputs of the state.
        name: of the explorer, None without one.

    Raises:
        TypeError: a value of another type, named.
        ValueError: a value out of its range, an empty name of a model, a layer that a model on this machine
            does not have, a corpus that is not there.
    """
    if name is not None and not isinstance(name, str):
        raise TypeError(f"name must be a string, got {name!r}")
    check_inputs(inputs)
    model = inputs.get("model", "auto")
    if not model.strip():
        raise ValueError(f"model must be 'auto', 'bundled', a name on the hub or a directory, got {model!r}")
    if inputs.get("corpus", "text") != "text":
        corpus_files(inputs["corpus"])
    n_layer = known_blocks(model) if "layer" in inputs else None
    if n_layer is not None:
        check_site(inputs["layer"], "resid_pre", n_layer)


def known_here(inputs: dict[str, Any]) -> dict[str, Any]:
    """Saved inputs without a corpus that is not on this machine: the SAE can be looked at without it."""
    try:
        corpus_files(inputs["corpus"])
    except (OSError, ValueError):
        return inputs if inputs["corpus"] == "text" else {key: inputs[key] for key in inputs if key != "corpus"}
    return inputs


def for_sae(sae: SAE) -> dict[str, Any]:
    """Inputs with which to show an SAE that nothing lies beside: its model, when that is on this machine."""
    name = sae.metadata.get("model_name")
    return {"model": name} if isinstance(name, str) and known_blocks(name) is not None else {}


def take(state: ExplorerState, saved: dict[str, Any]) -> None:
    """Bring a state to saved inputs, its text and recipe among them."""
    known = known_here(saved)
    inputs, settings = split(known)
    state.settings = TrainConfig(**settings)
    for name, value in inputs.items():
        setattr(state, name, value)
    state.text = known["text"]


def checked_text(text: Any) -> str:
    """The text itself: half characters stay in it, for the reading to replace them and to say so.

    Raises:
        TypeError: not a string.
        ValueError: longer than the limit.
    """
    clean_text(text)
    return str(text)


def upper_middle(n_layer: int) -> int:
    """Two thirds of the way up, where features are said to be the most telling."""
    return n_layer * 2 // 3


def first_layer(model: str, layer_of: Callable[[int], int]) -> int:
    """The layer to begin with, before the model is loaded; 0 while nothing is known of it.

    Args:
        model: as the explorer takes it.
        layer_of: the layer from the number of blocks.
    """
    n_layer = known_blocks(model)
    return 0 if n_layer is None else layer_of(n_layer)


def signature() -> inspect.Signature:
    """Every keyword of an explorer with its default, for ``help`` and the Tab key."""
    traits = ExplorerState.class_traits()
    defaults: dict[str, Any] = dict.fromkeys(("preset", "name"))
    defaults |= {key: None if key == "layer" else traits[key].default_value for key in INPUTS}
    defaults |= {field.name: field.default for field in fields(TrainConfig)}
    named = inspect.Parameter.KEYWORD_ONLY
    return inspect.Signature(
        [
            inspect.Parameter("text", inspect.Parameter.POSITIONAL_OR_KEYWORD, default=None),
            *(inspect.Parameter(key, named, default=default) for key, default in defaults.items()),
        ]
    )
