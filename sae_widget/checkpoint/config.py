"""``cfg.json``: what it says, checked, and how it maps to our SAEs."""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sae_widget.checkpoint.base import CONFIG, SaeFileError, first_fault, unreadable
from sae_widget.config import ARCHITECTURES
from sae_widget.sae import REGISTRY

if TYPE_CHECKING:
    from sae_widget.sae import SAE

FORMAT_VERSION = 1
LAYOUT_VERSION = "6.0.0"  # SAELens converts what does not claim at least this
MAX_CONFIG_BYTES = 1_000_000
_SITES = "resid_pre|resid_mid|resid_post|attn_out|mlp_out"


class Own(BaseModel):
    """What this package notes about its files, under ``metadata.sae_widget``."""

    model_config = ConfigDict(strict=True, extra="allow")

    format_version: int = Field(default=FORMAT_VERSION, ge=1)
    made_by: str = "a newer version"
    scale: float = Field(default=1.0, gt=1e-30, lt=1e30, allow_inf_nan=False)
    metadata: dict[str, Any] = Field(default_factory=dict)


class Metadata(BaseModel):
    """Where an SAE comes from; keys of others are kept."""

    model_config = ConfigDict(strict=True, extra="allow")

    sae_widget: Own | None = None


class SaeConfig(BaseModel):
    """The fields of ``cfg.json`` that decide how the weights are used; others are ignored."""

    model_config = ConfigDict(strict=True, extra="allow")

    architecture: str
    d_in: int = Field(ge=1, le=1_000_000)
    d_sae: int = Field(ge=1, le=10_000_000)
    dtype: str = "float32"
    apply_b_dec_to_input: bool = True
    normalize_activations: str = "none"
    activation_fn_str: str = "relu"
    k: int | None = None
    rescale_acts_by_decoder_norm: bool = False
    metadata: Metadata = Field(default_factory=Metadata)

    @property
    def scale(self) -> float:
        """The scale that was folded into the weights; 1 in files of others."""
        return self.metadata.sae_widget.scale if self.metadata.sae_widget else 1.0

    def sae_metadata(self) -> dict[str, Any]:
        """``SAE.metadata``: as it was saved, or made from SAELens' names."""
        if self.metadata.sae_widget is not None:
            return self.metadata.sae_widget.metadata
        found = dict(self.metadata.model_extra or {})
        site = re.fullmatch(rf"blocks\.(\d{{1,4}})\.hook_({_SITES})", str(found.get("hook_name", "")))
        if site:
            found |= {"layer": int(site[1]), "hook_name": site[2]}
        return found


def parse_config(content: bytes) -> SaeConfig:
    """Check ``cfg.json``.

    Raises:
        SaeFileError: naming the first field that is wrong, or the version that is too new.
    """
    if len(content) > MAX_CONFIG_BYTES:
        raise unreadable(CONFIG, f"it has {len(content):,} bytes, at most {MAX_CONFIG_BYTES:,} are read")
    version, made_by = _version(content)
    if version > FORMAT_VERSION:
        raise SaeFileError(
            f"This SAE was made by sae_widget {made_by}; please update. "
            "Nothing was loaded, and what you have is unchanged."
        )
    try:
        config = SaeConfig.model_validate_json(content)
    except ValidationError as error:
        raise unreadable(CONFIG, first_fault(error)) from error
    _check_meaning(config)
    return config


def _version(content: bytes) -> tuple[int, str]:
    """The format version, before the rest is checked: a newer version's other fields may be anything."""
    try:
        own = json.loads(content)["metadata"]["sae_widget"]
        version = own["format_version"]
    except (ValueError, KeyError, TypeError, IndexError, RecursionError):
        return 0, ""
    if type(version) is not int:
        return 0, ""
    return version, str(own.get("made_by", "of a newer version"))[:40]


def _check_meaning(config: SaeConfig) -> None:
    if config.architecture not in REGISTRY:
        known = ", ".join(REGISTRY)
        raise unreadable(CONFIG, f"architecture {config.architecture[:40]!r} is not one of {known}")
    if config.normalize_activations not in ("none", "expected_average_only_in"):  # the latter does nothing when run
        raise unreadable(CONFIG, f"normalize_activations {config.normalize_activations[:40]!r} is not supported")
    if config.architecture == "standard" and config.activation_fn_str != "relu":
        raise unreadable(CONFIG, f"activation_fn_str {config.activation_fn_str[:40]!r} is not supported")
    if "k" in ARCHITECTURES.get(config.architecture, ()) and not 1 <= (config.k or 0) <= config.d_sae:
        raise unreadable(CONFIG, f"k must be between 1 and d_sae ({config.d_sae}), got {config.k}")


def write_config(sae: SAE, dtype: str) -> bytes:
    """``cfg.json`` of an SAE, flat, in SAELens' names.

    Raises:
        SaeFileError: the SAE's metadata cannot be written as JSON.
    """
    from sae_widget import __version__

    own = {
        "format_version": FORMAT_VERSION,
        "made_by": __version__,
        "scale": sae.scale,
        "metadata": _finite(sae.metadata),
    }
    config = {
        "architecture": sae.architecture,
        "d_in": sae.d_in,
        "d_sae": sae.d_sae,
        "dtype": dtype,
        "device": "cpu",
        "apply_b_dec_to_input": sae.apply_b_dec_to_input,
        "normalize_activations": "none",
        "reshape_activations": "none",
        **sae.config_fields(),
        "metadata": {"sae_lens_version": LAYOUT_VERSION, **_shared_names(sae.metadata), "sae_widget": own},
    }
    try:
        return json.dumps(config, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise SaeFileError(
            f"The SAE's metadata cannot be saved ({error}). Nothing was written; keep to text, numbers and lists."
        ) from error


def _shared_names(metadata: dict[str, Any]) -> dict[str, Any]:
    """Model and hook by the names that other readers know."""
    names: dict[str, Any] = {}
    if isinstance(metadata.get("model_name"), str):
        names["model_name"] = metadata["model_name"]
    layer, hook = metadata.get("layer"), metadata.get("hook_name")
    if isinstance(layer, int) and isinstance(hook, str):
        names["hook_name"] = "ln_final.hook_normalized" if hook == "final_norm" else f"blocks.{layer}.hook_{hook}"
    return names


def _finite(value: Any) -> Any:
    """The same with ``None`` for numbers that JSON does not have."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value
