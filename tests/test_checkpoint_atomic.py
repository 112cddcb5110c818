"""Saving is all or nothing: full disks, kills at every moment, several programs at once."""

from __future__ import annotations

import json
import os
import signal
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


HERE = Path(__file__).parents[1]
one_process = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

KILLS = """
import json, os, random, signal, sys, time
import torch
from tests.sae_folders import an_sae
from sae_widget.checkpoint import atomic, load_sae, load_stats, load_training_state, save_sae
folder, times = sys.argv[1], int(sys.argv[2])

def save(seed):
    sae = an_sae(seed, metadata={"seed": seed})
    big = {"moments": torch.full((200, 500), float(seed))}
    save_sae(sae, folder, {"frequency": torch.full((10,), float(seed))}, training=(big, {"seed": seed}))

save(0)
chance, last, dirty, news = random.Random(4), 0, 0, 0
for kill in range(times):
    child = os.fork()
    if child == 0:
        for seed in range(kill * 1000 + 1, kill * 1000 + 1000):
            save(seed)
        os._exit(1)
    time.sleep(chance.random() * 0.06)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), status
    dirty += any(name.startswith(".sae_widget.") and name != atomic.LOCK for name in os.listdir(folder))
    sae = load_sae(folder)
    seed = sae.metadata["seed"]
    assert torch.equal(sae.W_enc, an_sae(seed).W_enc), seed
    assert load_stats(folder)["frequency"].tolist() == [seed] * 10, seed
    tensors, info = load_training_state(folder)
    assert info == {"seed": seed} and bool((tensors["moments"] == seed).all()), seed
    assert seed == last or kill * 1000 < seed < kill * 1000 + 1000, (seed, last)
    news, last = news + (seed != last), seed
save(7)
left = [name for name in os.listdir(folder) if name.startswith(".sae_widget.") and name != atomic.LOCK]
print(json.dumps({"dirty": dirty, "news": news, "left": left}))
"""


def run_script(script: str, *arguments: str, timeout: float = 110) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(HERE), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", script, *arguments]
    return subprocess.run(
        command, cwd=HERE, env=environment, capture_output=True, text=True, timeout=timeout, check=False
    )


@one_process
@pytest.mark.parametrize("times", [50, pytest.param(1000, marks=[pytest.mark.soak, pytest.mark.timeout(3600)])])
def test_kill_minus_nine_loses_nothing(tmp_path: Path, times: int) -> None:
    """T12: after every kill there is one whole save with all its files, the old one or a new one."""
    done = run_script(KILLS, str(tmp_path / "sae"), str(times), timeout=110 * times / 50)
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout)
    assert told["left"] == []
    assert told["dirty"] > 0 and told["news"] > 0, told  # some kills came in the middle of a save, some after one


def mounted(folder: Path, options: str) -> bool:
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True, timeout=20, check=False
    )
    return done.returncode == 0


def hidden(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.name[0] == "."} - {atomic.LOCK}


@pytest.mark.skipif(sys.platform != "linux", reason="mounts a small disk")
@pytest.mark.parametrize("room", range(4, 44, 4))
def test_a_disk_that_is_full(tmp_path: Path, room: int) -> None:
    """T13: however much still fits, the old files are whole, a sentence is said and nothing is left over."""
    disk = tmp_path / "disk"
    if not mounted(disk, "size=64k"):
        pytest.skip("this user may not mount a small disk")
    try:
        save_sae(an_sae(1), disk / "sae", {"frequency": torch.ones(10)})
        (disk / "filler").write_bytes(bytes(room * 1024))
        before = {path.name: path.read_bytes() for path in (disk / "sae").iterdir()}
        large = {"moments": torch.ones(64, 100)}  # 26 kB
        try:
            save_sae(an_sae(2), disk / "sae", training=(large, {}))
        except SaeFileError as error:
            assert "no space left on device" in str(error) and "What was there before is intact" in str(error)
            assert {path.name: path.read_bytes() for path in (disk / "sae").iterdir()} == before
            assert torch.equal(load_sae(disk / "sae").W_enc, an_sae(1).W_enc)
            assert room > 4
        else:
            assert torch.equal(load_sae(disk / "sae").W_enc, an_sae(2).W_enc)
            assert room < 40
        assert hidden(disk / "sae") == set()
    finally:
        subprocess.run(["umount", str(disk)], check=True, timeout=20)


@pytest.mark.skipif(sys.platform != "linux", reason="mounts a disk that cannot be written")
def test_a_disk_that_cannot_be_written(tmp_path: Path) -> None:
    """T13: saving says so, loading works."""
    disk = tmp_path / "disk"
    if not mounted(disk, "size=1m"):
        pytest.skip("this user may not mount a disk")
    try:
        save_sae(an_sae(1), disk / "sae")
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True, timeout=20)
        for folder in (disk / "sae", disk / "new"):
            with pytest.raises(SaeFileError, match=r"could not be saved in .*: read-only file system"):
                save_sae(an_sae(2), folder)
        assert torch.equal(load_sae(disk / "sae").W_enc, an_sae(1).W_enc)
        assert hidden(disk / "sae") == set()
    finally:
        subprocess.run(["umount", str(disk)], check=True, timeout=20)


INTERRUPTED = """
import signal, sys
from tests.sae_folders import an_sae
from sae_widget.checkpoint import load_sae, save_sae
came = 0
def note(*_):
    global came
    came += 1
signal.signal(signal.SIGALRM, note)
signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
for seed in range(60):
    save_sae(an_sae(seed, metadata={"seed": seed}), sys.argv[1])
    assert load_sae(sys.argv[1]).metadata == {"seed": seed}
signal.setitimer(signal.ITIMER_REAL, 0)
print(came)
"""


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs interval timers")
def test_signals_interrupt_no_save(tmp_path: Path) -> None:
    """T13: calls of the system that a signal breaks off (EINTR) are made again."""
    done = run_script(INTERRUPTED, str(tmp_path))
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) > 20


@pytest.mark.parametrize(
    ("name", "said"),
    [("x" * 300, "file name too long"), ("a\0b", "The path has a NUL character"), ("file/below", "not a directory")],
)
def test_paths_that_cannot_be(tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / "file").write_text("in the way")
    for call in (lambda: save_sae(an_sae(), tmp_path / name), lambda: load_sae(tmp_path / name)):
        with pytest.raises(SaeFileError, match=said):
            call()
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
