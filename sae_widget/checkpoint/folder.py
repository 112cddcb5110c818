"""Save and load an SAE and its statistics.

The scale of the activations is folded into the weights, so that any reader of the layout can use them,
and noted in ``cfg.json``, so that ``load_sae`` can unfold it.
"""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from sae_widget.checkpoint.atomic import read_together, replace_files
from sae_widget.checkpoint.base import CONFIG, STATS, TRAINING, TRAINING_INFO, WEIGHTS, SaeFileError, reason, unreadable
from sae_widget.checkpoint.config import SaeConfig, parse_config, write_config
from sae_widget.checkpoint.tensors import pieces, read_tensors
from sae_widget.checkpoint.training import training_contents
from sae_widget.sae import REGISTRY, SAE

if TYPE_CHECKING:
    from sae_widget.checkpoint.atomic import Content

STORED = {"float32": torch.float32, "float16": torch.float16}


def save_sae(
    sae: SAE,
    path: str | Path,
    stats: dict[str, torch.Tensor] | None = None,
    *,
    dtype: str = "float32",
    training: tuple[dict[str, torch.Tensor], dict[str, Any]] | None = None,
) -> None:
    """Write an SAE into a folder, in place of what was there; a reader sees the old one or the new one.

    Args:
        sae: what to save.
        path: the folder, made when it does not exist.
        stats: tensors to keep beside it; without them, those of an earlier save are removed.
        dtype: ``"float32"`` or ``"float16"`` (half the size).
        training: tensors and information of the training that it comes from, as ``save_training_state`` takes
            them; without them, those of an earlier save are removed.

    Raises:
        ValueError: another dtype.
        SaeFileError: it could not be written; what was there before is intact.
    """
    if dtype not in STORED:
        raise ValueError(f"dtype must be one of {', '.join(STORED)}, got {dtype!r}")
    folder = Path(path)
    weights = _folded(sae, STORED[dtype])
    contents: dict[str, Content] = {WEIGHTS: pieces(weights), CONFIG: write_config(sae, dtype)}
    if stats is not None:
        contents[STATS] = pieces(stats)
    if training is not None:
        contents |= training_contents(*training)
    gone = tuple(name for name in (STATS, TRAINING, TRAINING_INFO) if name not in contents)
    try:
        replace_files(folder, contents, gone)
    except OSError as error:
        raise SaeFileError(
            f"The SAE could not be saved in {folder}: {reason(error)}. "
            "What was there before is intact; make room or choose another folder, then save again."
        ) from error


def load_sae(path: str | Path, *, d_in: int | None = None) -> SAE:
    """Read an SAE; every tensor is in memory of its own, so that the files may change.

    Args:
        path: the folder.
        d_in: width of the model that it is for, when that is known.

    Raises:
        SaeFileError: saying which file and what is wrong with it.
    """
    folder = Path(path)
    return _read(folder, lambda: _load(folder, d_in))


def load_stats(path: str | Path) -> dict[str, torch.Tensor] | None:
    """The tensors that were saved beside an SAE, or None.

    Raises:
        SaeFileError: they cannot be read.
    """
    folder = Path(path)
    return _read(folder, lambda: read_tensors(folder / STATS) if (folder / STATS).exists() else None)


def _read(folder: Path, read: Any) -> Any:
    try:
        return read_together(folder, read)
    except OSError as error:
        raise unreadable(f"No SAE could be read from {folder}", reason(error)) from error


def _load(folder: Path, d_in: int | None) -> SAE:
    with (folder / CONFIG).open("rb") as file:
        config = parse_config(file.read(1_000_001))
    if d_in is not None and config.d_in != d_in:
        raise unreadable(WEIGHTS, f"W_enc is {config.d_in}x{config.d_sae}, this model needs {d_in}xN")
    return _unfolded(config, read_tensors(folder / WEIGHTS, _shapes(config)))


def _shapes(config: SaeConfig) -> dict[str, tuple[int, ...]]:
    d_in, d_sae = config.d_in, config.d_sae
    return {"W_enc": (d_in, d_sae), "W_dec": (d_sae, d_in), "b_enc": (d_sae,), "b_dec": (d_in,)}


def _folded(sae: SAE, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """The weights over raw activations, with the scale inside, in the dtype they are stored in."""
    tensors = {
        "W_enc": sae.W_enc * sae.scale,
        "W_dec": sae.W_dec / sae.scale,
        "b_enc": sae.b_enc,
        "b_dec": sae.b_dec / sae.scale,
    }
    stored = {name: tensor.detach().to(dtype).contiguous() for name, tensor in tensors.items()}
    for name, tensor in stored.items():
        if not bool(torch.isfinite(tensor).all()):
            raise SaeFileError(
                f"{name} has numbers that are not finite in {str(dtype).removeprefix('torch.')}. "
                "Nothing was written; save in float32, or train again with a lower learning rate."
            )
    return stored


def _unfolded(config: SaeConfig, tensors: dict[str, torch.Tensor]) -> SAE:
    scale = config.scale
    W_enc, W_dec = tensors["W_enc"].div_(scale), tensors["W_dec"].mul_(scale)
    b_enc, b_dec = tensors["b_enc"], tensors["b_dec"].mul_(scale)
    kind = REGISTRY[config.architecture]
    extra: dict[str, Any] = {"k": config.k} if "k" in {f.name for f in fields(kind)} else {}
    if extra and config.rescale_acts_by_decoder_norm:
        norms = W_dec.norm(dim=1).clamp_min(1e-30)  # [d_sae]; the same function with rows of norm 1
        W_enc, b_enc, W_dec = W_enc * norms, b_enc * norms, W_dec / norms[:, None]
    for name, tensor in (("W_enc", W_enc), ("W_dec", W_dec), ("b_enc", b_enc), ("b_dec", b_dec)):
        if not bool(torch.isfinite(tensor).all()):
            raise unreadable(WEIGHTS, f"{name} is not finite at the scale {scale:g} that {CONFIG} gives")
    return kind(
        W_enc=W_enc,
        b_enc=b_enc,
        W_dec=W_dec,
        b_dec=b_dec,
        scale=scale,
        apply_b_dec_to_input=config.apply_b_dec_to_input,
        metadata=config.sae_metadata(),
        **extra,
    )
