"""Saving is all or nothing: full disks, kills at every moment, several programs at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from sae_widget.checkpoint import SaeFileError, atomic, load_sae, load_stats, save_sae
from tests.sae_folders import CFG, an_sae, foreign, some_x


def test_failed_save_keeps_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_sae(an_sae(1), tmp_path)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}

    def full(path: Path, content: Any) -> None:
        path.write_bytes(b"half a fil")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(atomic, "_write", full)
    with pytest.raises(SaeFileError, match=r"no space left on device. What was there before is intact; make room"):
        save_sae(an_sae(2), tmp_path)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before
    with pytest.raises(SaeFileError, match=r"The SAE could not be saved in .*"):
        save_sae(an_sae(2), tmp_path / CFG)


def test_metadata_that_is_no_json(tmp_path: Path) -> None:
    with pytest.raises(SaeFileError, match=r"metadata cannot be saved .* Nothing was written"):
        save_sae(an_sae(metadata={"model": object()}), tmp_path)
    assert not list(tmp_path.iterdir())


class Killed(BaseException):
    """Nothing after it runs, as after ``kill -9``."""


@pytest.mark.parametrize("at", range(12))
def test_a_writer_that_dies_leaves_the_old_or_the_new(tmp_path: Path, at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = an_sae(1, scale=0.5), an_sae(2, scale=4.0)
    save_sae(old, tmp_path, {"frequency": torch.ones(10)})
    left = iter(range(at + 1))

    def dying(call: Any) -> Any:
        def until_then(*arguments: Any, **options: Any) -> Any:
            if next(left, None) == at:
                raise Killed
            return call(*arguments, **options)

        return until_then

    with monkeypatch.context() as patched:
        patched.setattr(atomic, "_sweep", lambda folder: None)  # it does not run after a kill either
        for name in ("_write", "_sync_folder"):
            patched.setattr(atomic, name, dying(getattr(atomic, name)))
        patched.setattr(Path, "replace", dying(Path.replace))
        patched.setattr(Path, "unlink", dying(Path.unlink))
        try:
            save_sae(new, tmp_path)
        except Killed:
            died = True
        else:
            died = False
    found = load_sae(tmp_path)
    wanted = new if found.scale == 4.0 else old
    assert torch.allclose(found(some_x()), wanted(some_x()), atol=1e-5)
    assert (load_stats(tmp_path) is None) == (wanted is new)
    assert died or wanted is new
    save_sae(new, tmp_path)
    hidden = {p.name for p in tmp_path.iterdir() if p.name[0] == "."}
    assert hidden <= {atomic.LOCK}


def test_a_journal_of_strangers_moves_nothing(tmp_path: Path) -> None:
    folder = foreign(tmp_path / "sae")
    (tmp_path / "victim").write_text("mine")
    token = "0" * 16
    (folder / f".sae_widget.{token}.x.tmp").write_text("theirs")
    plan = {"token": token, "files": ["../victim"], "gone": ["../victim"]}
    (folder / atomic.JOURNAL).write_text(json.dumps(plan))
    load_sae(folder)
    assert (tmp_path / "victim").read_text() == "mine"
    assert not (folder / atomic.JOURNAL).exists()


WRITER = """
import sys
from tests.sae_folders import an_sae
from sae_widget.checkpoint import save_sae
for i in range(int(sys.argv[3])):
    seed = int(sys.argv[2]) * 1000 + i
    save_sae(an_sae(seed, metadata={"seed": seed}), sys.argv[1])
"""


@pytest.mark.parametrize("times", [12, pytest.param(200, marks=[pytest.mark.soak, pytest.mark.timeout(1200)])])
def test_two_writers_and_a_reader(tmp_path: Path, times: int) -> None:
    save_sae(an_sae(7, metadata={"seed": 7}), tmp_path)
    here = Path(__file__).parents[1]
    environment = os.environ | {"PYTHONPATH": str(here)}
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), name, str(times)], cwd=here, env=environment)
        for name in ("1", "2")
    ]
    reads = 0
    while any(writer.poll() is None for writer in writers):
        sae = load_sae(tmp_path)
        assert torch.equal(sae.W_enc, an_sae(sae.metadata["seed"]).W_enc)
        reads += 1
    assert [writer.wait() for writer in writers] == [0, 0]
    assert reads > 0 and load_sae(tmp_path).metadata["seed"] in (1000 + times - 1, 2000 + times - 1)


def test_a_folder_that_stays_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from filelock import FileLock

    save_sae(an_sae(), tmp_path)
    monkeypatch.setattr(atomic, "LOCK_SECONDS", 0.1)
    with (
        FileLock(tmp_path / atomic.LOCK),
        pytest.raises(SaeFileError, match=r"Another program has been writing .* Nothing was changed; try again"),
    ):
        save_sae(an_sae(2), tmp_path)
