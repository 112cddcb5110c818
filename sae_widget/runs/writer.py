"""The folder of a run as the process that trains writes it, so that another can look and a later one go on."""

from __future__ import annotations

import os
import platform
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from sae_widget.checkpoint import SaeFileError, save_sae, save_training_state
from sae_widget.checkpoint.atomic import LOCK as FOLDER_LOCK
from sae_widget.checkpoint.base import TRAINING, TRAINING_INFO, printable
from sae_widget.runs.info import BEAT, MAX_SENTENCE, RUN, RunInfo, read_run
from sae_widget.runs.records import RECORDS, RecordWriter
from sae_widget.runs.saved import write_json

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from sae_widget.sae.base import SAE
    from sae_widget.training import History, TrainStep

LOCK, CHECKPOINT = ".sae_widget.run.lock", "checkpoint"
"""The lock of a run's folder, and the folder in it from which the run can go on."""
SAE_SECONDS = 5.0
"""Between two SAEs for those who look on."""
SAE_COST, STATE_COST = 40.0, 20.0
"""Times as long as a save took pass before the next one of its kind, at least."""


class RunWriter:
    """Holds a folder while a run goes on in it: signs of life, records, SAEs and checkpoints.

    A disk that is full in the middle of a run is worth a sentence (``trouble``), not the end of the training.

    Args:
        folder: made when it does not exist.
        info: the run as it begins.
        history: of the run; the caller appends to it and says so with ``note``.
        seconds: between two checkpoints.
        lock: of the folder, by whoever holds it already; the writer lets it go at the end.

    Raises:
        SaeFileError: another process trains there, or it could not be written.
    """

    def __init__(
        self, folder: Path, info: RunInfo, history: History, *, seconds: float = 60.0, lock: Any = None
    ) -> None:
        self.folder, self.step, self.seconds, self.trouble = folder, info.step, seconds, ""
        self._lock = lock or _held(folder, 0.0)
        now = time.monotonic()
        self._sae_due, self._state_due = now + min(SAE_SECONDS, seconds) / 2, now + seconds
        self._guard, self._ended = threading.Lock(), threading.Event()
        whose = {"pid": os.getpid(), "host": platform.node(), "started": time.time()}
        self.info = info.model_copy(update=whose | {"state": "running", "sentence": ""})
        try:
            self._records = RecordWriter(folder / RECORDS, history)
            self._tell()
        except OSError as error:
            self._lock.release()
            raise SaeFileError(f"{folder} could not be written: {(error.strerror or str(error)).lower()}.") from error
        except SaeFileError:
            self._lock.release()
            raise
        self._heart = threading.Thread(target=self._live, name="sae_widget-heartbeat", daemon=True)
        self._heart.start()

    def note(self, record: TrainStep) -> None:
        """Say that this record was appended to the history."""
        self.step = record.step
        self._try(self._records.note)

    @property
    def sae_is_due(self) -> bool:
        """Whether it is time for ``save_sae``."""
        return time.monotonic() >= self._sae_due

    @property
    def state_is_due(self) -> bool:
        """Whether it is time for ``save_state``."""
        return time.monotonic() >= self._state_due

    def save_sae(self, sae: SAE, step: int, stats: dict[str, torch.Tensor] | None = None) -> None:
        """Show the SAE as it is now to those who look on."""
        began = time.monotonic()
        if self._try(lambda: save_sae(sae, self.folder, stats)):
            self._tell_softly(sae_step=step)
        now = time.monotonic()
        self._sae_due = now + max(min(SAE_SECONDS, self.seconds), SAE_COST * (now - began))

    def save_state(self, tensors: dict[str, torch.Tensor], info: dict[str, Any]) -> bool:
        """Write what the run needs to go on from here; whether that could be done."""
        began = time.monotonic()
        done = self._try(lambda: save_training_state(self.folder / CHECKPOINT, tensors, info))
        now = time.monotonic()
        self._state_due = now + max(self.seconds, STATE_COST * (now - began))
        return done

    def end(self, state: str, sentence: str, sae_step: int | None = None) -> None:
        """Say how the run ended, and let the folder go.

        Args:
            state: one of those of ``RunInfo``.
            sentence: for whoever looks on.
            sae_step: of the SAE that was written last, when that was not with ``save_sae``.
        """
        if self._ended.is_set():
            return
        self._ended.set()
        self._heart.join()
        self._try(self._records.flush)
        if state == "finished":
            self._try(self._drop_checkpoint)
        shown = {} if sae_step is None else {"sae_step": sae_step}
        self._tell_softly(state=state, sentence=printable(sentence)[:MAX_SENTENCE], **shown)
        self._lock.release()

    def _drop_checkpoint(self) -> None:
        folder = self.folder / CHECKPOINT
        for name in (TRAINING_INFO, TRAINING, FOLDER_LOCK):
            (folder / name).unlink(missing_ok=True)
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()

    def _live(self) -> None:
        while not self._ended.wait(BEAT):
            self._tell_softly()

    def _tell(self, **changes: Any) -> None:
        with self._guard:
            self.info = self.info.model_copy(update={"step": self.step, **changes, "heartbeat": time.time()})
            write_json(self.folder / RUN, self.info.model_dump())

    def _tell_softly(self, **changes: Any) -> None:
        with suppress(SaeFileError):  # a sign of life that could not be given is not worth a word
            self._tell(**changes)

    def _try(self, write: Any) -> bool:
        try:
            write()
        except (OSError, SaeFileError) as fault:
            self.trouble = str(fault)
            return False
        return True


def has_checkpoint(folder: Path) -> bool:
    """Whether a run that was written there can go on."""
    return (folder / CHECKPOINT / TRAINING_INFO).exists()


def take_over(folder: Path, history: History, step: int, patience: float) -> RunWriter | None:
    """The folder of a run whose writer died, for a fellow process that stands at ``step``.

    None when the writer lives longer than ``patience`` seconds, or when this step or a later one has been saved.
    """
    try:
        lock = _held(folder, patience)
        info = read_run(folder)
        if info.state != "running" and info.step >= step:
            lock.release()
            return None
        return RunWriter(folder, info.model_copy(update={"step": step}), history, lock=lock)
    except SaeFileError:
        return None


def _held(folder: Path, patience: float) -> Any:
    from filelock import FileLock, Timeout

    lock = FileLock(folder / LOCK, timeout=patience)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise SaeFileError(f"Another process trains in {folder}. Nothing was changed; choose another folder.") from None
    except OSError as error:
        raise SaeFileError(f"{folder} could not be written: {(error.strerror or str(error)).lower()}.") from error
    return lock
