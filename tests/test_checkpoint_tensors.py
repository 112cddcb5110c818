"""sae_widget.checkpoint.tensors: files that the safetensors library reads and writes, and those that it never made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, save_file

from sae_widget.checkpoint import SaeFileError, tensors
from sae_widget.checkpoint.tensors import DTYPES, as_float32, by, pieces, read_tensors


def of_every_dtype() -> dict[str, torch.Tensor]:
    """Numbers of 0 to 5 in every dtype, transposed, and what has no numbers or only one."""
    counted = torch.arange(6).reshape(3, 2).T
    made = {f"{name} matrix": counted.to(dtype) for name, dtype in DTYPES.items()}
    one, none = torch.tensor(7, dtype=torch.int16), torch.empty(0, 5)
    learned, odd = torch.ones(3).requires_grad_(), torch.tensor([torch.nan, -torch.inf, -0.0], dtype=torch.float16)
    return made | {"one": one, "none": none, "learned": learned, "not finite": odd}


def same(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> bool:
    """Whether both have the same names, shapes, dtypes and bytes."""
    return {name: _told(tensor) for name, tensor in found.items()} == {n: _told(t) for n, t in wanted.items()}


def _told(tensor: torch.Tensor) -> tuple[Any, ...]:
    whole = tensor.detach().contiguous()
    return whole.dtype, tuple(whole.shape), whole.reshape(-1).view(torch.uint8).tolist()


def written(path: Path, header: Any, body: bytes = b"") -> Path:
    """A file with this header and these bytes behind it."""
    told = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(told).to_bytes(8, "little") + told + body)
    return path


def entry(begin: int, end: int, *shape: int, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


def test_the_library_reads_what_is_written() -> None:
    assert same(load(b"".join(pieces(of_every_dtype()))), of_every_dtype())
    assert load(b"".join(pieces({}))) == {}


def test_what_the_library_writes_is_read_bit_for_bit(tmp_path: Path) -> None:
    wanted = {name: tensor.contiguous() for name, tensor in of_every_dtype().items()}
    save_file(wanted, tmp_path / "x", metadata={"format": "pt"})
    assert same(read_tensors(tmp_path / "x", exact=True), wanted)


def test_every_tensor_lies_at_a_round_place() -> None:
    content = b"".join(pieces(of_every_dtype()))
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    assert length % 8 == 0
    for told in header.values():
        assert told["data_offsets"][0] % DTYPES[told["dtype"]].itemsize == 0


def test_a_dtype_that_cannot_be_saved_is_told_before_the_first_byte() -> None:
    with pytest.raises(TypeError, match=r"b is torch\.complex64, only F64, .* can be saved"):
        next(pieces({"a": torch.ones(2, 3), "b": torch.ones(2, dtype=torch.complex64)}))


def test_numbers_become_finite_float32(tmp_path: Path) -> None:
    given = {"a": torch.tensor([0.5, 3e38], dtype=torch.float64), "b": torch.ones(2, 3).half(), "n": torch.tensor([7])}
    save_file(given, tmp_path / "x")
    found = read_tensors(tmp_path / "x")
    assert [found[name].dtype for name in "abn"] == [torch.float32, torch.float32, torch.int64]
    assert torch.equal(found["a"], given["a"].float()) and torch.equal(found["b"], torch.ones(2, 3))
    save_file(given | {"a": torch.tensor([0.5, 1e39], dtype=torch.float64)}, tmp_path / "x")
    with pytest.raises(SaeFileError, match=r"^x: a: the number at \[1\] is not finite\. Nothing was loaded"):
        read_tensors(tmp_path / "x")
    with pytest.raises(SaeFileError, match=r"^k: the number at \[\] is not finite"):
        as_float32("k", torch.tensor(torch.nan))


def test_only_what_is_optional_may_be_missing(tmp_path: Path) -> None:
    expected = {"a": (2, 3), "b": (4,), "c": ()}
    save_file({"a": torch.ones(2, 3), "c": torch.tensor(1.0)}, tmp_path / "x")
    assert sorted(read_tensors(tmp_path / "x", expected, optional=("b",))) == ["a", "c"]
    with pytest.raises(SaeFileError, match="x: b is missing; it has a, c"):
        read_tensors(tmp_path / "x", expected, optional=("a",))
    with pytest.raises(SaeFileError, match=r"x: c is a single number, cfg\.json says 5"):
        read_tensors(tmp_path / "x", expected | {"c": (5,)}, optional=("b", "c"))
    with pytest.raises(SaeFileError, match="x: it has 2 tensors, at most 1 are read"):
        read_tensors(tmp_path / "x", most=1)
    assert (by((6, 10)), by((4,)), by(())) == ("6x10", "4", "a single number")


LIES = {
    "a gap": ({"a": entry(0, 8, 2), "b": entry(12, 16, 1)}, 16, "b does not lie where its header says"),
    "two at one place": ({"a": entry(0, 8, 2), "b": entry(0, 8, 2)}, 8, "b does not lie where its header says"),
    "another beginning": ({"a": entry(4, 8, 2)}, 8, "a does not lie where its header says"),
    "a shape of more": ({"a": entry(0, 8, 3)}, 8, "a does not lie where its header says"),
    "more bytes": ({"a": entry(0, 8, 2)}, 9, "it is not a whole safetensors file"),
    "fewer bytes": ({"a": entry(0, 8, 2)}, 7, "it is not a whole safetensors file"),
    "one name twice": (b'{"a": {"dtype": "U8", "shape": [2], "data_offsets": [0, 2]}, "a": {"dtype": "U8", '
                       b'"shape": [2], "data_offsets": [2, 4]}}', 4, "a does not lie where its header says"),
    "another dtype": ({"a": entry(0, 8, 2, dtype="F8_E4M3")}, 8, "a is F8_E4M3, at most F64, "),
    "true as a size": ({"a": {"dtype": "U8", "shape": [True], "data_offsets": [0, 1]}}, 1, "its header is damaged"),
    "no numbers in a shape of too many": ({"a": entry(0, 0, 0, 2**40, 2**40)}, 0, "a cannot have the shape 0x1099511"),
    "nine sizes": ({"a": entry(0, 1, *[1] * 9, dtype="U8")}, 1, "its header is damaged"),
    "a list": ([], 0, "its header is damaged"),
    "no JSON": (b"{]", 0, "its header is damaged"),
}  # fmt: skip


@pytest.mark.parametrize("kind", LIES)
def test_a_header_that_lies_is_refused_even_where_all_is_taken_as_it_is(kind: str, tmp_path: Path) -> None:
    header, size, said = LIES[kind]
    path = written(tmp_path / "x", header, bytes(size))
    for exact in (True, False):
        with pytest.raises(SaeFileError, match=f"^x: {said}.*Nothing was loaded, and what you have is unchanged"):
            read_tensors(path, exact=exact)


@pytest.mark.parametrize("content", [b"", b"\0" * 7, b"\x09" + b"\0" * 7 + b"{}"])
def test_less_than_a_header_is_not_a_file(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(SaeFileError, match="x: it is not a whole safetensors file"):
        read_tensors(tmp_path / "x")


def test_any_byte_but_zero_is_true(tmp_path: Path) -> None:
    path = written(tmp_path / "x", {"a": entry(0, 4, 1, 4, dtype="BOOL")}, b"\x00\x01\x02\xff")
    found = read_tensors(path)["a"]
    assert found.dtype == torch.bool and found.view(torch.uint8).tolist() == [[0, 1, 1, 1]]


def test_a_file_that_does_not_fit_into_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_file({"a": torch.ones(100, 30)}, tmp_path / "x")
    size = (tmp_path / "x").stat().st_size
    monkeypatch.setattr(tensors, "free_memory", lambda: 2 * size)
    assert read_tensors(tmp_path / "x")["a"].sum() == 3000
    monkeypatch.setattr(tensors, "free_memory", lambda: 2 * size - 1)
    with pytest.raises(SaeFileError, match=r"x: its 0\.0 GB do not fit into memory"):
        read_tensors(tmp_path / "x")
