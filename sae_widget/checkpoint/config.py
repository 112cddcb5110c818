"""``cfg.json``: what it says, checked, and how it maps to our SAEs."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sae_widget.checkpoint.base import CONFIG, SaeFileError, first_fault, printable, unreadable
from sae_widget.checkpoint.old import is_old, modern
from sae_widget.checkpoint.sites import is_of_heads, our_model_name, our_site, shared_names
from sae_widget.config import ARCHITECTURES
from sae_widget.sae import REGISTRY, BatchTopKSAE

if TYPE_CHECKING:
    from sae_widget.sae import SAE

FORMAT_VERSION = 1
LAYOUT_VERSION = "6.0.0"  # SAELens converts what does not claim at least this
MAX_CONFIG_BYTES = 1_000_000
READ_NORMALIZATIONS = {
    "none": "none",
    "expected_average_only_in": "none",  # it does nothing when an SAE is run: a release's factor is in its list
    "layer_norm": "layer_norm",
    "constant_norm_rescale": "constant_norm_rescale",
}
"""What a file says, and what that means when the SAE is run."""


class Own(BaseModel):
    """What this package notes about its files, under ``metadata.sae_widget``."""

    model_config = ConfigDict(strict=True, extra="allow")

    format_version: int = Field(default=FORMAT_VERSION, ge=1)
    made_by: str = "a newer version"
    scale: float = Field(default=1.0, gt=1e-30, lt=1e30, allow_inf_nan=False)
    architecture: str | None = None
    k: int | None = None
    normalize_activations: str | None = None
    metadata: dict[str, Any] = Field(default_factory=dict)


class Metadata(BaseModel):
    """Where an SAE comes from; keys of others are kept."""

    model_config = ConfigDict(strict=True, extra="allow")

    hook_name: str | None = None
    model_name: str | None = None
    model_from_pretrained_kwargs: dict[str, Any] | None = None
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
    reshape_activations: str = "none"
    activation_fn_str: str = "relu"
    finetuning_scaling_factor: bool = False
    k: int | float | None = None
    rescale_acts_by_decoder_norm: bool = False
    metadata: Metadata = Field(default_factory=Metadata)

    @property
    def own(self) -> Own:
        """Our notes; the defaults in files of others."""
        return self.metadata.sae_widget or Own()

    @property
    def centred(self) -> bool:
        """Whether it was trained on a model with centred writing weights, whose activations have mean 0."""
        kwargs = self.metadata.model_from_pretrained_kwargs or {}
        return kwargs.get("center_writing_weights") is True and "layer" in our_site(self.metadata.hook_name or "")

    @property
    def normalization(self) -> str:
        """``SAE.normalize_activations``."""
        told = READ_NORMALIZATIONS[self.normalize_activations]
        return "center" if told == "none" and (self.centred or self.own.normalize_activations) else told

    def sae_metadata(self) -> dict[str, Any]:
        """``SAE.metadata``: as it was saved, or made from SAELens' names."""
        if self.metadata.sae_widget is not None:
            return self.metadata.sae_widget.metadata
        found = self.metadata.model_dump(exclude_none=True, exclude={"sae_widget"})
        if self.metadata.model_name is not None:
            found["model_name"] = our_model_name(self.metadata.model_name)
        return found | our_site(self.metadata.hook_name or "")


def parse_config(content: bytes) -> SaeConfig:
    """Check ``cfg.json``, of SAELens' old formats too.

    Raises:
        SaeFileError: naming the first field that is wrong, or the version that is too new.
    """
    told = read_json(content, CONFIG)
    version, made_by = _version(told)
    if version > FORMAT_VERSION:
        raise SaeFileError(
            f"This SAE was made by sae_widget {printable(made_by)}; please update. "
            "Nothing was loaded, and what you have is unchanged."
        )
    try:
        config = SaeConfig.model_validate(modern(told) if is_old(told) else told)
    except ValidationError as error:
        raise unreadable(CONFIG, first_fault(error)) from error
    check_meaning(config)
    return config


def read_json(content: bytes, name: str) -> dict[str, Any]:
    """The JSON object in a settings file.

    Raises:
        SaeFileError: too long, or something else.
    """
    if len(content) > MAX_CONFIG_BYTES:
        raise unreadable(name, f"it has more than the {MAX_CONFIG_BYTES:,} bytes that are read")
    try:
        told = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise unreadable(name, "it is not JSON") from error
    if not isinstance(told, dict):
        raise unreadable(name, "it is not a JSON object")
    return told


