"""``cfg.json`` as SAELens wrote it before 6.0: one flat object, in other words."""

from __future__ import annotations

import re
from typing import Any

_RENAMED = {"hook_point": "hook_name", "hook_point_head_index": "hook_head_index", "activation_fn": "activation_fn_str"}
_FIELDS = {
    "architecture",
    "d_in",
    "d_sae",
    "dtype",
    "apply_b_dec_to_input",
    "normalize_activations",
    "reshape_activations",
    "activation_fn_str",
    "finetuning_scaling_factor",
    "k",
    "rescale_acts_by_decoder_norm",
}
_TOLD = {
    "model_name",
    "model_from_pretrained_kwargs",
    "hook_name",
    "hook_head_index",
    "prepend_bos",
    "context_size",
    "dataset_path",
    "neuronpedia_id",
    "seqpos_slice",
    "sae_lens_training_version",
}
"""What goes into the metadata."""


def is_old(told: dict[str, Any]) -> bool:
    """Whether a file does not claim to be of SAELens 6 or later: then SAELens converts it, too."""
    metadata = told.get("metadata")
    version = told.get("sae_lens_version") or (metadata.get("sae_lens_version") if isinstance(metadata, dict) else None)
    if version is None and isinstance(metadata, dict) and "sae_widget" in metadata:
        return False
    number = re.match(r"(\d{1,6})", version) if isinstance(version, str) else None
    return number is None or int(number[1]) < 6


def modern(told: dict[str, Any]) -> dict[str, Any]:
    """The same settings as SAELens 6 says them; nothing is checked here."""
    flat = {_RENAMED.get(key, key): value for key, value in told.items()}
    if isinstance(told.get("metadata"), dict):
        flat = told["metadata"] | flat
    found = {key: flat[key] for key in _FIELDS if flat.get(key) is not None}
    found.setdefault("architecture", "standard")
    kwargs = flat.get("activation_fn_kwargs")
    k = kwargs.get("k") if isinstance(kwargs, dict) else None
    if found.get("activation_fn_str") == "topk" and k is not None:
        found["architecture"] = "topk"
    if found["architecture"] == "topk" and k is not None:
        found["k"] = k
    if isinstance(found.get("normalize_activations"), bool):
        found["normalize_activations"] = "expected_average_only_in" if found["normalize_activations"] else "none"
    found["metadata"] = {key: flat[key] for key in _TOLD if flat.get(key) is not None}
    return found
