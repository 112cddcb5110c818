"""``run.json``: values at the ends of their ranges, files that are none, and paths that no system has."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sae_widget.checkpoint import SaeFileError
from sae_widget.config import MAX_STEPS, TrainConfig
from sae_widget.runs import info
from sae_widget.runs.info import FORMAT_VERSION, RUN, RunInfo, read_run

LEAST: dict[str, Any] = {"total": 5, "model": "m", "layer": 0, "hook_name": "resid_pre", "tokens": 1}


def written(folder: Path, **changes: Any) -> Path:
    told = {key: value for key, value in (LEAST | changes).items() if value is not ...}
    (folder / RUN).write_text(json.dumps(told))
    return folder


def test_the_least_that_is_a_run(tmp_path: Path) -> None:
    found = read_run(written(tmp_path))
    assert (found.state, found.step, found.sae_step, found.texts, found.store) == ("running", 0, 0, None, None)
    assert found.config == TrainConfig()
    assert read_run(str(tmp_path)) == found


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"total": 0}, "total: input should be greater than or equal to 1"),
        ({"total": MAX_STEPS + 1}, "total: input should be less than or equal to 10000000"),
        ({"total": 5.0}, "total: input should be a valid integer"),
        ({"total": ...}, "total: field required"),
        ({"step": -1}, "step: input should be greater"),
        ({"state": "paused"}, "state: input should be 'running', 'finished', 'stopped' or 'failed'"),
        ({"hook_name": "resid_pre\n"}, "hook_name: string should match pattern"),
        ({"hook_name": "hook_z"}, "hook_name: string should match pattern"),
        ({"model": ""}, "model: string should have at least 1 character"),
        ({"heartbeat": float("nan")}, "heartbeat: input should be a finite number"),
        ({"texts": "one"}, "texts: input should be a valid array"),
        ({"texts": [1]}, r"texts\.0: input should be a valid string"),
        ({"model": "\ud800"}, "the file: invalid JSON"),
        ({"pid": True}, "pid: input should be a valid integer"),
        ({"settings": {"lr": 0.1}}, "settings: unknown setting 'lr'; did you mean 'learning_rate'?"),
        ({"settings": {"k": 0}}, "settings: k must be between 1 and 131,072, got 0"),
        ({"settings": {"k": [1]}}, r"settings\.k\."),
        ({"other": 1}, "other: extra inputs are not permitted"),
        ({"format_version": FORMAT_VERSION + 1}, "a newer sae_widget wrote it; please update"),
        ({"format_version": 0}, "format_version: input should be greater"),
    ],
)
def test_a_field_that_cannot_be_is_named(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(SaeFileError, match=rf"^run\.json: {said.replace('?', '.')}.*Nothing was loaded") as caught:
        read_run(written(tmp_path, **changes))
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "content", [b"", b"{", b"null", b"[]", b"\xff\xfe", b"[" * 100_000, b'{"total": ' + b"9" * 5000 + b"}", b"\0" * 9]
)
def test_a_file_that_is_none(content: bytes, tmp_path: Path) -> None:
    (tmp_path / RUN).write_bytes(content)
    with pytest.raises(SaeFileError, match=r"^run\.json: .*Nothing was loaded"):
        read_run(tmp_path)


def test_a_file_beyond_all_measure_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = len((written(tmp_path) / RUN).read_bytes())
    monkeypatch.setattr(info, "MAX_BYTES", size)
    assert read_run(tmp_path).total == 5
    monkeypatch.setattr(info, "MAX_BYTES", size - 1)
    with pytest.raises(SaeFileError, match=f"it has more than {size - 1:,} bytes, which are not read"):
        read_run(tmp_path)


def test_where_no_run_is(tmp_path: Path) -> None:
    with pytest.raises(SaeFileError, match=r"/none: no training has written there yet\. Nothing was loaded"):
        read_run(tmp_path / "none")
    (tmp_path / RUN).mkdir()
    with pytest.raises(SaeFileError, match=r"No run could be read from .*: is a directory|permission denied"):
        read_run(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(SaeFileError, match=r"/file: not a directory|no training has written there yet"):
        read_run(tmp_path / "file")


@pytest.mark.parametrize(("name", "said"), [("a\0", "a NUL character"), ("\ud800", "half a character")])
def test_a_path_that_no_system_has_is_refused(name: str, said: str, tmp_path: Path) -> None:
    for path in (f"{tmp_path}/{name}", tmp_path / name):
        with pytest.raises(SaeFileError, match=f"^The path has {said} in it. Nothing was read or written.$"):
            read_run(path)


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({}, ""),
        (dict.fromkeys(("model", "layer", "tokens", "texts", "store"), None), ""),
        ({"model": "m", "layer": 0, "prepend_bos": True, "tokens": 1}, ""),
        ({"layer": 0, "tokens": 2}, "tokens"),
        ({"layer": 1, "model": "n"}, "model"),  # the first of the fields, not of those given
        ({"prepend_bos": False}, "prepend_bos"),
        ({"texts": ["a"]}, "texts"),
        ({"step": 3}, ""),  # no part of what is read
    ],
)
def test_the_first_difference(given: dict[str, Any], wanted: str) -> None:
    assert RunInfo(**LEAST).differs(given) == wanted
