"""Several files of one folder replaced together: all of them or, whatever happens, none.

Each new file is written under a temporary name in the folder and brought to the disk; then a small file,
itself renamed into place, names the renames still to do. A writer that dies before it has changed nothing;
one that dies after it is finished by the next reader or writer.
"""

from __future__ import annotations

import json
import os
import re
import secrets
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from sae_widget.checkpoint.base import CONFIG, STATS, TRAINING, TRAINING_INFO, WEIGHTS, SaeFileError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    Content = bytes | Iterable[bytes | memoryview]

LOCK, JOURNAL = ".sae_widget.lock", ".sae_widget.commit"
LOCK_SECONDS = 10.0
_TEMPORARY = re.compile(r"\.sae_widget\.[0-9a-f]{16}\.[\w.]+\.tmp")
READ_TRIES = 200
NAMES = {
    CONFIG,
    WEIGHTS,
    STATS,
    TRAINING,
    TRAINING_INFO,
}  # a journal that names others is not ours: a stranger's folder moves nothing
T = TypeVar("T")


def replace_files(folder: Path, contents: dict[str, Content], gone: tuple[str, ...] = ()) -> None:
    """Write these files and remove those in ``gone``, all at once.

    Temporary files that an earlier writer left behind are removed first.

    Args:
        folder: made when it does not exist.
        contents: file name -> bytes, or the pieces that they consist of.
        gone: names of files that belong to the old state only.

    Raises:
        OSError: as it comes; the files are as they were before.
        SaeFileError: another process holds the folder for more than ten seconds.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder):
        _finish(folder)
        _sweep(folder)
        token = secrets.token_hex(8)
        try:
            for name, content in contents.items():
                _write(folder / _temporary(token, name), content)
            plan = {"token": token, "files": sorted(contents), "gone": sorted(gone)}
            _write(folder / _temporary(token, "plan"), json.dumps(plan).encode())
            (folder / _temporary(token, "plan")).replace(folder / JOURNAL)
        except BaseException:
            _sweep(folder)
            raise
        _sync_folder(folder)
        _finish(folder)


def read_together(folder: Path, read: Callable[[], T]) -> T:
    """What ``read`` makes of the folder's files, all of one save; it is called again when a save came between.

    Raises:
        OSError: as it comes from the files.
        SaeFileError: they never came to rest.
    """
    for _ in range(READ_TRIES):
        before = _mark(folder)  # before the journal is looked for: a save between the two shows at the end
        if (folder / JOURNAL).exists():  # a writer is at work, or died: what it began is finished first
            with _locked(folder):
                _finish(folder)
            continue
        failure: Exception | None = None
        try:
            result = read()
        except (OSError, SaeFileError) as error:
            failure = error
        if not (folder / JOURNAL).exists() and _mark(folder) == before:
            if failure is not None:
                raise failure
            return result
    raise SaeFileError(f"{folder} is being written without a pause. Nothing was loaded; try again later.")


def _mark(folder: Path) -> tuple[tuple[int, int], ...]:
    """Other after every save: each replaces one of these files."""
    found = []
    for name in (CONFIG, TRAINING_INFO):
        try:
            state = (folder / name).stat()
        except FileNotFoundError:
            found.append((0, 0))
        else:
            found.append((state.st_ino, state.st_mtime_ns))
    return tuple(found)


def _temporary(token: str, name: str) -> str:
    return f".sae_widget.{token}.{name}.tmp"


def _write(path: Path, content: Content) -> None:
    with path.open("wb") as file:
        file.writelines([content] if isinstance(content, bytes) else content)
        file.flush()
        os.fsync(file.fileno())


def _finish(folder: Path) -> None:
    journal = folder / JOURNAL
    if not journal.exists():
        return
    try:
        plan = json.loads(journal.read_bytes())
        if not re.fullmatch("[0-9a-f]{16}", plan["token"]) or not {*plan["files"], *plan["gone"]} <= NAMES:
            raise ValueError("names other files")
        renames = [(folder / _temporary(plan["token"], name), folder / name) for name in plan["files"]]
        gone = [folder / name for name in plan["gone"]]
    except (ValueError, TypeError, KeyError, RecursionError):
        journal.unlink()  # not ours: a journal is whole before it gets its name
        return
    for old, new in renames:
        if old.exists():  # otherwise it was renamed before the writer died
            old.replace(new)
    for path in gone:
        path.unlink(missing_ok=True)
    _sync_folder(folder)
    journal.unlink()


def _sweep(folder: Path) -> None:
    for path in folder.iterdir():
        if _TEMPORARY.fullmatch(path.name):
            path.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # Windows cannot open a folder; its renames are journalled by the file system
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    from filelock import FileLock, Timeout

    lock = FileLock(folder / LOCK, timeout=LOCK_SECONDS)
    try:
        lock.acquire()
    except Timeout:
        raise SaeFileError(
            f"Another program has been writing to {folder} for {LOCK_SECONDS:.0f} seconds. "
            "Nothing was changed; try again when it is done."
        ) from None
    try:
        yield
    finally:
        lock.release()
