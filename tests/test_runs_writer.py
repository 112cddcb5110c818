"""sae_widget.runs.writer: whose run it is, what of the checkpoint goes, what strangers left, and who takes over."""

from __future__ import annotations

import json
import os
import platform
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from sae_widget.checkpoint import SaeFileError, load_sae, load_training_state
from sae_widget.checkpoint.base import TRAINING, TRAINING_INFO
from sae_widget.runs import CHECKPOINT, RECORDS, RUN, RecordReader, RunInfo, RunWriter, has_checkpoint, read_run
from sae_widget.runs.writer import take_over
from tests.hand_made import features, history, step

PLACE: dict[str, Any] = {"model": "gpt2", "layer": 3, "hook_name": "mlp_out", "tokens": 77, "total": 1000}
STATE = {"params": torch.arange(6.0)}


def begin(folder: Path, n: int = 1, *, seconds: float = 60.0, **said: Any) -> RunWriter:
    return RunWriter(folder, RunInfo(**PLACE | said), history(n), seconds=seconds)


def test_a_run_is_of_the_process_that_writes_it_whatever_was_said_before(tmp_path: Path) -> None:
    before = time.time()
    other = {"pid": 10**30, "host": "elsewhere", "started": 1.0, "heartbeat": 1.0}
    writer = begin(tmp_path / "a" / "b", state="failed", sentence="It rained.", step=7, sae_step=5, **other)
    info = read_run(tmp_path / "a" / "b")
    assert (info.state, info.sentence, info.step, info.sae_step) == ("running", "", 7, 5)
    assert (info.pid, info.host) == (os.getpid(), platform.node())
    assert before <= info.started <= info.heartbeat
    writer.note(step(9))
    writer.end("stopped", "Äpfel 😀")
    ended = read_run(tmp_path / "a" / "b")
    assert (ended.step, ended.sae_step, ended.sentence, ended.started) == (9, 5, "Äpfel 😀", info.started)


def test_what_ended_is_no_more_written_and_its_folder_is_free(tmp_path: Path) -> None:
    writer = begin(tmp_path)
    writer.end("finished", "Done.", 0)
    assert not writer._heart.is_alive()
    after = begin(tmp_path, 2)
    writer.end("failed", "This comes too late.")
    assert read_run(tmp_path).state == "running"
    with pytest.raises(SaeFileError, match="Another process trains in"):
        begin(tmp_path)  # the one that ended before has not let it go
    after.end("stopped", "")


def test_of_a_checkpoint_only_what_is_ours_goes(tmp_path: Path) -> None:
    writer = begin(tmp_path)
    assert not has_checkpoint(tmp_path) and not has_checkpoint(tmp_path / "none")
    assert writer.save_state(STATE, {"step": 1}) and writer.save_state(STATE, {"step": 2})
    assert has_checkpoint(tmp_path)
    assert load_training_state(tmp_path / CHECKPOINT)[1] == {"step": 2}
    (tmp_path / CHECKPOINT / "notes.txt").write_text("mine")
    writer.end("finished", "Done.")
    assert [path.name for path in (tmp_path / CHECKPOINT).iterdir()] == ["notes.txt"]
    assert not has_checkpoint(tmp_path) and writer.trouble == ""


@pytest.mark.parametrize("state", ["stopped", "failed"])
def test_a_run_that_did_not_finish_keeps_its_checkpoint(tmp_path: Path, state: str) -> None:
    writer = begin(tmp_path)
    writer.save_state(STATE, {})
    writer.end(state, "")
    assert has_checkpoint(tmp_path)
    (tmp_path / CHECKPOINT / TRAINING_INFO).unlink()
    assert (tmp_path / CHECKPOINT / TRAINING).exists() and not has_checkpoint(tmp_path)


def test_a_strangers_file_in_the_way_of_a_checkpoint_is_kept(tmp_path: Path) -> None:
    (tmp_path / CHECKPOINT).write_text("mine")
    writer = begin(tmp_path, seconds=0.0)
    assert writer.state_is_due and writer.sae_is_due  # at once
    assert not writer.save_state(STATE, {}) and writer.trouble
    writer.save_sae(features(12).sae, 4)  # which can be done
    assert (load_sae(tmp_path).d_sae, read_run(tmp_path).sae_step) == (12, 4)
    writer.end("finished", "Done.")
    assert (tmp_path / CHECKPOINT).read_text() == "mine" and read_run(tmp_path).state == "finished"


@pytest.mark.parametrize("name", [RUN, RECORDS])
def test_a_folder_that_cannot_be_written_is_let_go(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(SaeFileError, match="could not be written: "):
        begin(tmp_path)
    (tmp_path / name).rmdir()
    begin(tmp_path).end("stopped", "")
    assert read_run(tmp_path).state == "stopped"


def test_a_name_that_is_no_utf8(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"a\xff")
    writer = begin(folder, 3)
    writer.save_sae(features(12).sae, 3)
    assert writer.save_state(STATE, {})
    writer.end("stopped", "")
    assert load_sae(folder).d_sae == 12 and has_checkpoint(folder) and writer.trouble == ""
    later = take_over(folder, history(3), 8, patience=0.0)
    assert later is not None
    later.end("failed", "One died.")
    assert read_run(folder).step == 8
    assert RecordReader(folder / RECORDS).read()[0][:, 0].tolist() == [1, 2, 3]


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", b"[" * 5_000])
def test_a_damaged_run_is_not_taken_over_and_not_changed(tmp_path: Path, content: bytes) -> None:
    (tmp_path / RUN).write_bytes(content)
    assert take_over(tmp_path, history(1), 10**9, patience=0.0) is None
    assert (tmp_path / RUN).read_bytes() == content and not (tmp_path / RECORDS).exists()
    begin(tmp_path).end("stopped", "")  # nobody holds it


@pytest.mark.parametrize("sentence", ["x" * 20_000, "name \udcff is bad", "a\n\x1b[31mb"])
def test_how_it_ended_can_be_read_whatever_was_said(tmp_path: Path, sentence: str) -> None:
    begin(tmp_path).end("failed", sentence)
    info = read_run(tmp_path)
    assert info.state == "failed" and info.sentence.isprintable() and info.sentence[:1] == sentence[:1]


def test_a_run_that_cannot_be_written_leaves_the_one_before(tmp_path: Path) -> None:
    begin(tmp_path).end("finished", "Done.")
    before = (tmp_path / RUN).read_bytes()
    (tmp_path / RECORDS).unlink()
    (tmp_path / RECORDS).mkdir()
    with pytest.raises(SaeFileError, match="could not be written"):
        begin(tmp_path)
    assert (tmp_path / RUN).read_bytes() == before
    assert not list(tmp_path.glob("*.tmp"))


@pytest.mark.parametrize("name", ["heartbeat", "started"])
def test_a_sign_of_life_is_a_number(tmp_path: Path, name: str) -> None:
    begin(tmp_path).end("stopped", "")
    said = json.loads((tmp_path / RUN).read_text(encoding="utf-8"))
    (tmp_path / RUN).write_text(json.dumps(said | {name: float("nan")}), encoding="utf-8")
    with pytest.raises(SaeFileError, match=name):
        read_run(tmp_path)
