"""The weights of an SAE as SAELens lays them out, and back.

In a file the scale of the activations is inside the weights, so that any reader of the layout can use them; it is
noted in ``cfg.json``, so that ``load_sae`` can take it out again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from sae_widget.checkpoint.base import CONFIG, WEIGHTS, SaeFileError, unreadable
from sae_widget.config import ARCHITECTURES
from sae_widget.sae import REGISTRY, SAE, BatchTopKSAE

if TYPE_CHECKING:
    from sae_widget.checkpoint.config import SaeConfig

STORED = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
OPTIONAL = ("threshold", "log_threshold", "scaling_factor", "finetuning_scaling_factor")
_FACTORS = OPTIONAL[2:]


def file_shapes(config: SaeConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes that a file may have; those in ``OPTIONAL`` may be missing."""
    d_in, d_sae = config.d_in, config.d_sae
    kind = REGISTRY[config.architecture]
    vectors = {_theirs(config.architecture, name): (d_sae,) for name in ("b_enc", *kind.vectors)}
    shapes: dict[str, tuple[int, ...]] = {"W_enc": (d_in, d_sae), "W_dec": (d_sae, d_in), "b_dec": (d_in,), **vectors}
    if "threshold" in kind.vectors:
        shapes["log_threshold"] = (d_sae,)
    if issubclass(kind, BatchTopKSAE):
        shapes["topk_threshold"] = ()
    return shapes | dict.fromkeys(_FACTORS, (d_sae,))


def _theirs(architecture: str, name: str) -> str:
    return "b_gate" if (architecture, name) == ("gated", "b_enc") else name


def folded(sae: SAE, dtype: str) -> dict[str, torch.Tensor]:
    """What a file has of an SAE: its weights over raw activations, in the dtype they are stored in.

    Raises:
        SaeFileError: a number that this dtype cannot hold.
    """
    tensors = {"W_enc": sae.W_enc * sae.scale, "W_dec": sae.W_dec / sae.scale, "b_dec": sae.b_dec / sae.scale}
    tensors |= {_theirs(sae.architecture, name): getattr(sae, name) for name in ("b_enc", *sae.vectors)}
    if isinstance(sae, BatchTopKSAE):
        tensors["threshold"] = torch.full((sae.d_sae,), sae.threshold, dtype=torch.float32)
    stored = {name: tensor.detach().to(STORED[dtype]).contiguous() for name, tensor in tensors.items()}
    for name, tensor in stored.items():
        if not bool(torch.isfinite(tensor).all()):
            raise SaeFileError(
                f"{name} has numbers that are not finite in {dtype}. "
                "Nothing was written; save in float32, or train again with a lower learning rate."
            )
    return stored


def unfolded(config: SaeConfig, tensors: dict[str, torch.Tensor]) -> SAE:
    """The SAE of a file.

    Args:
        config: its checked settings.
        tensors: its tensors, of the names and shapes of ``file_shapes``; they are used up.

    Raises:
        SaeFileError: the settings and the tensors do not go together.
    """
    kind, extra = _kind(config, tensors)
    parts = {name: tensors[name] for name in ("W_enc", "W_dec", "b_dec")}
    parts |= {name: tensors[_theirs(kind.architecture, name)] for name in ("b_enc", *kind.vectors)}
    if config.rescale_acts_by_decoder_norm and "k" in extra:  # the same function with rows of norm 1
        norms = parts["W_dec"].norm(dim=1).clamp_min(1e-30)  # [d_sae]
        parts["W_enc"].mul_(norms)
        parts["b_enc"].mul_(norms)
        parts["W_dec"].div_(norms[:, None])
    parts["W_dec"].mul_(_factor(config, tensors)[:, None])
    scale = config.own.scale
    parts["W_enc"].div_(scale)
    parts["W_dec"].mul_(scale)
    parts["b_dec"].mul_(scale)
    for name, tensor in parts.items():
        if not bool(torch.isfinite(tensor).all()):
            raise unreadable(WEIGHTS, f"{name} is not finite at the scale {scale:g} that {CONFIG} gives")
    if config.normalization == "layer_norm" and config.d_in < 2:
        raise unreadable(CONFIG, "layer_norm needs a d_in of at least 2")
    return kind(
        **parts,
        scale=scale,
        apply_b_dec_to_input=config.apply_b_dec_to_input,
        normalize_activations=config.normalization,
        metadata=config.sae_metadata(),
        **extra,
    )


def _kind(config: SaeConfig, tensors: dict[str, torch.Tensor]) -> tuple[type[SAE], dict[str, Any]]:
    """The class of a file's SAE, and its fields besides the tensors; ``tensors`` gets its ``threshold``."""
    kind = REGISTRY[config.architecture]
    if issubclass(kind, BatchTopKSAE):  # as SAELens' trainer keeps it
        k = min(max(1, round(config.k or 1)), config.d_sae)
        return kind, {"k": k, "threshold": max(0.0, float(tensors["topk_threshold"]))}
    if "threshold" in kind.vectors:
        tensors["threshold"] = threshold = _threshold(tensors)
        before = REGISTRY.get(config.own.architecture or "")
        if before is not None and issubclass(before, BatchTopKSAE) and bool((threshold == threshold[0]).all()):
            return before, {"k": config.own.k, "threshold": float(threshold[0])}
    return kind, {"k": int(config.k or 1)} if "k" in ARCHITECTURES[config.architecture] else {}


def _threshold(tensors: dict[str, torch.Tensor]) -> torch.Tensor:
    if ("threshold" in tensors) == ("log_threshold" in tensors):
        raise unreadable(WEIGHTS, "it needs either threshold or log_threshold")
    found = tensors["threshold"] if "threshold" in tensors else tensors["log_threshold"].exp()
    return found.clamp_min(0.0)  # below a threshold of zero their ReLU takes over


def _factor(config: SaeConfig, tensors: dict[str, torch.Tensor]) -> torch.Tensor:
    """What each feature's activation was multiplied with before decoding, in old files. ``[d_sae]``."""
    given = [tensors[name] for name in _FACTORS if name in tensors]
    factor = torch.stack(given).prod(0) if given else torch.ones(config.d_sae, dtype=torch.float32)
    if given and not config.finetuning_scaling_factor and not torch.allclose(factor, torch.ones_like(factor)):
        raise unreadable(WEIGHTS, f"it has a scaling factor, and {CONFIG} does not say that it is to be used")
    return factor
