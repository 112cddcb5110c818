"""safetensors files from anywhere: nothing is read before the header has been checked.

The format (https://github.com/huggingface/safetensors) is eight bytes with the length of a JSON header, the header,
and the tensors one after the other. It is read and written here piece by piece, so that a file of gigabytes needs no
second copy of itself in memory, and a full disk is an ``OSError`` like any other.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from sae_widget.checkpoint.base import CONFIG, unreadable
from sae_widget.memory import free_memory

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import BufferedReader
    from pathlib import Path

MAX_TENSORS = 64
MAX_HEADER_BYTES = 1_000_000
DTYPES = {
    "F64": torch.float64,
    "I64": torch.int64,
    "F32": torch.float32,
    "I32": torch.int32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
"""What is read and written, the widest first, which is the order in a file: so every tensor lies at a round place."""
NAMES = {dtype: name for name, dtype in DTYPES.items()}
FLOATS = ("F32", "F16", "BF16", "F64")


class Entry(NamedTuple):
    """What a header says of one tensor."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int

    @property
    def bytes(self) -> int:
        """Bytes that such a tensor needs."""
        return math.prod(self.shape) * DTYPES[self.dtype].itemsize


def read_tensors(
    path: Path,
    expected: dict[str, tuple[int, ...]] | None = None,
    *,
    exact: bool = False,
    most: int = MAX_TENSORS,
    optional: tuple[str, ...] = (),
) -> dict[str, torch.Tensor]:
    """The tensors of a file, floating point ones as finite float32, in memory of their own.

    Args:
        path: the file.
        expected: names and shapes that it must have, all floating point; None takes whatever it has.
        exact: leave the dtypes as they are, and numbers that are not finite or tensors without numbers too.
        most: tensors that it may have.
        optional: names in ``expected`` that may be missing.

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
        entries = _entries(path.name, file.read(length), most)
        if not exact:
            _check_entries(path.name, entries, expected, optional)
        _check_places(path.name, entries, size - 8 - length)
        if 2 * size > free_memory():
            raise unreadable(path.name, f"its {size / 1e9:.1f} GB do not fit into memory")
        tensors = {entry.name: _read_one(path.name, file, entry) for entry in entries}
    if exact:
        return tensors
    return {name: as_float32(f"{path.name}: {name}", tensors.pop(name)) for name in list(tensors)}


def pieces(tensors: dict[str, torch.Tensor]) -> Iterator[bytes | memoryview]:
    """The file with these tensors, piece by piece; tensors elsewhere come to the CPU one at a time.

    Raises:
        TypeError: a dtype that is not in ``DTYPES``.
    """
    order = list(DTYPES)
    for name, tensor in tensors.items():
        if tensor.dtype not in NAMES:
            raise TypeError(f"{name} is {tensor.dtype}, only {', '.join(order)} can be saved")
    names = sorted(tensors, key=lambda name: (order.index(NAMES[tensors[name].dtype]), name))
    header, start = {}, 0
    for name in names:
        tensor = tensors[name]
        end = start + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
        start = end
    written = json.dumps(header).encode()
    written += b" " * (-len(written) % 8)
    yield len(written).to_bytes(8, "little") + written
    for name in names:
        if tensors[name].numel():
            yield _raw(tensors[name].detach().cpu().contiguous())


def _raw(tensor: torch.Tensor) -> memoryview:
    """The bytes of a contiguous tensor, in place."""
    return tensor.reshape(-1).view(torch.uint8).numpy().data


def _read_one(file: str, source: BufferedReader, entry: Entry) -> torch.Tensor:
    if entry.dtype == "BOOL":  # any other byte than 0 and 1 would be a number that does not exist
        kept = torch.empty(entry.shape, dtype=torch.uint8)
    else:
        kept = torch.empty(entry.shape, dtype=DTYPES[entry.dtype])
    if entry.bytes and source.readinto(_raw(kept)) != entry.bytes:
        raise unreadable(file, "it is not a whole safetensors file")
    return kept != 0 if entry.dtype == "BOOL" else kept


def _entries(file: str, header: bytes, most: int) -> list[Entry]:
    try:
        found = json.loads(header)
    except (ValueError, RecursionError) as error:
        raise unreadable(file, "its header is damaged") from error
    if not isinstance(found, dict):
        raise unreadable(file, "its header is damaged")
    found.pop("__metadata__", None)
    if len(found) > most:
        raise unreadable(file, f"it has {len(found):,} tensors, at most {most} are read")
    return sorted((_entry(file, name, entry) for name, entry in found.items()), key=lambda entry: entry.start)


def _entry(file: str, name: str, entry: Any) -> Entry:
    if not isinstance(entry, dict):
        raise unreadable(file, "its header is damaged")
    dtype, shape, places = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
    if not isinstance(dtype, str) or not isinstance(shape, list) or len(shape) > 8:
        raise unreadable(file, "its header is damaged")
    if not isinstance(places, list) or len(places) != 2:
        raise unreadable(file, "its header is damaged")
    if not all(type(n) is int and 0 <= n < 2**48 for n in shape + places):
        raise unreadable(file, "its header is damaged")
    if math.prod(max(1, n) for n in shape) >= 2**60:  # torch multiplies the others even where one is 0
        raise unreadable(file, f"{name[:60]} cannot have the shape {by(tuple(shape))}")
    if dtype not in DTYPES:
        raise unreadable(file, f"{name[:60]} is {dtype[:20]}, at most {', '.join(DTYPES)} are read")
    return Entry(name, dtype, tuple(shape), *places)


def _check_entries(
    file: str, entries: list[Entry], expected: dict[str, tuple[int, ...]] | None, optional: tuple[str, ...]
) -> None:
    found = {entry.name: entry for entry in entries}
    for entry in entries:
        if math.prod(entry.shape) == 0:
            raise unreadable(file, f"{entry.name[:60]} is empty")
    if expected is None:
        return
    for name in sorted(expected.keys() - found.keys() - set(optional)):
        raise unreadable(file, f"{name} is missing; it has {', '.join(sorted(found))[:200] or 'nothing'}")
    for name in sorted(found.keys() - expected.keys()):
        raise unreadable(file, f"it has a tensor {name[:60]!r} that this kind of SAE does not have")
    for name in (name for name in expected if name in found):
        _, dtype, shape, *_ = found[name]
        if shape != expected[name]:
            raise unreadable(file, f"{name} is {by(shape)}, {CONFIG} says {by(expected[name])}")
        if dtype not in FLOATS:
            raise unreadable(file, f"{name} is {dtype}, needs one of {', '.join(FLOATS)}")


def _check_places(file: str, entries: list[Entry], size: int) -> None:
    """Every tensor begins where the one before it ends, and the last ends with the file."""
    at = 0
    for entry in entries:
        if entry.start != at or entry.end != at + entry.bytes:
            raise unreadable(file, f"{entry.name[:60]} does not lie where its header says")
        at = entry.end
    if at != size:
        raise unreadable(file, "it is not a whole safetensors file")


def by(shape: tuple[int, ...]) -> str:
    """A shape as it is told: ``6x10``."""
    return "x".join(str(n) for n in shape) or "a single number"


def as_float32(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """A floating point tensor as float32; ``SaeFileError`` when a number of it is not finite."""
    if not tensor.is_floating_point():
        return tensor
    tensor = tensor.to(torch.float32)
    bad = (~torch.isfinite(tensor)).nonzero()
    if len(bad):
        raise unreadable(name, f"the number at {bad[0].tolist()} is not finite")
    return tensor
