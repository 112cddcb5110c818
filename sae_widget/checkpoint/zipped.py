"""The tensors of a ``.pt`` file, without pickle: nothing that the file names is imported or called.

``torch.save`` writes a zip archive with one record for each storage and a pickle program that says how tensors lie in
them. ``pickletools.genops`` takes that program apart without running it; the few instructions that a dictionary of
tensors needs are followed here with plain values, and any other instruction or name ends the reading.
"""

from __future__ import annotations

import errno
import math
import pickletools
import struct
import zipfile
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from sae_widget.checkpoint.base import unreadable
from sae_widget.checkpoint.tensors import MAX_TENSORS, as_float32
from sae_widget.memory import free_memory

if TYPE_CHECKING:
    from pathlib import Path

MAX_RECORDS, MAX_PROGRAM_BYTES, MAX_DIRECTORY_BYTES = 512, 1_000_000, 1_000_000
_DTYPES = {
    "torch FloatStorage": torch.float32,
    "torch DoubleStorage": torch.float64,
    "torch HalfStorage": torch.float16,
    "torch BFloat16Storage": torch.bfloat16,
    "torch LongStorage": torch.int64,
    "torch IntStorage": torch.int32,
}
_DICT, _TENSOR, _PARAMETER = (
    "collections OrderedDict",
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_parameter",
)
_NAMES = {*_DTYPES, _DICT, _TENSOR, _PARAMETER}
_PLAIN = {"BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BININT", "BININT1", "BININT2", "LONG1"}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_NOTHING = {"PROTO", "FRAME"}

_DAMAGE = (  # what zipfile, pickletools and the reading below say of it
    zipfile.BadZipFile,
    struct.error,
    ValueError,
    IndexError,
    KeyError,
    TypeError,
    AttributeError,
    RuntimeError,
    EOFError,
    OverflowError,
)


class _Mark:
    """Where the values of the next tuple or dictionary begin."""


class _Name(NamedTuple):
    name: str


class _Storage(NamedTuple):
    dtype: torch.dtype
    key: str
    size: int


class _Tensor(NamedTuple):
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class _Refused(Exception):
    """What the program wants that a dictionary of tensors does not need."""


