"""What is checked in a model directory's weight files before they are read."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sae_widget.activations.base import DamagedModelError, ModelLoadError

if TYPE_CHECKING:
    from sae_widget.activations.families import Sizes

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".pkl")
MAX_HEADER_BYTES = 25_000_000
_BYTES_OF = {
    "F64": 8,
    "F32": 4,
    "F16": 2,
    "BF16": 2,
    "I64": 8,
    "I32": 4,
    "I16": 2,
    "I8": 1,
    "U8": 1,
    "BOOL": 1,
}


def weight_files(folder: Path, label: str) -> list[Path]:
    """The safetensors files of a model directory, in order.

    Raises:
        ModelLoadError: there are none, some are missing, or there are only pickles, which can run code.
    """
    index = folder / INDEX
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if index.is_file():
        files = [folder / name for name in shard_names(index, label)]
        missing = [file.name for file in files if not file.is_file()]
        if missing:
            raise ModelLoadError(f"{label} is incomplete: {missing[0]} is missing. Nothing was loaded.")
        return files
    if any(file.suffix in PICKLE_SUFFIXES for file in folder.iterdir()):
        raise ModelLoadError(pickle_sentence(label))
    raise ModelLoadError(f"{label} has no weights: {WEIGHTS} is missing. Nothing was loaded.")


def pickle_sentence(label: str) -> str:
    """Why a model with only pickled weights is refused."""
    return (
        f"{label} has its weights only as a pickle, which can run code; only safetensors weights are loaded. "
        "Choose a model with model.safetensors."
    )


def shard_names(index: Path, label: str) -> list[str]:
    """The plain file names that ``model.safetensors.index.json`` lists; ``ModelLoadError`` unless they are sound."""
    try:
        weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        names = sorted(set(weight_map.values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DamagedModelError(f"{label}: {index.name} cannot be read. Nothing was loaded.") from error
    if not names or any(not isinstance(n, str) or Path(n).name != n or not n.endswith(".safetensors") for n in names):
        raise ModelLoadError(
            f"{label}: {index.name} names files that are not safetensors beside it. Nothing was loaded."
        )
    return names


def check_weights(files: list[Path], sizes: Sizes, label: str) -> None:
    """Refuse damaged files, and a config that promises a network much larger than the weights.

    Raises:
        ModelLoadError: with the file that is at fault.
    """
    elements = sum(_elements(file, label) for file in files)
    if sizes.parameters > 2 * elements + 10_000:
        raise ModelLoadError(
            f"{label}: config.json describes about {sizes.parameters:,} weights, but {elements:,} are there. "
            "They do not belong together, so nothing was loaded."
        )


def _elements(file: Path, label: str) -> int:
    """Number of values in one file, after checking its header against its length."""
    try:
        header, data_bytes = _header(file)
        elements, end = 0, 0
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            count = math.prod(entry["shape"])
            start, stop = entry["data_offsets"]
            if count < 0 or stop - start != count * _BYTES_OF[entry["dtype"]]:
                raise ValueError(f"{name} has the wrong length")
            elements, end = elements + count, max(end, stop)
        if end != data_bytes:
            raise ValueError(f"{data_bytes:,} bytes of weights instead of {end:,}")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = f"{type(error).__name__}" if not isinstance(error, ValueError) else str(error)[:120]
        raise DamagedModelError(
            f"{label}: the weights in {file.name} are damaged or incomplete ({reason}). Nothing was loaded."
        ) from error
    return elements


def _header(file: Path) -> tuple[dict[str, Any], int]:
    """The JSON header of a safetensors file and the number of bytes behind it."""
    size = file.stat().st_size
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        if length > min(MAX_HEADER_BYTES, size - 8):
            raise ValueError("the header is longer than the file")
        header = json.loads(opened.read(length))
    if not isinstance(header, dict):
        raise ValueError("the header is not an object")
    return header, size - 8 - length
