"""The families of language models that can be read, and the checks of a ``config.json`` before building."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sae_widget.activations.base import DamagedModelError, ModelLoadError

MAX_CONFIG_BYTES = 1_000_000


@dataclass(frozen=True)
class Family:
    """One ``model_type`` of ``transformers``: its class with a head, and what its config calls the sizes."""

    model_type: str
    examples: str  # for the person
    class_name: str
    d_in: str
    n_layer: str
    n_head: str
    n_positions: str
    d_mlp: str
    defaults: dict[str, Any]  # what a config leaves out, as ``transformers`` has it
    aliases: tuple[tuple[str, str], ...] = ()  # other spellings that a config may use, (alias, name)


FAMILIES = {
    family.model_type: family
    for family in (
        Family(
            "gpt2", "GPT-2, DistilGPT-2", "GPT2LMHeadModel",
            d_in="n_embd", n_layer="n_layer", n_head="n_head", n_positions="n_positions", d_mlp="n_inner",
            defaults={
                "n_embd": 768, "n_layer": 12, "n_head": 12, "n_positions": 1024, "n_inner": None, "vocab_size": 50257,
            },
            aliases=(
                ("hidden_size", "n_embd"),
                ("num_hidden_layers", "n_layer"),
                ("num_attention_heads", "n_head"),
                ("max_position_embeddings", "n_positions"),
            ),
        ),
        Family(
            "gpt_neox", "GPT-NeoX, Pythia", "GPTNeoXForCausalLM",
            d_in="hidden_size", n_layer="num_hidden_layers", n_head="num_attention_heads",
            n_positions="max_position_embeddings", d_mlp="intermediate_size",
            defaults={
                "hidden_size": 6144, "num_hidden_layers": 44, "num_attention_heads": 64,
                "max_position_embeddings": 2048, "intermediate_size": 24576, "vocab_size": 50432,
            },
        ),
    )
}  # fmt: skip


@dataclass(frozen=True)
class Sizes:
    """The sizes that a checked config promises."""

    d_in: int
    n_layer: int
    n_head: int
    n_positions: int
    d_mlp: int
    vocab_size: int

    @property
    def parameters(self) -> int:
        """Weights of the network, within a few per cent (attention, MLP, token embeddings)."""
        return self.vocab_size * self.d_in + self.n_layer * (4 * self.d_in**2 + 2 * self.d_in * self.d_mlp)


def family_names() -> str:
    """The supported families in words, for messages."""
    return "; ".join(f"{f.model_type} ({f.examples})" for f in FAMILIES.values())


def read_config(path: Path, label: str) -> dict[str, Any]:
    """The ``config.json`` of a model as a dictionary.

    Raises:
        ModelLoadError: missing, too large, or not a JSON object.
    """
    try:
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise ModelLoadError(f"{label}: {path.name} is larger than 1 MB, so it was not read. Nothing was loaded.")
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelLoadError(
            f"{label} has no {path.name}, so it is not a model directory. Nothing was loaded."
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise DamagedModelError(
            f"{label}: {path.name} cannot be read ({_first_line(error)}). Nothing was loaded."
        ) from error
    if not isinstance(config, dict):
        raise DamagedModelError(f"{label}: {path.name} is not a JSON object. Nothing was loaded.")
    return config


def check_config(config: dict[str, Any], label: str) -> tuple[Family, Sizes]:
    """The family and sizes of a config, refused before anything is built when they are not sound.

    Raises:
        ModelLoadError: own code (``auto_map``), an unknown family, or sizes that no model has.
    """
    if config.get("auto_map"):
        raise ModelLoadError(f"{label} brings its own code, which is never run. Choose a model without 'auto_map'.")
    model_type = config.get("model_type")
    family = FAMILIES.get(model_type) if isinstance(model_type, str) else None
    if family is None:
        raise ModelLoadError(f"{label} is of type {model_type!r}, which cannot be read. Supported: {family_names()}.")
    if config.get("add_cross_attention") or config.get("is_encoder_decoder"):
        raise ModelLoadError(f"{label} reads a second text (cross-attention), which is not supported.")
    given = dict(config)
    for alias, name in family.aliases:
        if alias in given:
            given.setdefault(name, given[alias])
    values = family.defaults | given
    d_in = _size(values, family.d_in, 1, 20_000, label)
    d_mlp = _size(values, family.d_mlp, 1, 100_000, label) if values.get(family.d_mlp) is not None else 4 * d_in
    sizes = Sizes(
        d_in=d_in,
        n_layer=_size(values, family.n_layer, 1, 200, label),
        n_head=_size(values, family.n_head, 1, 512, label),
        n_positions=_size(values, family.n_positions, 1, 200_000, label),
        d_mlp=d_mlp,
        vocab_size=_size(values, "vocab_size", 1, 1_000_000, label),
    )
    if sizes.d_in % sizes.n_head:
        raise ModelLoadError(
            f"{label}: {family.d_in} ({sizes.d_in}) is not a multiple of {family.n_head} ({sizes.n_head}). "
            "Nothing was loaded."
        )
    return family, sizes


def _size(values: dict[str, Any], name: str, low: int, high: int, label: str) -> int:
    value = values.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        shown = repr(value)[:40]
        raise ModelLoadError(
            f"{label}: {name} in config.json must be between {low:,} and {high:,}, got {shown}. Nothing was loaded."
        )
    return value


def _first_line(error: BaseException) -> str:
    lines = str(error).splitlines()
    return (lines[0] if lines else type(error).__name__)[:200]
