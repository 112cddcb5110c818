"""Model files of the hub: found in its cache without a connection, or downloaded with deadlines."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import re
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sae_widget.activations.base import ModelLoadError
from sae_widget.activations.fetch import FULL
from sae_widget.activations.probe import KEPT, RETRY, ask_hub, cancelled, host_name, refusal
from sae_widget.activations.weights import INDEX, WEIGHTS, shard_names

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Layouts = tuple[tuple[str, ...], ...]

KNOWN_SIZES = {
    "gpt2": 548_000_000,
    "gpt2-medium": 1_520_000_000,
    "gpt2-large": 3_250_000_000,
    "gpt2-xl": 6_430_000_000,
    "distilgpt2": 353_000_000,
    "EleutherAI/pythia-70m": 166_000_000,
    "EleutherAI/pythia-160m": 375_000_000,
    "EleutherAI/pythia-410m": 911_000_000,
    "EleutherAI/pythia-1b": 2_090_000_000,
    "EleutherAI/pythia-1.4b": 2_930_000_000,
}
"""Bytes of the weights of some models, rounded: what "Load" will download."""

_ORGANISATIONS = {"distilgpt2": "distilbert"}
_TRUE = {"1", "ON", "YES", "TRUE"}
_REPO = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}(/[A-Za-z0-9._-]{1,96})?")


def is_repo(name: str) -> bool:
    """Whether a name has the form of a name on the hub."""
    return bool(_REPO.fullmatch(name)) and ".." not in name and "--" not in name


def check_repo(name: str) -> str:
    """A name on the hub, or ``ModelLoadError`` when it cannot be one."""
    if not is_repo(name):
        raise ModelLoadError(
            f"{name[:100]!r} is neither 'bundled', nor a directory, nor a name on the hub such as 'gpt2'. "
            "Nothing was loaded."
        )
    return name


def cache_folder() -> Path:
    """The hub's cache, from the same variables that ``huggingface_hub`` reads."""
    for variable, below in (("HF_HUB_CACHE", ""), ("HUGGINGFACE_HUB_CACHE", ""), ("HF_HOME", "hub")):
        if os.environ.get(variable):
            return Path(os.path.expandvars(os.environ[variable])).expanduser() / below
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.path.expandvars(base)).expanduser() / "huggingface" / "hub"


def cached_snapshot(repo: str) -> Path | None:
    """The directory of a complete cached copy, or ``None``. Opens no connection."""
    return next((snapshot for snapshot in _snapshots(repo) if is_complete(snapshot)), None)


def cached_folder(repo: str, folder: str, layouts: Layouts) -> Path | None:
    """A folder of a cached copy that has all files of one of the layouts, or ``None``. Opens no connection."""
    for snapshot in _snapshots(repo):
        if any(all((snapshot / folder / name).is_file() for name in names) for names in layouts):
            return snapshot / folder
    return None


def _snapshots(repo: str) -> Iterator[Path]:
    """The cached copies, the one that the hub last called its newest first."""
    for name in _names(repo):
        folder = cache_folder() / ("models--" + name.replace("/", "--"))
        try:
            reference = folder / "refs" / "main"
            found = [folder / "snapshots" / reference.read_text().strip()] if reference.is_file() else []
            found += sorted((folder / "snapshots").glob("*"), key=lambda p: p.stat().st_mtime, reverse=True)
        except OSError:
            continue
        yield from found


def is_complete(snapshot: Path) -> bool:
    """Whether config, tokenizer and safetensors weights are all there (their content is not looked at)."""
    has_tokenizer = (snapshot / "tokenizer.json").is_file() or (
        (snapshot / "vocab.json").is_file() and (snapshot / "merges.txt").is_file()
    )
    if not (snapshot / "config.json").is_file() or not has_tokenizer:
        return False
    if (snapshot / WEIGHTS).is_file():
        return True
    try:
        return (snapshot / INDEX).is_file() and all((snapshot / n).is_file() for n in shard_names(snapshot / INDEX, ""))
    except ModelLoadError:
        return False


def gpt2_is_cached() -> bool:
    """Whether GPT-2 (small) can be loaded without a connection."""
    return cached_snapshot("gpt2") is not None


def _names(repo: str) -> tuple[str, ...]:
    """The ids under which the hub may have stored a model: GPT-2's short names are moved ones."""
    if "/" in repo:
        owner, short = repo.split("/", 1)
        is_moved = short in KNOWN_SIZES and owner == _ORGANISATIONS.get(short, "openai-community")
        return (repo, short) if is_moved else (repo,)
    if repo in KNOWN_SIZES:
        return (repo, f"{_ORGANISATIONS.get(repo, 'openai-community')}/{repo}")
    return (repo,)


def download(
    repo: str,
    *,
    deadline: float = 60.0,
    progress: Callable[[int, int | None], None] | None = None,
    cancel: threading.Event,
) -> Path:
    """Download config, tokenizer and safetensors weights into the hub's cache; the directory they are in.

    Args:
        repo: a name on the hub.
        deadline: seconds without a byte after which the download is given up; what has come stays in the
            cache, and the next download goes on from it.
        progress: called about five times a second with the bytes that have come and their total.
        cancel: ends the download at once when set.

    Raises:
        LoadCancelled: ``cancel`` was set.
        ModelLoadError: with a sentence for every other reason.
    """
    snapshot = _fetched((repo,), deadline, progress, cancel)
    if not is_complete(snapshot):
        raise ModelLoadError(f"{repo} has no tokenizer that can be read beside its weights. {KEPT}")
    return snapshot


