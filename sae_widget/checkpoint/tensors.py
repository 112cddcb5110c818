"""safetensors files from anywhere: nothing is read before the header has been checked."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load

from sae_widget.checkpoint.base import CONFIG, unreadable
from sae_widget.memory import free_memory

if TYPE_CHECKING:
    from pathlib import Path

MAX_TENSORS = 64
MAX_HEADER_BYTES = 1_000_000
SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "U8": 1, "BOOL": 1}
FLOATS = ("F32", "F16", "BF16", "F64")


def read_tensors(path: Path, expected: dict[str, tuple[int, ...]] | None = None) -> dict[str, torch.Tensor]:
    """The tensors of a file, floating point ones as finite float32, in memory of their own.

    Args:
        path: the file.
        expected: names and shapes that it must have, all floating point; None takes whatever it has.

    Raises:
        SaeFileError: not safetensors, too large, other names or shapes, a number that is not finite.
        OSError: as it comes.
    """
    with path.open("rb") as file:
        size = path.stat().st_size
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > size - 8:
            raise unreadable(path.name, "it is not a whole safetensors file")
        if length > MAX_HEADER_BYTES:
            raise unreadable(path.name, f"its header has {length:,} bytes, at most {MAX_HEADER_BYTES:,} are read")
        header = file.read(length)
        _check_header(path.name, header, expected)
        if 3 * size > free_memory():
            raise unreadable(path.name, f"its {size / 1e9:.1f} GB do not fit into memory")
        content = length.to_bytes(8, "little") + header + file.read()
    try:
        tensors = load(content)
    except (SafetensorError, ValueError, RuntimeError, KeyError) as error:
        raise unreadable(path.name, "it is damaged") from error
    return {name: _as_float32(f"{path.name}: {name}", tensor) for name, tensor in tensors.items()}


def _check_header(file: str, header: bytes, expected: dict[str, tuple[int, ...]] | None) -> None:
    try:
        entries = json.loads(header)
    except (ValueError, RecursionError) as error:
        raise unreadable(file, "its header is damaged") from error
    if not isinstance(entries, dict):
        raise unreadable(file, "its header is damaged")
    entries.pop("__metadata__", None)
    if len(entries) > MAX_TENSORS:
        raise unreadable(file, f"it has {len(entries):,} tensors, at most {MAX_TENSORS} are read")
    found = {name: _entry(file, name, entry) for name, entry in entries.items()}
    if expected is None:
        return
    for name in sorted(expected.keys() - found.keys()):
        raise unreadable(file, f"{name} is missing; it has {', '.join(sorted(found))[:200] or 'nothing'}")
    for name in sorted(found.keys() - expected.keys()):
        raise unreadable(file, f"it has a tensor {name[:60]!r} that this kind of SAE does not have")
    for name, shape in expected.items():
        dtype, got = found[name]
        if got != shape:
            raise unreadable(file, f"{name} is {_by(got)}, {CONFIG} says {_by(shape)}")
        if dtype not in FLOATS:
            raise unreadable(file, f"{name} is {dtype}, needs one of {', '.join(FLOATS)}")


def _entry(file: str, name: str, entry: Any) -> tuple[str, tuple[int, ...]]:
    if not isinstance(entry, dict):
        raise unreadable(file, "its header is damaged")
    dtype, shape = entry.get("dtype"), entry.get("shape")
    if not isinstance(dtype, str) or not isinstance(shape, list) or len(shape) > 8:
        raise unreadable(file, "its header is damaged")
    if not all(type(n) is int and 0 <= n < 2**48 for n in shape):
        raise unreadable(file, "its header is damaged")
    if dtype not in SIZES:
        raise unreadable(file, f"{name[:60]} is {dtype[:20]}, at most {', '.join(SIZES)} are read")
    if math.prod(shape) == 0:
        raise unreadable(file, f"{name[:60]} is empty")
    return dtype, tuple(shape)


def _by(shape: tuple[int, ...]) -> str:
    return "x".join(str(n) for n in shape) or "a single number"


def _as_float32(name: str, tensor: torch.Tensor) -> torch.Tensor:
    if not tensor.is_floating_point():
        return tensor.clone()
    tensor = tensor.to(torch.float32, copy=True)
    bad = (~torch.isfinite(tensor)).nonzero()
    if len(bad):
        raise unreadable(name, f"the number at {bad[0].tolist()} is not finite")
    return tensor