def _version(told: dict[str, Any]) -> tuple[int, str]:
    """The format version, before the rest is checked: a newer version's other fields may be anything."""
    try:
        own = told["metadata"]["sae_widget"]
        version = own["format_version"]
    except (KeyError, TypeError, IndexError):
        return 0, ""
    if type(version) is not int:
        return 0, ""
    return version, str(own.get("made_by", "of a newer version"))[:40]


def check_meaning(config: SaeConfig) -> None:
    """Raise ``SaeFileError`` unless we have what these settings ask for."""
    kind, own = REGISTRY.get(config.architecture), config.own
    if kind is None:
        known = ", ".join(REGISTRY)
        raise unreadable(CONFIG, f"architecture {config.architecture[:40]!r} is not one of {known}")
    if config.reshape_activations != "none" or is_of_heads(config.metadata.hook_name or ""):
        what = config.metadata.hook_name or config.reshape_activations
        raise unreadable(CONFIG, f"it is for {what[:60]!r}, inside the attention, and only whole layers are read here")
    if config.normalize_activations not in READ_NORMALIZATIONS or own.normalize_activations not in (None, "center"):
        named = str(own.normalize_activations or config.normalize_activations)[:40]
        raise unreadable(CONFIG, f"normalize_activations {named!r} is not supported")
    if config.centred and config.normalize_activations == "constant_norm_rescale":
        raise unreadable(CONFIG, "constant_norm_rescale of a model with centred writing weights is not supported")
    if config.architecture == "standard" and config.activation_fn_str != "relu":
        raise unreadable(CONFIG, f"activation_fn_str {config.activation_fn_str[:40]!r} is not supported")
    if own.architecture is not None and own.architecture not in (*_as_jumprelu(), config.architecture):
        raise unreadable(CONFIG, f"metadata.sae_widget.architecture {own.architecture[:40]!r} is not known")
    if own.architecture in _as_jumprelu():
        _check_k(own.k, config.d_sae, whole=True)
    elif "k" in ARCHITECTURES.get(config.architecture, ()):
        _check_k(config.k, config.d_sae, whole=config.architecture not in _as_jumprelu())


def _check_k(k: float | None, d_sae: int, *, whole: bool) -> None:
    # SAELens' k of a whole batch may be a fraction; the comparisons are false for NaN
    if not 1 <= (k or 0) <= d_sae and not (not whole and 0 < (k or 0) <= d_sae):
        raise unreadable(CONFIG, f"k must be between 1 and d_sae ({d_sae}), got {k}")
    if whole and k != int(k or 0):
        raise unreadable(CONFIG, f"k must be a whole number, got {k}")


def _as_jumprelu() -> tuple[str, ...]:
    """Architectures whose finished SAEs SAELens keeps as ``jumprelu``."""
    return tuple(name for name, kind in REGISTRY.items() if issubclass(kind, BatchTopKSAE))


def write_config(sae: SAE, dtype: str) -> bytes:
    """``cfg.json`` of an SAE, flat, in SAELens' names.

    An SAE with one threshold for all features (BatchTopK) is a JumpReLU SAE to SAELens, as its own are; our notes
    say what it was. Centring is no normalisation to SAELens but a way to load the model, so that is what it is told.

    Raises:
        SaeFileError: the SAE's metadata cannot be written as JSON.
    """
    from sae_widget import __version__

    own: dict[str, Any] = {"format_version": FORMAT_VERSION, "made_by": __version__, "scale": sae.scale}
    fields = sae.config_fields()
    architecture = sae.architecture
    if isinstance(sae, BatchTopKSAE):
        own |= {"architecture": architecture, "k": sae.k}
        architecture, fields = "jumprelu", {}
    centred, told = sae.normalize_activations == "center", shared_names(_finite(sae.metadata))
    if centred:
        own["normalize_activations"] = "center"
        told["model_from_pretrained_kwargs"] = {"center_writing_weights": True}
    config = {
        "architecture": architecture,
        "d_in": sae.d_in,
        "d_sae": sae.d_sae,
        "dtype": dtype,
        "device": "cpu",
        "apply_b_dec_to_input": sae.apply_b_dec_to_input,
        "normalize_activations": "none" if centred else sae.normalize_activations,
        "reshape_activations": "none",
        **fields,
        "metadata": {
            "sae_lens_version": LAYOUT_VERSION,
            "training_architecture": sae.architecture,
            **told,
            "sae_widget": own | {"metadata": _finite(sae.metadata)},
        },
    }
    try:
        return json.dumps(config, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise SaeFileError(
            f"The SAE's metadata cannot be saved ({error}). Nothing was written; keep to text, numbers and lists."
        ) from error


def _finite(value: Any) -> Any:
    """The same with ``None`` for numbers that JSON does not have."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value
