"""An SAE from elsewhere that an explorer is asked to show: from a folder in any layout, or from Python."""

from __future__ import annotations

import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from sae_widget.autosave import load_run
from sae_widget.checkpoint.base import unreadable
from sae_widget.runs import EXPLORER, SavedExplorer, read_explorer
from sae_widget.sae.base import SAE

if TYPE_CHECKING:
    from sae_widget.features import FeatureStats


@dataclass(frozen=True, eq=False)
class Opened:
    """An SAE with what is known of it."""

    sae: SAE
    stats: FeatureStats | None
    words: str  # which one it is, for a person
    key: str  # and for the names of its features
    saved: SavedExplorer | None = None  # what an explorer that showed it wrote beside it
    anyway: bool = False  # show it even when it was trained on another model or place


def opened_from(source: Any) -> Opened:
    """An SAE as it is, or the one of a folder in any layout that ``load_sae`` reads, with what lies beside it.

    Raises:
        SaeFileError: the folder cannot be read.
        TypeError: neither an SAE nor a path, or an SAE that is not of float32 on the CPU.
        ValueError: weights that are not finite.
    """
    if isinstance(source, SAE):
        return _from_python(source)
    if not isinstance(source, (str, os.PathLike)):
        raise TypeError(f"sae must be an SAE or the folder of one, got {type(source).__name__}")
    folder = Path(source)
    if "\0" in str(folder) or not folder.is_dir():
        raise unreadable(f"No SAE could be read from {folder}", "there is no such folder")
    sae, stats = load_run(folder)
    saved = read_explorer(folder) if (folder / EXPLORER).exists() else None
    return Opened(sae, stats, f"the SAE of {folder.name or folder.resolve().name}", str(folder), saved)


def _from_python(sae: SAE) -> Opened:
    weights = {name: getattr(sae, name) for name in ("W_enc", "b_enc", "W_dec", "b_dec", *sae.vectors)}
    for name, tensor in weights.items():
        if tensor.dtype != torch.float32 or tensor.device.type != "cpu":
            raise TypeError(f"{name} must be torch.float32 on the CPU, got {tensor.dtype} on {tensor.device}")
        if not torch.isfinite(tensor).all():
            raise ValueError(f"{name} has values that are not finite, so that nothing can be shown of this SAE")
    release = " ".join(str(sae.metadata[key]) for key in ("release", "sae_id") if sae.metadata.get(key))
    words = f"the SAE {release}" if release else "the SAE from Python"
    return Opened(sae, None, words, f"weights {zlib.crc32(sae.W_dec.detach().contiguous().numpy().data):08x}")