def download_folder(
    repo: str,
    folder: str,
    layouts: Layouts,
    *,
    deadline: float = 60.0,
    progress: Callable[[int, int | None], None] | None = None,
    cancel: threading.Event,
) -> Path:
    """Download the files of one folder of a repository; the directory they are in.

    Args:
        repo: a name on the hub.
        folder: its folder, "" for the repository's own.
        layouts: names of files; the first group that the folder has whole is downloaded, and nothing else.
        deadline: as ``download`` takes it; ``progress`` and ``cancel`` too.
        progress: see ``deadline``.
        cancel: see ``deadline``.

    Raises:
        LoadCancelled: ``cancel`` was set.
        ModelLoadError: with a sentence for every other reason.
    """
    return _fetched((repo, folder, json.dumps(layouts)), deadline, progress, cancel)


def _fetched(
    asked: tuple[str, ...],
    deadline: float,
    progress: Callable[[int, int | None], None] | None,
    cancel: threading.Event,
) -> Path:
    repo = asked[0]
    if any(os.environ.get(name, "").upper() in _TRUE for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")):
        raise ModelLoadError(f"{repo} is not on this machine, and HF_HUB_OFFLINE forbids downloads. {KEPT}")
    ask_hub(repo, cancel)
    with _Child(asked) as child:
        return _follow(child, repo, deadline, progress, cancel)


class _Child:
    """The downloading process and the lines that it has written; killed on leaving."""

    def __init__(self, asked: tuple[str, ...]) -> None:
        code = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
        code += "from sae_widget.activations.fetch import main; main(*sys.argv[2:])"
        quiet = {
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_DISABLE_XET": "1",  # its files grow in a place of their own, where progress is not seen
            "HF_HUB_VERBOSITY": "error",
        }
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, json.dumps([path or str(Path.cwd()) for path in sys.path]), *asked],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | quiet,
            start_new_session=True,  # an interrupted kernel must not write its traceback into the notebook
        )
        self.lines: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self.reader = threading.Thread(target=self._read, name="sae_widget-download", daemon=True)
        self.reader.start()

    def _read(self) -> None:
        for line in self.process.stdout or ():
            with contextlib.suppress(ValueError):
                self.lines.put(json.loads(line))
        self.lines.put(None)

    def __enter__(self) -> _Child:
        return self

    def __exit__(self, *exception: object) -> None:
        self.process.kill()
        self.process.wait()
        self.reader.join()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


def _follow(
    child: _Child,
    repo: str,
    deadline: float,
    progress: Callable[[int, int | None], None] | None,
    cancel: threading.Event,
) -> Path:
    """Wait for the child's result, looking at Cancel, at the bytes that come, and at the clock."""
    blobs = cache_folder() / f"models--{repo.replace('/', '--')}" / "blobs"
    total: int | None = None
    seen, heard, shown = _bytes_in(blobs), time.monotonic(), 0.0
    while True:
        if cancel.is_set():
            raise cancelled(repo)
        try:
            line = child.lines.get(timeout=0.1)
        except queue.Empty:
            line = {}
        if line is None:
            raise ModelLoadError(f"The download of {repo} ended without a result. {KEPT} Try again.")
        if "fault" in line:
            raise ModelLoadError(_fault(repo, line))
        if "snapshot" in line:
            return Path(line["snapshot"])
        total = line.get("total", total)
        done, now = _bytes_in(blobs), time.monotonic()
        if line or done != seen:
            seen, heard = done, now
        if now - heard > deadline:
            raise ModelLoadError(
                f"{host_name()} sent nothing for {deadline:g} seconds, so the download of {repo} was given "
                f"up. What has come is kept in the cache. {RETRY}"
            )
        if progress is not None and now - shown > 0.2:
            shown = now
            progress(done if total is None else min(done, total), total)


def _bytes_in(folder: Path) -> int:
    """Bytes of the files in a folder of the cache, finished or growing."""
    total = 0
    with contextlib.suppress(OSError):
        for entry in os.scandir(folder):
            with contextlib.suppress(OSError):
                total += entry.stat().st_size
    return total


def _fault(repo: str, line: dict[str, Any]) -> str:
    """A sentence for what the child reports."""
    if line["fault"] == "refused":
        return str(line["sentence"])
    if line["fault"] == "http":
        return refusal(repo, int(line["status"]), str(line["code"]))
    if line["fault"] == "disk":
        where = cache_folder()
        if line["errno"] in FULL:
            return f"The disk is full: {repo} does not fit into {where}. {KEPT} Free some space and try again."
        reason = line["words"].lower()
        return f"{repo} cannot be written to {where} ({reason}). {KEPT} Set HF_HOME to another folder."
    return f"The connection to {host_name()} broke while {repo} came ({line['words']}). {KEPT} {RETRY}"
