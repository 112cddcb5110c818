"""The state of a training on disk: every number as it was, so that a run goes on where it stood.

Two files, replaced together: ``training_state.safetensors`` has the tensors (parameters, moments of the optimizer,
random state), ``training_state.json`` everything else. They may lie in the folder of the SAE that they belong to:
``save_sae(..., training=(tensors, info))`` replaces all of them at once.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from sae_widget.checkpoint.atomic import read_together, replace_files
from sae_widget.checkpoint.base import TRAINING, TRAINING_INFO, SaeFileError, folder_of, printable, reason, unreadable
from sae_widget.checkpoint.tensors import by, pieces, read_tensors

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from sae_widget.checkpoint.atomic import Content

TRAINING_VERSION = 1
MAX_TRAINING_TENSORS = 512
MAX_INFO_BYTES = 200_000_000


def save_training_state(path: str | Path, tensors: dict[str, torch.Tensor], info: dict[str, Any]) -> None:
    """Write the state of a training into a folder, in place of an earlier one; an SAE there is left alone.

    Args:
        path: the folder, made when it does not exist.
        tensors: name -> tensor, of any shape and of a dtype that safetensors has; kept bit for bit.
        info: what JSON can say; numbers come back bit for bit, ``nan`` and infinities too.

    Raises:
        SaeFileError: it could not be written; what was there before is intact.
    """
    folder = folder_of(path)
    contents = training_contents(tensors, info)
    try:
        replace_files(folder, contents)
    except OSError as error:
        raise SaeFileError(
            f"The state of the training could not be saved in {folder}: {reason(error)}. "
            "What was there before is intact; make room or choose another folder, then save again."
        ) from error


def load_training_state(
    path: str | Path, expected: dict[str, tuple[int, ...]] | None = None
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Read the state of a training: its tensors and its information, both of one save.

    Args:
        path: the folder.
        expected: names and shapes that the tensors must have, when they are known.

    Raises:
        SaeFileError: saying which file and what is wrong with it; also when there is none.
    """
    folder = folder_of(path)
    try:
        return read_together(folder, lambda: _load(folder, expected))
    except OSError as error:
        raise unreadable(f"No training can be resumed from {folder}", reason(error)) from error


def training_contents(tensors: dict[str, torch.Tensor], info: dict[str, Any]) -> dict[str, Content]:
    """Both files of a training's state, for ``replace_files``.

    Raises:
        SaeFileError: ``info`` is no JSON, or a tensor has a dtype that cannot be saved.
    """
    from sae_widget import __version__

    whole = {
        "format_version": TRAINING_VERSION,
        "made_by": __version__,
        "shapes": {name: list(tensor.shape) for name, tensor in tensors.items()},
        "info": info,
    }
    try:
        if len(tensors) > MAX_TRAINING_TENSORS:
            raise ValueError(f"{len(tensors)} tensors, at most {MAX_TRAINING_TENSORS}")
        written = json.dumps(whole).encode()
        weights = list(pieces(tensors)) if all(t.device.type == "cpu" for t in tensors.values()) else pieces(tensors)
    except (TypeError, ValueError, RecursionError) as error:
        raise SaeFileError(f"The state of the training cannot be saved ({error}). Nothing was written.") from error
    return {TRAINING: weights, TRAINING_INFO: written}


def _load(folder: Path, expected: dict[str, tuple[int, ...]] | None) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    with (folder / TRAINING_INFO).open("rb") as file:
        content = file.read(MAX_INFO_BYTES + 1)
    told, info = _parse(content)
    tensors = read_tensors(folder / TRAINING, exact=True, most=MAX_TRAINING_TENSORS)
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    for wanted, said in ((told, f"{TRAINING_INFO} says"), (expected, "this run needs")):
        if wanted is None:
            continue
        for name in sorted(wanted.keys() ^ found.keys()):
            what = "is missing" if name in wanted else "is not known"
            raise unreadable(TRAINING, f"{name[:60]} {what}")
        for name, shape in wanted.items():
            if found[name] != shape:
                raise unreadable(TRAINING, f"{name[:60]} is {by(found[name])}, {said} {by(shape)}")
    return tensors, info


def _parse(content: bytes) -> tuple[dict[str, tuple[int, ...]], dict[str, Any]]:
    if len(content) > MAX_INFO_BYTES:
        raise unreadable(TRAINING_INFO, f"it has more than the {MAX_INFO_BYTES:,} bytes that are read")
    try:
        whole = json.loads(content)
        version, made_by = whole["format_version"], printable(str(whole.get("made_by", "a newer version"))[:40])
        if type(version) is int and version > TRAINING_VERSION:
            raise SaeFileError(f"This training was saved by sae_widget {made_by}; please update. Nothing was loaded.")
        shapes = {name: tuple(int(n) for n in shape) for name, shape in whole["shapes"].items()}
        info = whole["info"]
        if version != TRAINING_VERSION or not isinstance(info, dict):
            raise ValueError("not ours")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError) as error:
        raise unreadable(TRAINING_INFO, "it is damaged") from error
    return shapes, info
