"""``.pt`` files without pickle: tensors come out as they went in; everything else is refused and nothing runs."""

from __future__ import annotations

import os
import pickle
import random
import time
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch

from sae_widget.checkpoint import SaeFileError
from sae_widget.checkpoint.zipped import read_zipped


def some_tensors() -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(5)
    flat = torch.randn(24, generator=g)
    return {
        "a": flat[:12].view(3, 4),
        "turned": flat[:12].view(3, 4).t(),  # of the same storage
        "part": flat.view(4, 6)[1:3, 1::2],
        "one": torch.tensor(0.25),
        "double": torch.randn(5, generator=g, dtype=torch.float64),
        "half": torch.randn(5, generator=g).to(torch.bfloat16),
        "k": torch.tensor(32, dtype=torch.int32),
        "sizes": torch.tensor([2, 3]),
    }


@pytest.mark.parametrize("protocol", [2, 4])
def test_tensors_come_out_as_they_went_in(tmp_path: Path, protocol: int) -> None:
    torch.save(some_tensors(), tmp_path / "ae.pt", pickle_protocol=protocol)
    found = read_zipped(tmp_path / "ae.pt")
    assert found.keys() == some_tensors().keys()
    for name, tensor in some_tensors().items():
        expected = tensor.float() if tensor.is_floating_point() else tensor
        assert torch.equal(found[name], expected) and found[name].is_contiguous()
    assert found["a"].data_ptr() != found["turned"].data_ptr()


def test_a_state_dict_and_parameters(tmp_path: Path) -> None:
    with torch.random.fork_rng():
        layer = torch.nn.Linear(3, 5)
    for kept in (layer.state_dict(), OrderedDict(layer.named_parameters())):
        torch.save(kept, tmp_path / "ae.pt")
        found = read_zipped(tmp_path / "ae.pt")
        assert torch.equal(found["weight"], layer.weight.detach()) and found["bias"].shape == (5,)


