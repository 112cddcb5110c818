"""``records.bin``: the records of a training as they come, readable while it goes on, of bounded size.

One line of JSON names the columns; behind it every record is a row of little-endian float64. The file is what
``History`` keeps: when that thins its old records, the file is written anew under its name.
"""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING

import numpy as np

from sae_widget.checkpoint.base import unreadable
from sae_widget.training.history import CAPACITY, NAMES

if TYPE_CHECKING:
    from pathlib import Path

    from sae_widget.training.history import History

RECORDS = "records.bin"
FLUSH = 0.3
"""Seconds between two writes."""
ROW = np.dtype(("<f8", len(NAMES)))
MAX_HEADER = 4_096
MOST = 2**53  # of a whole number in a float64
STEP = NAMES.index("step")
WHOLE = [NAMES.index(name) for name in ("step", "dead", "tokens")]


class RecordWriter:
    """Keeps the file of a folder what a history is, a few times a second.

    Args:
        path: the file; what was there before is replaced.
        history: whose records are written; the caller appends to it.

    Raises:
        OSError: here and in ``flush``, as it comes.
    """

    def __init__(self, path: Path, history: History) -> None:
        self.path, self.history = path, history
        self._rewrite()

    def note(self) -> None:
        """Say that a record was appended: it is written soon."""
        if time.monotonic() >= self._due:
            self.flush()

    def flush(self) -> None:
        """Write what is not yet written."""
        if self.history.thinned != self._thinned or not self.path.exists():  # or somebody has cleared it away
            self._rewrite()
            return
        rows = self.history.rows[self._written :]
        with self.path.open("r+b") as file:
            file.seek(self._begins + self._written * ROW.itemsize)
            file.truncate()  # what a full disk has left of an earlier try
            file.write(rows.astype("<f8").tobytes())
        self._written += len(rows)
        self._due = time.monotonic() + FLUSH

    def _rewrite(self) -> None:
        rows, temporary = self.history.rows, self.path.with_name(f"{self.path.name}.tmp")
        header = {"columns": NAMES, "written": f"{time.time_ns()}-{os.getpid()}"}  # a reader sees that it is another
        line = json.dumps(header).encode() + b"\n"
        try:
            with temporary.open("wb") as file:
                file.write(line + rows.astype("<f8").tobytes())
            temporary.replace(self.path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
        self._begins = len(line)
        self._written, self._thinned = len(rows), self.history.thinned
        self._due = time.monotonic() + FLUSH


class RecordReader:
    """Reads on in the file while another process writes it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._header, self._read = b"", 0

    def read(self) -> tuple[np.ndarray, bool]:
        """New records, and whether they take the place of all that were read before.

        Returns:
            ``[n, n_fields] float64``, at most ``History``'s capacity at a time, none when there is no file.

        Raises:
            SaeFileError: it is not such a file.
            OSError: as it comes.
        """
        try:
            file = self.path.open("rb")
        except FileNotFoundError:
            return np.empty((0, len(NAMES))), False
        with file:
            header = file.readline(MAX_HEADER)
            fresh = header != self._header
            if fresh:
                self._check(header)
            read = 0 if fresh else self._read
            file.seek(len(header) + read * ROW.itemsize)
            content = file.read(CAPACITY * ROW.itemsize)
        rows = np.frombuffer(content[: len(content) // ROW.itemsize * ROW.itemsize], "<f8").reshape(-1, len(NAMES))
        whole = rows[:, WHOLE]
        if not ((whole >= 0) & (whole <= MOST) & (whole == np.trunc(whole))).all() or (rows[:, STEP] < 1).any():
            raise unreadable(RECORDS, "it is damaged")
        self._header, self._read = header, read + len(rows)  # only what is sound counts as read
        return rows.astype(np.float64), fresh

    def _check(self, header: bytes) -> None:
        try:
            columns = json.loads(header)["columns"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise unreadable(RECORDS, "its first line is damaged") from error
        if columns != list(NAMES):
            raise unreadable(RECORDS, "its columns are those of another version")
