"""sae_widget.runs.records: the bytes of the file, nothing and one in it, more than is read at once, and strangers."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sae_widget.checkpoint import SaeFileError
from sae_widget.runs import RECORDS, RecordReader, RecordWriter
from sae_widget.training import History
from sae_widget.training.history import CAPACITY, NAMES
from tests.hand_made import history, step


def steps(reader: RecordReader) -> tuple[list[float], bool]:
    rows, fresh = reader.read()
    return rows[:, 0].tolist(), fresh


def test_the_file_is_a_line_of_names_and_rows_of_numbers(tmp_path: Path) -> None:
    (tmp_path / RECORDS).write_bytes(b"what was there before")
    RecordWriter(tmp_path / RECORDS, history(2))
    header, _, content = (tmp_path / RECORDS).read_bytes().partition(b"\n")
    assert json.loads(header)["columns"] == list(NAMES)
    rows = np.frombuffer(content, "<f8").reshape(2, len(NAMES))
    assert np.array_equal(rows, np.array([astuple(step(1)), astuple(step(2))], float), equal_nan=True)


def test_a_run_without_a_record_is_read_and_then_its_first_one(tmp_path: Path) -> None:
    kept = History()
    writer, reader = RecordWriter(tmp_path / RECORDS, kept), RecordReader(tmp_path / RECORDS)
    rows, fresh = reader.read()
    assert rows.shape == (0, len(NAMES)) and fresh
    assert steps(reader) == ([], False)
    kept.append(step(1))
    writer.flush()
    size = (tmp_path / RECORDS).stat().st_size
    writer.flush()  # once more is once
    assert (tmp_path / RECORDS).stat().st_size == size
    assert steps(reader) == ([1], False)
    assert steps(RecordReader(tmp_path / RECORDS)) == ([1], True)  # whoever comes later has it all


def test_more_records_than_are_read_at_once_come_one_after_the_other(tmp_path: Path) -> None:
    kept = History(CAPACITY + 3)
    kept.append(step(1))
    rows = np.repeat(kept.rows, CAPACITY + 2, axis=0)
    rows[:, 0] = np.arange(2, CAPACITY + 4)
    kept.extend(rows)
    RecordWriter(tmp_path / RECORDS, kept)
    reader = RecordReader(tmp_path / RECORDS)
    first, fresh = steps(reader)
    assert fresh and (len(first), first[-1]) == (CAPACITY, CAPACITY)
    assert steps(reader) == ([CAPACITY + 1, CAPACITY + 2, CAPACITY + 3], False)
    assert steps(reader) == ([], False)


@pytest.mark.parametrize(
    "columns",
    [list(reversed(NAMES)), [*NAMES, "more"], list(NAMES[:-1]), [], ["x" * 5_000], dict.fromkeys(NAMES), "step"],
)
def test_other_columns_are_refused(tmp_path: Path, columns: Any) -> None:
    header = json.dumps({"columns": columns}).encode() + b"\n"
    (tmp_path / RECORDS).write_bytes(header + bytes(8 * len(NAMES)))
    with pytest.raises(SaeFileError, match=r"^records\.bin: its (columns are|first line is)"):
        RecordReader(tmp_path / RECORDS).read()


@pytest.mark.parametrize("name", ["step", "dead", "tokens"])
@pytest.mark.parametrize("value", [-1.0, -np.inf, np.inf])
def test_a_count_that_is_none_is_refused(tmp_path: Path, name: str, value: float) -> None:
    RecordWriter(tmp_path / RECORDS, history(1, **{name: value}) if name != "step" else history(1))
    if name == "step":
        content = (tmp_path / RECORDS).read_bytes()
        (tmp_path / RECORDS).write_bytes(
            content[: -8 * len(NAMES)] + np.float64(value).tobytes() + content[-8 * len(NAMES) + 8 :]
        )
    with pytest.raises(SaeFileError, match=r"^records\.bin: it is damaged"):
        RecordReader(tmp_path / RECORDS).read()


def test_losses_that_are_no_numbers_come_as_they_were(tmp_path: Path) -> None:
    RecordWriter(tmp_path / RECORDS, history(1, loss=np.inf, l0=np.nan, sparsity=-0.0))
    rows, _ = RecordReader(tmp_path / RECORDS).read()
    loss, l0, sparsity = (rows[0, NAMES.index(name)] for name in ("loss", "l0", "sparsity"))
    assert loss == np.inf and np.isnan(l0) and np.signbit(sparsity)


def test_a_file_that_is_taken_away_or_cut_gives_nothing_new(tmp_path: Path) -> None:
    path = tmp_path / RECORDS
    RecordWriter(path, history(3))
    whole, reader = path.read_bytes(), RecordReader(path)
    assert steps(reader) == ([1, 2, 3], True)
    path.write_bytes(whole[: -8 * len(NAMES)])
    assert steps(reader) == ([], False)
    path.unlink()
    assert steps(reader) == ([], False)
    path.write_bytes(whole)
    assert steps(reader) == ([], False)


def test_a_name_that_is_no_utf8_and_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"a\xff")
    RecordWriter(path, history(1))
    assert steps(RecordReader(path)) == ([1], True)
    assert [found.name for found in tmp_path.iterdir()] == [path.name]
    with pytest.raises(FileNotFoundError):
        RecordWriter(tmp_path / "none" / RECORDS, history(1))
    with pytest.raises(OSError, match=r"(?i)directory|denied"):
        RecordReader(tmp_path).read()


@pytest.mark.skipif(os.name != "posix", reason="limits of a process")
def test_a_disk_that_was_full_for_a_moment_spoils_nothing(tmp_path: Path) -> None:
    import resource

    kept = history(1)
    writer, reader = RecordWriter(tmp_path / RECORDS, kept), RecordReader(tmp_path / RECORDS)
    assert steps(reader) == ([1], True)
    kept.append(step(2))
    kept.append(step(3))
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, ((tmp_path / RECORDS).stat().st_size + 100, before[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            writer.flush()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    writer.flush()
    assert steps(RecordReader(tmp_path / RECORDS)) == ([1, 2, 3], True)
    assert steps(reader) == ([2, 3], False)


@pytest.mark.parametrize(
    ("name", "value"), [("step", 0), ("step", 1.5), ("step", 1e308), ("tokens", 0.5), ("dead", -1), ("dead", 2**54)]
)
def test_numbers_that_no_run_has_are_damage_and_a_mended_file_is_read_anew(
    name: str, value: float, tmp_path: Path
) -> None:
    path = tmp_path / RECORDS
    RecordWriter(path, history(2))
    sound = path.read_bytes()
    header, _, content = sound.partition(b"\n")
    rows = np.frombuffer(content, "<f8").reshape(2, len(NAMES)).copy()
    rows[1, NAMES.index(name)] = value
    path.write_bytes(header + b"\n" + rows.tobytes())
    reader = RecordReader(path)
    for _ in range(2):
        with pytest.raises(SaeFileError, match="it is damaged"):
            reader.read()
    path.write_bytes(sound)
    assert steps(reader) == ([1, 2], True)


def test_a_file_that_somebody_cleared_away_is_written_anew(tmp_path: Path) -> None:
    kept = history(2)
    writer = RecordWriter(tmp_path / RECORDS, kept)
    (tmp_path / RECORDS).unlink()
    kept.append(step(3))
    writer.flush()
    assert steps(RecordReader(tmp_path / RECORDS)) == ([1, 2, 3], True)
