"""SAEs of the library dictionary_learning: a folder with ``ae.pt`` and ``config.json``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sae_widget.checkpoint.base import first_fault, unreadable
from sae_widget.checkpoint.config import MAX_CONFIG_BYTES, read_json
from sae_widget.checkpoint.sites import our_model_name
from sae_widget.checkpoint.tensors import by
from sae_widget.checkpoint.zipped import read_zipped
from sae_widget.sae import REGISTRY

if TYPE_CHECKING:
    from pathlib import Path

    from sae_widget.sae import SAE

DICTIONARY, DICTIONARY_CONFIG = "ae.pt", "config.json"
_LINEAR = {"encoder.weight": "W_enc", "decoder.weight": "W_dec", "encoder.bias": "b_enc"}
_PLAIN = {"W_enc": "W_enc", "W_dec": "W_dec", "b_enc": "b_enc", "b_dec": "b_dec"}
CLASSES: dict[str, tuple[str, dict[str, str]]] = {
    "AutoEncoder": ("standard", _LINEAR | {"bias": "b_dec"}),
    "AutoEncoderNew": ("standard", _LINEAR | {"decoder.bias": "b_dec"}),
    "AutoEncoderTopK": ("topk", _LINEAR | {"b_dec": "b_dec"}),
    "BatchTopKSAE": ("batchtopk", _LINEAR | {"b_dec": "b_dec", "threshold": "threshold"}),
    "MatryoshkaBatchTopKSAE": ("matryoshka_batchtopk", _PLAIN | {"threshold": "threshold"}),
    "JumpReluAutoEncoder": ("jumprelu", _PLAIN | {"threshold": "threshold"}),
    "GatedAutoEncoder": (
        "gated",
        {
            "encoder.weight": "W_enc",
            "decoder.weight": "W_dec",
            "decoder_bias": "b_dec",
            "gate_bias": "b_enc",
            "mag_bias": "b_mag",
            "r_mag": "r_mag",
        },
    ),
}
"""Their class -> our architecture, and their tensors' names with ours."""
_NO_INPUT_BIAS = ("AutoEncoderNew", "JumpReluAutoEncoder")
_IGNORED = {"k", "threshold", "group_sizes"}
_SITES = {
    "resid_post": "resid_post",
    "resid_pre": "resid_pre",
    "mlp": "mlp_out",
    "attention": "attn_out",
    "attn": "attn_out",
}


class Trainer(BaseModel):
    """What their ``config.json`` says of the SAE."""

    model_config = ConfigDict(strict=True, extra="ignore")

    dict_class: str
    activation_dim: int = Field(ge=1, le=1_000_000)
    dict_size: int = Field(ge=1, le=10_000_000)
    k: int | None = None
    layer: int | str | None = None
    lm_name: str | None = None
    submodule_name: str | None = None


class Told(BaseModel):
    """Their ``config.json``."""

    model_config = ConfigDict(strict=True, extra="ignore")

    trainer: Trainer


def load_dictionary(folder: Path) -> SAE:
    """The SAE of a folder of dictionary_learning.

    Raises:
        SaeFileError: saying which file and what is wrong with it.
        OSError: as it comes.
    """
    with (folder / DICTIONARY_CONFIG).open("rb") as file:
        told = read_json(file.read(MAX_CONFIG_BYTES + 1), DICTIONARY_CONFIG)
    try:
        trainer = Told.model_validate(told).trainer
    except ValidationError as error:
        raise unreadable(DICTIONARY_CONFIG, first_fault(error)) from error
    if trainer.dict_class not in CLASSES:
        known = ", ".join(CLASSES)
        raise unreadable(DICTIONARY_CONFIG, f"dict_class {trainer.dict_class[:40]!r} is not one of {known}")
    architecture, names = CLASSES[trainer.dict_class]
    tensors = read_zipped(folder / DICTIONARY)
    for name in sorted(tensors.keys() - names.keys() - _IGNORED):
        raise unreadable(DICTIONARY, f"it has a tensor {name[:60]!r} that a {trainer.dict_class} does not have")
    for name in sorted(names.keys() - tensors.keys()):
        raise unreadable(DICTIONARY, f"{name} is missing")
    parts: dict[str, Any] = {ours: tensors[theirs] for theirs, ours in names.items()}
    if "encoder.weight" in names:  # theirs are [outputs, inputs]
        parts |= {name: parts[name].t().contiguous() for name in ("W_enc", "W_dec") if parts[name].ndim == 2}
    _check_shapes(parts, trainer)
    kind = REGISTRY[architecture]
    extra: dict[str, Any] = {}
    if trainer.dict_class in ("AutoEncoderTopK", "BatchTopKSAE", "MatryoshkaBatchTopKSAE"):
        extra["k"] = _k(tensors.get("k"), trainer)
    if "threshold" in parts:  # below zero their ReLU takes over
        parts["threshold"] = parts["threshold"].clamp_min(0.0)
        if "threshold" not in kind.vectors:
            extra["threshold"] = float(parts.pop("threshold"))
    return kind(
        **parts,
        apply_b_dec_to_input=trainer.dict_class not in _NO_INPUT_BIAS,
        metadata=_metadata(trainer),
        **extra,
    )


def _check_shapes(parts: dict[str, torch.Tensor], trainer: Trainer) -> None:
    d_in, d_sae = trainer.activation_dim, trainer.dict_size
    wanted: dict[str, tuple[int, ...]] = {"W_enc": (d_in, d_sae), "W_dec": (d_sae, d_in), "b_dec": (d_in,)}
    for name, tensor in parts.items():
        single = name == "threshold" and trainer.dict_class != "JumpReluAutoEncoder"
        shape = wanted.get(name, () if single else (d_sae,))
        if tuple(tensor.shape) != shape or not tensor.is_floating_point():
            kind = "" if tensor.is_floating_point() else " of whole numbers"
            got = f"{name} is {by(tuple(tensor.shape))}{kind}"
            raise unreadable(DICTIONARY, f"{got}, {DICTIONARY_CONFIG} says {by(shape)}")


def _k(stored: torch.Tensor | None, trainer: Trainer) -> int:
    k = trainer.k if stored is None or stored.numel() != 1 else int(stored)
    if k is None or not 1 <= k <= trainer.dict_size or trainer.k not in (None, k):
        raise unreadable(DICTIONARY_CONFIG, f"k must be that of {DICTIONARY}, between 1 and {trainer.dict_size}")
    return k


def _metadata(trainer: Trainer) -> dict[str, Any]:
    found: dict[str, Any] = {"trained_by": "dictionary_learning"}
    if trainer.lm_name is not None:
        found["model_name"] = our_model_name(trainer.lm_name)
    site = re.match("|".join(sorted(_SITES, key=len, reverse=True)), trainer.submodule_name or "")
    if isinstance(trainer.layer, int) and site:
        found |= {"layer": trainer.layer, "hook_name": _SITES[site[0]]}
    return found
