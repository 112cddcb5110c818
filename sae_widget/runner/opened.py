"""An SAE from elsewhere that an explorer is asked to show: from a folder in any layout, or from Python."""

from __future__ import annotations

import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from sae_widget.autosave import load_run
from sae_widget.checkpoint import SaeFileError
from sae_widget.checkpoint.base import printable, unreadable
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
    selected: int | None = None  # a feature that is selected then
    typed: bool = False  # its folder was typed in the page, where what is wrong with it is said too


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
    why = _no_folder(folder)
    if why:
        raise unreadable(f"No SAE could be read from {folder}", why)
    sae, stats = load_run(folder)
    saved = read_explorer(folder) if (folder / EXPLORER).exists() else None
    return Opened(sae, stats, f"the SAE of {folder.name or folder.resolve().name}", str(folder), saved)


def typed_folder(typed: str) -> Path:
    """The folder that a person means by what was typed: ``~`` is home, and a notebook's own folder the beginning.

    Raises:
        SaeFileError: nothing was typed, or the home of somebody who is not known.
    """
    if not typed.strip():
        raise SaeFileError("Type the folder of a saved SAE first. What is shown is kept.")
    try:
        return Path(typed.strip()).expanduser().absolute()
    except (RuntimeError, ValueError) as error:
        raise unreadable(f"No SAE could be read from {typed.strip()}", "there is no such home folder") from error


def _no_folder(path: Path) -> str:
    """Why a path is not that of a folder, empty when it is."""
    try:
        if path.is_dir():
            return ""
        return "it is a file; give the folder that it lies in" if path.is_file() else "there is no such folder"
    except OSError as error:  # too long, or in a folder that may not be looked into
        return (error.strerror or str(error)).lower()


def _from_python(sae: SAE) -> Opened:
    weights = {name: getattr(sae, name) for name in ("W_enc", "b_enc", "W_dec", "b_dec", *sae.vectors)}
    for name, tensor in weights.items():
        if tensor.dtype != torch.float32 or tensor.device.type != "cpu":
            raise TypeError(f"{name} must be torch.float32 on the CPU, got {tensor.dtype} on {tensor.device}")
        if not torch.isfinite(tensor).all():
            raise ValueError(f"{name} has values that are not finite, so that nothing can be shown of this SAE")
    told = (sae.metadata.get(key) for key in ("release", "sae_id"))
    release = " ".join(printable(str(part)[:200]) for part in told if part)
    words = f"the SAE {release}" if release else "the SAE from Python"
    return Opened(sae, None, words, f"weights {zlib.crc32(sae.W_dec.detach().contiguous().numpy().data):08x}")
