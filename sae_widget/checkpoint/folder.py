"""Save and load an SAE and its statistics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sae_widget.checkpoint.atomic import read_together, replace_files
from sae_widget.checkpoint.base import (
    CONFIG,
    STATS,
    TRAINING,
    TRAINING_INFO,
    WEIGHTS,
    SaeFileError,
    folder_of,
    reason,
    unreadable,
)
from sae_widget.checkpoint.config import MAX_CONFIG_BYTES, parse_config, write_config
from sae_widget.checkpoint.dictionaries import DICTIONARY, load_dictionary
from sae_widget.checkpoint.sparsify import SPARSIFY_WEIGHTS, load_coder
from sae_widget.checkpoint.tensors import pieces, read_tensors
from sae_widget.checkpoint.training import training_contents
from sae_widget.checkpoint.weights import OPTIONAL, STORED, file_shapes, folded, unfolded

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from sae_widget.checkpoint.atomic import Content
    from sae_widget.sae import SAE


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
        dtype: ``"float32"``, or ``"float16"`` or ``"bfloat16"`` (half the size).
        training: tensors and information of the training that it comes from, as ``save_training_state`` takes
            them; without them, those of an earlier save are removed.

    Raises:
        ValueError: another dtype.
        SaeFileError: it could not be written; what was there before is intact.
    """
    if dtype not in STORED:
        raise ValueError(f"dtype must be one of {', '.join(STORED)}, got {dtype!r}")
    folder = folder_of(path)
    weights = folded(sae, dtype)
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

    The folder may be one of ``save_sae``, of SAELens (of its old formats too), of dictionary_learning (``ae.pt``)
    or of sparsify (``sae.safetensors``). No file is unpickled.

    Args:
        path: the folder.
        d_in: width of the model that it is for, when that is known.

    Raises:
        SaeFileError: saying which file and what is wrong with it.
    """
    folder = folder_of(path)
    return _read(folder, lambda: _load(folder, d_in))


def load_stats(path: str | Path) -> dict[str, torch.Tensor] | None:
    """The tensors that were saved beside an SAE, or None.

    Raises:
        SaeFileError: they cannot be read.
    """
    folder = folder_of(path)
    return _read(folder, lambda: read_tensors(folder / STATS) if (folder / STATS).exists() else None)


def _read(folder: Path, read: Any) -> Any:
    try:
        return read_together(folder, read)
    except OSError as error:
        raise unreadable(f"No SAE could be read from {folder}", reason(error)) from error


def _load(folder: Path, d_in: int | None) -> SAE:
    if (folder / DICTIONARY).exists() and not (folder / WEIGHTS).exists():
        sae = load_dictionary(folder)
    elif (folder / SPARSIFY_WEIGHTS).exists() and not (folder / WEIGHTS).exists():
        sae = load_coder(folder)
    else:
        with (folder / CONFIG).open("rb") as file:
            config = parse_config(file.read(MAX_CONFIG_BYTES + 1))
        _check_width(config.d_in, config.d_sae, d_in)
        sae = unfolded(config, read_tensors(folder / WEIGHTS, file_shapes(config), optional=OPTIONAL))
    _check_width(sae.d_in, sae.d_sae, d_in)
    return sae


def _check_width(d_in: int, d_sae: int, wanted: int | None) -> None:
    if wanted is not None and d_in != wanted:
        raise unreadable(WEIGHTS, f"W_enc is {d_in}x{d_sae}, this model needs {wanted}xN")