class Evil:
    """Unpickling it makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_nothing_that_a_file_names_is_called(tmp_path: Path, protocol: int) -> None:
    torch.save({"a": torch.ones(2), "b": Evil(tmp_path / "made")}, tmp_path / "ae.pt", pickle_protocol=protocol)
    with pytest.raises(SaeFileError, match=r"its program names '(posix|nt) mkdir', which is not one of the parts"):
        read_zipped(tmp_path / "ae.pt")
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("kept", "said"),
    [
        ([torch.ones(2)], "instruction EMPTY_LIST"),
        ({"a": 1}, "it holds something else than a dictionary of tensors"),
        ({"a": {"b": torch.ones(2)}}, "it holds something else"),
        (torch.ones(2), "it holds something else"),
        ({"a": torch.ones(2), "lr": 0.5}, "instruction BINFLOAT"),
        ({1: torch.ones(2)}, "fills something else than a dictionary"),
        ({"a": torch.zeros(0)}, "a tensor of it is empty"),
        ({"a": torch.ones(2, dtype=torch.complex64)}, "its program names 'torch ComplexFloatStorage'"),
        ({"a": torch.ones(1).expand(4096, 4096)}, "its tensors are larger than the file"),
        ({str(i): torch.ones(1) for i in range(65)}, "it has 65 tensors, at most 64 are read"),
        ({"a": torch.tensor([1.0, torch.nan])}, r"ae.pt: a: the number at \[1\] is not finite"),
    ],
)
def test_what_is_no_dictionary_of_tensors(tmp_path: Path, kept: Any, said: str) -> None:
    torch.save(kept, tmp_path / "ae.pt")
    with pytest.raises(SaeFileError, match=f"{said}.*Nothing was loaded"):
        read_zipped(tmp_path / "ae.pt")


def program(*instructions: bytes) -> bytes:
    return b"\x80\x02" + b"".join(instructions) + b"."


TENSOR = b"ctorch._utils\n_rebuild_tensor_v2\n"
STORAGE = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x04tQ"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (program(b"cos\nsystem\n", b"X\x02\x00\x00\x00lstR"), "names 'os system'"),
        (program(b"(cos\nsystem\nX\x02\x00\x00\x00lso"), "names 'os system'"),
        (program(b"ios\nsystem\n"), "instruction INST"),
        (
            program(b"}X\x01\x00\x00\x00a", TENSOR, b"(", STORAGE, b"K\x00(K\x05tK\x01\x85tRs"),
            "does not fit its storage",
        ),
        (program(b"}X\x01\x00\x00\x00a", TENSOR, b"(", STORAGE, b"K\x00(K\x02tJ\xff\xff\xff\xff\x85tRs"), "is empty"),
        (program(b"}X\x01\x00\x00\x00a", TENSOR, b"(", STORAGE, b"J\x9c\xff\xff\xff(K\x02tK\x01\x85tRs"), "is empty"),
        (program(b"}X\x01\x00\x00\x00a", TENSOR, b"(", STORAGE, b"K\x00\x88\x88tRs"), "it is damaged"),
        (program(b"}X\x01\x00\x00\x00a", TENSOR, b")Rs"), "it is damaged"),
        (program(b"h\x09"), "it is damaged"),
        (program(), "it is damaged"),
        (b"\x80\x02", "it is damaged"),
        (b"", "it is damaged"),
        (
            program(b"}" + b"X\x01\x00\x00\x00a}s" * 100_000),
            "it has more than|more than 1,000,000 bytes|something else",
        ),
        (program(b")" + b"\x85" * 900_000), "something else than a dictionary"),
        (program(b"}q\x00X\x01\x00\x00\x00ah\x00s"), "something else than a dictionary"),
        (program(b"P1\n"), "instruction PERSID"),
    ],
)
def test_programs_that_are_refused(tmp_path: Path, content: bytes, said: str) -> None:
    with zipfile.ZipFile(tmp_path / "ae.pt", "w") as archive:
        archive.writestr("archive/data.pkl", content)
        archive.writestr("archive/data/0", bytes(16))
    with pytest.raises(SaeFileError, match=f"({said}).*Nothing was loaded"):
        read_zipped(tmp_path / "ae.pt")


def test_archives_that_are_refused(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(2)}, tmp_path / "good.pt")
    with zipfile.ZipFile(tmp_path / "good.pt") as archive:
        records = {info.filename: archive.read(info) for info in archive.infolist()}
    root = next(iter(records)).split("/")[0]

    def archive_of(name: str, changes: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
        with zipfile.ZipFile(tmp_path / name, "w", compression) as made:
            for record, content in (records | changes).items():
                made.writestr(record, content)
        return tmp_path / name

    cases = {
        archive_of("bomb", {"x": bytes(10_000_000)}, zipfile.ZIP_DEFLATED): "it is compressed",
        archive_of("many", {f"x{i}": b"" for i in range(600)}): "more than the 512 records",
        archive_of("big", {f"{root}/byteorder": b"big"}): "another order of bytes",
        archive_of("short", {f"{root}/data/0": bytes(4)}): "does not fit its storage",
        archive_of("two", {"other/data.pkl": b""}): "no program that says how its tensors lie",
    }
    (tmp_path / "text").write_text("no archive at all, but long enough for the end of one")
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "old").write_bytes(pickle.dumps({"a": 1}))
    cases |= {tmp_path / name: "it is not a zip archive" for name in ("text", "empty", "old")}
    for path, said in cases.items():
        with pytest.raises(SaeFileError, match=said):
            read_zipped(path)


def test_a_directory_of_a_million_records_is_not_read(tmp_path: Path) -> None:
    end = b"PK\x05\x06" + bytes(4) + (65535).to_bytes(2, "little") * 2 + (2**31).to_bytes(4, "little") + bytes(6)
    (tmp_path / "ae.pt").write_bytes(bytes(1000) + end)
    with pytest.raises(SaeFileError, match="more than the 512 records"):
        read_zipped(tmp_path / "ae.pt")


def test_mutants(tmp_path: Path) -> None:
    torch.save(some_tensors(), tmp_path / "ae.pt")
    whole, chance, refused = (tmp_path / "ae.pt").read_bytes(), random.Random(6), 0
    started = time.process_time()
    for _ in range(1500):
        content = bytearray(whole)
        for _ in range(chance.randrange(1, 6)):
            content[chance.randrange(len(content))] = chance.randrange(256)
        (tmp_path / "ae.pt").write_bytes(content)
        try:
            read_zipped(tmp_path / "ae.pt")
        except SaeFileError as error:
            refused += 1
            assert len(str(error)) < 500
    assert refused > 900
    print(f"{(time.process_time() - started) / 1500 * 1000:.1f} ms each, {refused} refused")