def read_zipped(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a ``.pt`` file, floating point ones as finite float32.

    Raises:
        SaeFileError: it is not such a file, holds anything else than a dictionary of tensors, or is too large.
        OSError: as it comes.
    """
    size = path.stat().st_size
    if 3 * size > free_memory():
        raise unreadable(path.name, f"its {size / 1e9:.1f} GB do not fit into memory")
    _check_directory(path, size)
    try:
        with zipfile.ZipFile(path) as archive:
            return {name: as_float32(f"{path.name}: {name}", t) for name, t in _tensors(archive, size).items()}
    except _Refused as error:
        raise unreadable(path.name, f"{error}, so it was not read further") from error
    except _DAMAGE as error:
        raise unreadable(path.name, "it is damaged") from error
    except OSError as error:
        if error.errno != errno.EINVAL:  # a record that begins before the file does
            raise
        raise unreadable(path.name, "it is damaged") from error


def _check_directory(path: Path, size: int) -> None:
    """A look at the end of the archive, before its directory is read as a whole."""
    with path.open("rb") as file:
        file.seek(max(0, size - 22))
        end = file.read(22)
    if len(end) < 22 or not end.startswith(b"PK\x05\x06"):
        raise unreadable(path.name, "it is not a zip archive as torch.save writes them")
    records, length = int.from_bytes(end[10:12], "little"), int.from_bytes(end[12:16], "little")
    if records > MAX_RECORDS or length > MAX_DIRECTORY_BYTES:
        raise unreadable(path.name, f"it has more than the {MAX_RECORDS} records that are read")


def _tensors(archive: zipfile.ZipFile, size: int) -> dict[str, torch.Tensor]:
    records = {info.filename: info for info in archive.infolist()}
    programs = [name for name in records if name.endswith("/data.pkl")]
    if len(programs) != 1:
        raise _Refused("it has no program that says how its tensors lie")
    root = programs[0].removesuffix("data.pkl")
    if any(info.compress_type != zipfile.ZIP_STORED or info.file_size > size for info in records.values()):
        raise _Refused("it is compressed")
    if records[programs[0]].file_size > MAX_PROGRAM_BYTES:
        raise _Refused(f"its program has more than {MAX_PROGRAM_BYTES:,} bytes")
    if f"{root}byteorder" in records and archive.read(f"{root}byteorder") != b"little":
        raise _Refused("it was written on a machine with another order of bytes")
    told = _follow(archive.read(programs[0]))
    if not isinstance(told, dict) or not all(isinstance(part, _Tensor) for part in told.values()):
        raise _Refused("it holds something else than a dictionary of tensors")
    if len(told) > MAX_TENSORS:
        raise _Refused(f"it has {len(told):,} tensors, at most {MAX_TENSORS} are read")
    if sum(math.prod(tensor.shape) * tensor.storage.dtype.itemsize for tensor in told.values()) > size:
        raise _Refused("its tensors are larger than the file")
    return {
        str(name): _tensor(tensor, archive.read(f"{root}data/{tensor.storage.key}")) for name, tensor in told.items()
    }


def _tensor(told: _Tensor, content: bytes) -> torch.Tensor:
    storage, offset, shape, stride = told
    if len(content) != storage.size * storage.dtype.itemsize or len(shape) != len(stride) or len(shape) > 8:
        raise _Refused("a tensor of it does not fit its storage")
    if min((*shape, storage.size), default=0) < 1 or min((*stride, offset)) < 0:
        raise _Refused("a tensor of it is empty")
    if offset + sum((n - 1) * step for n, step in zip(shape, stride, strict=True)) >= storage.size:
        raise _Refused("a tensor of it does not fit its storage")
    whole = torch.frombuffer(bytearray(content), dtype=storage.dtype)
    return whole.as_strided(shape, stride, offset).clone(memory_format=torch.contiguous_format)


def _follow(program: bytes) -> Any:
    """What the program leaves on its stack, in plain values."""
    stack: list[Any] = []
    memo: dict[Any, Any] = {}
    for opcode, argument, _ in pickletools.genops(program):
        name = opcode.name
        if name == "STOP":
            return stack[-1]
        if name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _PLAIN:
            stack.append(argument)
        elif name in _TUPLES:
            parts = [stack.pop() for _ in range(_TUPLES[name])]
            stack.append(tuple(reversed(parts)))
        elif name in ("BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name not in _NOTHING:
            _build(name, argument, stack, memo)
    raise _Refused("its program has no end")


def _build(name: str, argument: Any, stack: list[Any], memo: dict[Any, Any]) -> None:
    """The instructions that make something of what lies on the stack."""
    if name == "MEMOIZE":
        memo[len(memo)] = stack[-1]
    elif name == "MARK":
        stack.append(_Mark())
    elif name == "EMPTY_DICT":
        stack.append({})
    elif name == "TUPLE":
        stack.append(tuple(_since_mark(stack)))
    elif name == "SETITEM":
        value, key = stack.pop(), stack.pop()
        _fill(stack[-1], [key, value])
    elif name == "SETITEMS":
        parts = _since_mark(stack)
        _fill(stack[-1], parts)
    elif name in ("GLOBAL", "STACK_GLOBAL"):
        if name == "STACK_GLOBAL":
            last, module = stack.pop(), stack.pop()
            argument = f"{module} {last}"
        if argument not in _NAMES:
            raise _Refused(f"its program names {str(argument)[:60]!r}, which is not one of the parts of a tensor")
        stack.append(_Name(argument))
    elif name == "BINPERSID":
        kind, dtype, key, _, size = stack.pop()
        if kind != "storage" or type(key) is not str or type(size) is not int or not isinstance(dtype, _Name):
            raise _Refused("a storage of it is not as torch.save writes them")
        stack.append(_Storage(_DTYPES[dtype.name], key, size))
    elif name == "REDUCE":
        given = stack.pop()
        stack.append(_made(stack.pop(), given))
    elif name == "BUILD" and isinstance(stack[-1], dict) and isinstance(stack[-2], dict):
        stack.pop()  # the versions that a state_dict carries along
    else:
        raise _Refused(f"its program has the instruction {name}, which a dictionary of tensors does not need")


def _made(what: Any, given: Any) -> Any:
    """What calling one of the known names would give, as a plain value."""
    if what == _Name(_DICT) and given == ():
        return {}
    if what == _Name(_PARAMETER) and isinstance(given[0], _Tensor):
        return given[0]
    if what == _Name(_TENSOR) and isinstance(given[0], _Storage):
        storage, offset, shape, stride = given[:4]
        if all(type(n) is int for n in (offset, *shape, *stride)):
            return _Tensor(storage, offset, tuple(shape), tuple(stride))
    raise _Refused("its program calls what a dictionary of tensors does not need")


def _since_mark(stack: list[Any]) -> list[Any]:
    parts: list[Any] = []
    while not isinstance(stack[-1], _Mark):
        parts.append(stack.pop())
    stack.pop()
    return parts[::-1]


def _fill(target: Any, parts: list[Any]) -> None:
    if not isinstance(target, dict) or not all(type(key) is str for key in parts[::2]):
        raise _Refused("its program fills something else than a dictionary")
    target.update(zip(parts[::2], parts[1::2], strict=True))
