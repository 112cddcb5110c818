"""The folder of a run: ``sae_widget.runs.info``, ``.records``, ``.writer`` and ``.watch``."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sae_widget.checkpoint import SaeFileError, load_sae, load_training_state
from sae_widget.config import TrainConfig
from sae_widget.runs import RECORDS, RUN, RecordReader, RecordWriter, RunInfo, RunWriter, Watch, read_run
from sae_widget.runs import watch as watch_module
from sae_widget.runs import writer as writer_module
from sae_widget.runs.writer import take_over
from sae_widget.training import History, TrainStep
from sae_widget.training.history import NAMES
from tests.hand_made import features
from tests.running import until

PLACE: dict[str, Any] = {"model": "gpt2", "layer": 3, "hook_name": "mlp_out", "tokens": 77, "total": 1000}
RECORD = TrainStep(1, 5.5, 5.0, 0.5, 3.25, 0.75, float("nan"), 2, 1e-3, 1000.0, 64)


class Clock:
    """A clock that a test sets."""

    def __init__(self, now: list[float]) -> None:
        self.monotonic, self.time = lambda: now[0], time.time


def records(*steps: int) -> list[TrainStep]:
    return [replace(RECORD, step=step, loss=100.0 - step % 7) for step in steps]


def history(*steps: int, capacity: int = 64) -> History:
    made = History(capacity)
    for record in records(*steps):
        made.append(record)
    return made


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if not path.name.startswith(".")}


class TestInfo:
    def test_what_was_written_comes_back(self, tmp_path: Path) -> None:
        settings = {"architecture": "standard", "learning_rate": 0.25, "d_sae": 40}
        info = RunInfo(**PLACE, texts=["Äpfel", "b"], settings=settings, state="failed", sentence="It rained.", step=7)
        (tmp_path / RUN).write_text(info.model_dump_json())
        assert read_run(tmp_path) == info
        assert info.config == TrainConfig(**settings)

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"state": "asleep"}, "state: "),
            ({"step": -1}, "step: "),
            ({"total": 0}, "total: "),
            ({"heartbeat": "now"}, "heartbeat: "),
            ({"hook_name": "blocks.3"}, "hook_name: "),
            ({"texts": "one"}, "texts: "),
            ({"settings": {"d_sea": 3}}, "settings: unknown setting 'd_sea'"),
            ({"format_version": 2}, "a newer sae_widget wrote it; please update"),
            ({"device": "cuda"}, "device: extra inputs are not permitted"),
        ],
    )
    def test_a_field_that_is_wrong_is_named(self, tmp_path: Path, change: dict[str, Any], words: str) -> None:
        (tmp_path / RUN).write_text(json.dumps(PLACE | change))
        with pytest.raises(SaeFileError, match=re.escape(f"run.json: {words}")):
            read_run(tmp_path)

    def test_what_is_missing_is_said(self, tmp_path: Path) -> None:
        with pytest.raises(SaeFileError, match="no training has written there yet"):
            read_run(tmp_path)

    def test_the_first_difference_is_named(self) -> None:
        info = RunInfo(**PLACE)
        assert info.differs({"model": None, "layer": 3, "texts": None}) == ""
        assert info.differs({"model": "gpt2", "layer": 4, "tokens": 5}) == "layer"
        assert info.differs({"texts": ["a"]}) == "texts"


class TestRecords:
    def test_a_reader_gets_what_is_new(self, tmp_path: Path) -> None:
        path, kept = tmp_path / RECORDS, history(1, 2, 3)
        writer, reader = RecordWriter(path, kept), RecordReader(path)
        rows, fresh = reader.read()
        assert fresh and rows[:, 0].tolist() == [1, 2, 3]
        again = History(64)
        again.extend(rows)
        assert [replace(r, explained_variance_with_first=0) for r in again] == [
            replace(r, explained_variance_with_first=0) for r in records(1, 2, 3)
        ]
        assert np.isnan(again.last.explained_variance_with_first)
        for record in records(4, 5):
            kept.append(record)
            writer.note()
        assert reader.read()[0].shape == (0, len(NAMES))  # they wait for the next flush
        writer.flush()
        rows, fresh = reader.read()
        assert not fresh and rows[:, 0].tolist() == [4, 5]
        assert names(tmp_path) == {RECORDS}

    def test_the_file_is_as_bounded_as_the_history(self, tmp_path: Path) -> None:
        path, kept = tmp_path / RECORDS, history()
        writer, reader, seen = RecordWriter(path, kept), RecordReader(path), np.empty((0, len(NAMES)))
        for record in records(*range(1, 1001)):
            kept.append(record)
            if record.step % 10 == 0:
                writer.flush()
                rows, fresh = reader.read()
                seen = rows if fresh else np.concatenate([seen, rows])
                assert np.array_equal(seen, kept.rows, equal_nan=True)
                assert path.stat().st_size < 64 * 8 * len(NAMES) + 1_000
        assert len(kept) == 1000 and kept.thinned > 10
        assert seen[0, 0] == 1 and seen[-1, 0] == 1000

    def test_half_a_record_waits_for_its_other_half(self, tmp_path: Path) -> None:
        path = tmp_path / RECORDS
        RecordWriter(path, history(1, 2))
        whole = path.read_bytes()
        path.write_bytes(whole[:-50])
        reader = RecordReader(path)
        assert reader.read()[0][:, 0].tolist() == [1]
        path.write_bytes(whole)
        rows, fresh = reader.read()
        assert not fresh and rows[:, 0].tolist() == [2]

    def test_a_run_that_begins_again_is_noticed(self, tmp_path: Path) -> None:
        path = tmp_path / RECORDS
        reader = RecordReader(path)
        assert reader.read()[1] is False  # nobody has written yet
        RecordWriter(path, history(1, 2, 3))
        reader.read()
        RecordWriter(path, history(1, 2, 8))
        rows, fresh = reader.read()
        assert fresh and rows[:, 0].tolist() == [1, 2, 8]

    @pytest.mark.parametrize(
        "content",
        [b"x", b"{}\n", b"[" * 5000, b'{"columns": 3}\n', b'{"columns": ["step"]}\n', b"\xff\xfe\n" * 30],
    )
    def test_another_file_is_refused(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / RECORDS).write_bytes(content)
        with pytest.raises(SaeFileError, match=r"^records.bin: .*Nothing was loaded"):
            RecordReader(tmp_path / RECORDS).read()

    def test_numbers_that_are_no_steps_are_refused(self, tmp_path: Path) -> None:
        kept = history(1, 2)
        kept._rows[1, 0] = np.nan
        RecordWriter(tmp_path / RECORDS, kept)
        with pytest.raises(SaeFileError, match=r"^records\.bin: it is damaged"):
            RecordReader(tmp_path / RECORDS).read()


class TestWriter:
    def test_a_run_from_its_beginning_to_its_end(self, tmp_path: Path) -> None:
        kept, sae = history(1), features().sae
        writer = RunWriter(tmp_path, RunInfo(**PLACE), kept)
        looker = Watch(tmp_path)
        news = looker.look()
        assert (news.info.state, news.info.sae_step, news.dead, news.info.pid) == ("running", 0, False, os.getpid())
        for record in records(2, 3):
            kept.append(record)
            writer.note(record)
        writer.save_sae(sae, 3)
        assert torch.allclose(load_sae(tmp_path).W_dec, sae.W_dec)
        assert (looker.look().info.step, read_run(tmp_path).sae_step) == (3, 3)
        assert writer.save_state({"params": torch.arange(6.0)}, {"step": 3})
        writer.end("stopped", "It was stopped.", 3)
        writer.end("failed", "This comes too late.")
        news = looker.look()
        assert (news.info.state, news.info.sentence, news.dead) == ("stopped", "It was stopped.", False)
        assert news.rows[:, 0].tolist() == [2, 3]
        state, info = load_training_state(tmp_path / writer_module.CHECKPOINT)
        assert state["params"].tolist() == [0, 1, 2, 3, 4, 5] and info == {"step": 3}

    def test_a_finished_run_needs_no_checkpoint(self, tmp_path: Path) -> None:
        writer = RunWriter(tmp_path, RunInfo(**PLACE), history(1))
        writer.save_state({"params": torch.arange(6.0)}, {})
        writer.end("finished", "Done.", 1)
        assert names(tmp_path) == {RUN, RECORDS}

    def test_it_gives_signs_of_life_while_a_step_takes_long(self, tmp_path: Path, monkeypatch) -> None:
        monkeypatch.setattr(writer_module, "BEAT", 0.01)
        writer = RunWriter(tmp_path, RunInfo(**PLACE), history(1))
        first = read_run(tmp_path).heartbeat
        until(lambda: read_run(tmp_path).heartbeat > first)
        writer.end("stopped", "")

    def test_one_process_at_a_time_trains_in_a_folder(self, tmp_path: Path) -> None:
        writer = RunWriter(tmp_path, RunInfo(**PLACE), history(1))
        before = (tmp_path / RUN).read_bytes()
        with pytest.raises(SaeFileError, match=r"Another process trains in .*Nothing was changed"):
            RunWriter(tmp_path, RunInfo(**PLACE), history(9))
        assert (tmp_path / RUN).read_bytes() == before
        writer.end("stopped", "")
        RunWriter(tmp_path, RunInfo(**PLACE), history(9)).end("stopped", "")

    def test_a_full_disk_is_a_sentence_and_not_the_end(self, tmp_path: Path, monkeypatch) -> None:
        kept = history(1)
        writer = RunWriter(tmp_path, RunInfo(**PLACE), kept)

        def full(*_args: object, **_keys: object) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(writer_module, "save_training_state", full)
            assert not writer.save_state({}, {})
            assert "No space left on device" in writer.trouble
            patch.setattr(writer_module, "save_sae", full)
            writer.save_sae(features().sae, 1)
            assert read_run(tmp_path).sae_step == 0
        writer.end("stopped", "")

    def test_a_folder_that_cannot_be_written_is_a_sentence(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(SaeFileError, match="could not be written: not a directory"):
            RunWriter(tmp_path / "file" / "run", RunInfo(**PLACE), history())

    def test_saves_take_a_small_share_of_the_time(self, tmp_path: Path, monkeypatch) -> None:
        now = [0.0]
        monkeypatch.setattr(writer_module, "time", Clock(now))

        def slow(*_args: object, **_keys: object) -> None:
            now[0] += 10

        monkeypatch.setattr(writer_module, "save_sae", slow)
        monkeypatch.setattr(writer_module, "save_training_state", slow)
        writer = RunWriter(tmp_path, RunInfo(**PLACE), history(1))
        assert not writer.sae_is_due and not writer.state_is_due
        now[0] += 60
        assert writer.sae_is_due and writer.state_is_due
        writer.save_sae(features().sae, 1)
        writer.save_state({}, {})
        now[0] += 199
        assert not writer.sae_is_due and not writer.state_is_due
        now[0] += 2
        assert not writer.sae_is_due and writer.state_is_due
        now[0] += 200
        assert writer.sae_is_due
        writer.end("stopped", "")


class TestTakingOver:
    def test_the_folder_of_a_living_writer_is_left_to_it(self, tmp_path: Path) -> None:
        writer = RunWriter(tmp_path, RunInfo(**PLACE), history(1))
        assert take_over(tmp_path, history(1, 2), 2, patience=0.05) is None
        writer.end("failed", "One died.")

    def test_what_another_has_saved_is_not_saved_again(self, tmp_path: Path) -> None:
        RunWriter(tmp_path, RunInfo(**PLACE, step=7), history(7)).end("failed", "One died.")
        assert take_over(tmp_path, history(6), 6, patience=0.05) is None
        assert take_over(tmp_path, history(7), 7, patience=0.05) is None
        assert read_run(tmp_path).sentence == "One died."
        later = take_over(tmp_path, history(7, 8), 8, patience=0.05)
        assert later is not None
        later.end("failed", "Two died.")
        assert (read_run(tmp_path).step, RecordReader(tmp_path / RECORDS).read()[0][:, 0].tolist()) == (8, [7, 8])

    def test_a_folder_without_a_run_is_left_alone(self, tmp_path: Path) -> None:
        assert take_over(tmp_path, history(1), 1, patience=0.05) is None
        assert names(tmp_path) == set()


class TestWatch:
    def dead_run(self, folder: Path, **changes: Any) -> None:
        (folder / RUN).write_text(RunInfo(**PLACE, heartbeat=1.0, **changes).model_dump_json())

    def test_a_process_that_is_gone_is_noticed_when_it_is_silent(self, tmp_path: Path, monkeypatch) -> None:
        now = [0.0]
        monkeypatch.setattr(watch_module, "time", Clock(now))
        ended = subprocess.Popen([sys.executable, "-c", ""])
        self.dead_run(tmp_path, pid=ended.pid, host=watch_module.platform.node())
        looker = Watch(tmp_path)
        assert not looker.look().dead
        now[0] = watch_module.GONE + 0.1
        until(lambda: looker.look().dead)  # not waited for yet: it is still in the table of processes
        ended.wait()
        assert looker.look().dead
        self.dead_run(tmp_path, pid=ended.pid, host=watch_module.platform.node(), state="stopped")
        assert not looker.look().dead

    @pytest.mark.parametrize("whose", [{"host": "elsewhere", "pid": 1}, {"pid": os.getpid()}])
    def test_another_machine_has_longer(self, tmp_path: Path, monkeypatch, whose: dict[str, Any]) -> None:
        now = [0.0]
        monkeypatch.setattr(watch_module, "time", Clock(now))
        self.dead_run(tmp_path, **{"host": watch_module.platform.node()} | whose)
        looker = Watch(tmp_path)
        looker.look()
        now[0] = watch_module.SILENT - 0.1
        assert not looker.look().dead
        now[0] = watch_module.SILENT + 0.1
        assert looker.look().dead
        self.dead_run(tmp_path, step=1, **{"host": watch_module.platform.node()} | whose, started=5.0)
        assert looker.look().dead  # the heart has to beat, not only the file to change
