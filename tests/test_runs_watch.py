"""sae_widget.runs.watch: nothing and half of a run, one that begins again, and processes that cannot be."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path
from typing import Any

import pytest

from sae_widget.checkpoint import SaeFileError
from sae_widget.runs import RECORDS, RUN, RecordWriter, RunInfo, RunWriter, Watch, watch
from tests.hand_made import history

PLACE: dict[str, Any] = {"model": "gpt2", "layer": 3, "hook_name": "mlp_out", "tokens": 77, "total": 1000}


class Clock:
    """Stands still until a test moves it."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(watch, "time", made)
    return made


def tell(folder: Path, **changes: Any) -> None:
    info = RunInfo(**PLACE | {"heartbeat": 1.0, "host": platform.node(), "pid": 10**30} | changes)
    (folder / RUN).write_text(info.model_dump_json())


def test_a_run_that_has_not_begun_is_seen_when_it_begins(tmp_path: Path) -> None:
    looker = Watch(tmp_path / "run")
    with pytest.raises(SaeFileError, match="no training has written there yet"):
        looker.look()
    writer = RunWriter(tmp_path / "run", RunInfo(**PLACE), history(1))
    news = looker.look()
    assert (news.info.state, news.rows[:, 0].tolist(), news.fresh, news.dead) == ("running", [1], True, False)
    writer.end("stopped", "It was stopped.")


def test_a_run_without_records_is_looked_at(tmp_path: Path) -> None:
    tell(tmp_path)
    news = Watch(tmp_path).look()
    assert (len(news.rows), news.fresh, news.info.total) == (0, False, 1000)


def test_a_look_that_fails_is_a_sentence_and_the_next_one_goes_on(tmp_path: Path) -> None:
    tell(tmp_path)
    RecordWriter(tmp_path / RECORDS, history(2))
    looker, sound = Watch(tmp_path), (tmp_path / RUN).read_bytes()
    (tmp_path / RUN).write_bytes(sound[:-5])
    with pytest.raises(SaeFileError, match=r"^run\.json: .*Nothing was loaded"):
        looker.look()
    (tmp_path / RUN).write_bytes(sound)
    assert looker.look().rows[:, 0].tolist() == [1, 2]
    (tmp_path / RECORDS).unlink()
    (tmp_path / RECORDS).mkdir()
    with pytest.raises(SaeFileError, match=r"cannot be read: \w"):
        looker.look()
    (tmp_path / RECORDS).rmdir()
    RecordWriter(tmp_path / RECORDS, history(3))
    news = looker.look()
    assert news.fresh and news.rows[:, 0].tolist() == [1, 2, 3]


@pytest.mark.parametrize("pid", [2**31 - 1, 2**31, 2**64, 10**30])
def test_a_process_that_no_machine_can_have_is_gone(tmp_path: Path, clock: Clock, pid: int) -> None:
    tell(tmp_path, pid=pid)
    looker = Watch(tmp_path)
    clock.now = 1000.0  # before the first look nothing is known
    assert not looker.look().dead
    clock.now += watch.GONE
    assert not looker.look().dead
    clock.now += 0.1
    assert looker.look().dead


def test_what_is_known_to_be_dead_can_live_again(tmp_path: Path, clock: Clock) -> None:
    tell(tmp_path)
    looker = Watch(tmp_path)
    looker.look()
    clock.now = watch.SILENT + 1
    assert looker.look().dead and looker.look().dead
    tell(tmp_path, pid=os.getpid())  # another process took over, at the very same time
    assert not looker.look().dead
    clock.now += watch.SILENT + 1
    assert looker.look().dead
    tell(tmp_path, pid=os.getpid(), heartbeat=0.5)  # a clock that was put back
    assert not looker.look().dead


@pytest.mark.parametrize("state", ["finished", "stopped", "failed"])
def test_a_run_that_has_ended_is_never_dead(tmp_path: Path, clock: Clock, state: str) -> None:
    tell(tmp_path, state=state)
    looker = Watch(tmp_path)
    looker.look()
    clock.now = 1e12
    assert not looker.look().dead


def test_two_who_look_do_not_take_from_each_other(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"a\xff")
    writer = RunWriter(folder, RunInfo(**PLACE), history(2))
    one, other = Watch(folder), Watch(folder)
    assert one.look().rows[:, 0].tolist() == other.look().rows[:, 0].tolist() == [1, 2]
    assert len(one.look().rows) == 0
    before = time.time()
    writer.end("finished", "Done.")
    assert [who.look().info.state for who in (one, other)] == ["finished", "finished"]
    assert one.look().info.heartbeat >= before
