"""A run as another process sees it: its folder, looked at now and then."""

from __future__ import annotations

import os
import platform
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sae_widget.checkpoint import SaeFileError
from sae_widget.runs.info import BEAT, RunInfo, read_run
from sae_widget.runs.records import RECORDS, RecordReader

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

GONE = 2.5 * BEAT
"""Seconds without a sign of life of a process that this machine does not have any more."""
SILENT = 15 * BEAT
"""Seconds without a sign of life of a process of which nothing else is known."""


@dataclass(frozen=True, eq=False)
class News:
    """What one look showed."""

    info: RunInfo
    rows: np.ndarray  # [n, n_fields] new records, in the order of ``history.NAMES``
    fresh: bool  # whether they take the place of all before
    dead: bool  # whether the process that trained is gone without having said how the run ended


class Watch:
    """Looks at the folder of a run.

    A sign of life is a heartbeat that differs from the last one, so that no two clocks are compared.

    Args:
        folder: of the run.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._records = RecordReader(folder / RECORDS)
        self._beat: tuple[float, int] | None = None
        self._seen = time.monotonic()

    def look(self) -> News:
        """What is new.

        Raises:
            SaeFileError: nothing was written there, or a file of it is damaged.
        """
        info = read_run(self.folder)  # before the records: those of a run that has ended are then all there
        try:
            rows, fresh = self._records.read()
        except OSError as error:
            raise SaeFileError(f"{self.folder} cannot be read: {(error.strerror or str(error)).lower()}.") from error
        return News(info, rows, fresh, self._dead(info))

    def _dead(self, info: RunInfo) -> bool:
        beat, now = (info.heartbeat, info.pid), time.monotonic()
        if beat != self._beat:
            self._beat, self._seen = beat, now
        if info.state != "running":
            return False
        silence = now - self._seen
        return silence > SILENT or (silence > GONE and info.host == platform.node() and not _lives(info.pid))


def _lives(pid: int) -> bool:
    """Whether this machine has such a process; one that ended and waits for its parent does not count."""
    import psutil

    if pid == os.getpid():
        return True
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
    except psutil.Error:
        return True
