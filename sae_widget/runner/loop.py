"""The worker thread: one thing at a time, the most urgent first; what the things are stands in ``work``."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sae_widget.activations.base import ModelLoadError
from sae_widget.runner.publisher import Publisher
from sae_widget.state import COMMANDS, Status
from sae_widget.training.interrupts import finish_first

if TYPE_CHECKING:
    from collections.abc import Generator

    from sae_widget.runner.loading import ModelLoading
    from sae_widget.state import ExplorerState

log = logging.getLogger("sae_widget")
DEBOUNCE = 0.15
"""Seconds that an input must rest before it is acted on."""
AT_ONCE = ("pause", "stop", "cancel", "retry", "load_gpt2", "save")
BEGINNINGS = ("train", "resume")
READ_INPUTS = ("text", "layer", "hook_name", "prepend_bos")
CORPUS_INPUTS = ("corpus", "corpus_tokens")
INPUTS = ("model", "selected", "settings", *READ_INPUTS, *CORPUS_INPUTS)


class Loop:
    """One worker thread that looks at the inputs of a state and at a queue of commands.

    A subclass has a method ``_do_<name>`` for every command, and for ``model``, ``read``, ``settings``,
    ``corpus``, ``selected``, ``loaded``, ``progress``, ``statistics``, ``fidelity`` and ``job``.
    """

    def __init__(self, state: ExplorerState, *, polled: bool = False) -> None:
        self.state = state
        self.publisher = Publisher(state, polled=polled)
        self._cond = threading.Condition()
        self._commands: deque[str] = deque()
        self._dirty: dict[str, float] = {"model": 0.0}
        self._postponed: set[str] = set()  # inputs that were changed during a job and are acted on after it
        self._last = ""  # what was done last
        self._next_card = 0.0  # not before this: whoever clicks through features must not stop the training
        self._dropped = False  # whether a stop came before what it stops had begun
        self._poked = False
        self._busy = False
        self._closed = False
        self._job: Generator[None, None, None] | None = None
        self._paused = False
        self._loading: ModelLoading | None = None
        self._status = Status()
        self._faults: dict[str, str] = {}  # pane -> a sentence
        self._said_at = 0.0
        state.observe(self._on_input, names=[*INPUTS])
        state.observe(self._on_command, names=["command"])
        self._thread = threading.Thread(target=self._loop, name="sae_widget-worker", daemon=True)

    # -- called from any thread ------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()
        self.publisher.start()

    def command(self, name: str) -> None:
        """Ask for one of ``COMMANDS``; it is carried out by the worker, soon."""
        if name not in (*COMMANDS, "open", "follow"):  # these two come from Python alone
            raise ValueError(f"command must be one of {', '.join(COMMANDS)}, got {name!r}")
        if name == "cancel" and self._loading is not None:
            self._loading.cancel()
        with self._cond:
            if name == "stop":  # what has not begun yet does not begin
                kept = [known for known in self._commands if known not in BEGINNINGS]
                self._dropped |= len(kept) < len(self._commands)
                self._commands = deque(kept)
            self._commands.append(name)
            self._poked = True
            self._cond.notify_all()

    @property
    def idle(self) -> bool:
        """Whether nothing is left to do (a paused training is nothing to do)."""
        with self._cond:
            working = self._busy or self._commands or self._dirty or self._loading is not None
            return not (working or (self._job is not None and not self._paused))

    def wait(self, timeout: float | None = None) -> bool:
        """Block until nothing is left to do and all results are in the state; False when time ran out.

        An interrupt (Ctrl-C) stops the training at a step boundary and returns; a second one is raised.
        """
        end = None if timeout is None else time.monotonic() + timeout
        interrupted = False
        while True:
            try:
                with finish_first():  # an interrupt while a lock is taken would leave it taken
                    if self.publisher.polled:
                        self.publisher.flush()
                    done = self._closed or (self.idle and self.publisher.empty)
                if done:
                    break
                if end is not None and time.monotonic() > end:
                    return False
                time.sleep(0.02)
            except KeyboardInterrupt:
                if interrupted:
                    raise
                interrupted = True
                with finish_first():
                    self.command("stop")
        self.publisher.flush()
        return True

    def close(self) -> None:
        """Stop the threads; what was trained is saved first."""
        with self._cond:
            if self._closed:
                return
            self._closed = self._poked = True
            self._cond.notify_all()
        if self._loading is not None:
            self._loading.cancel()
        self.state.unobserve(self._on_input, names=[*INPUTS])
        self.state.unobserve(self._on_command, names=["command"])
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(timeout=5.0)
        self._say("closed", "This explorer is closed. Run the cell again to make a new one.")
        self.publisher.close()

    # -- observers: only note what is to be done ---------------------------------------------------------------

    def _on_input(self, change: Any) -> None:
        name = change["name"]
        what = "read" if name in READ_INPUTS else "corpus" if name in CORPUS_INPUTS else name
        with self._cond:
            now = time.monotonic()
            due = {"read": now + DEBOUNCE, "selected": max(now, self._next_card)}.get(what, now)
            self._dirty[what] = due
            self._poked |= due <= now and not (what == "selected" and self._trains)
            self._cond.notify_all()

    def _on_command(self, change: Any) -> None:
        name = (change["new"] or {}).get("do")
        if name in COMMANDS:
            self.command(name)

    # -- the worker ----------------------------------------------------------------------------------------------

    def _prepare(self) -> None:
        """Called once in the worker's thread before it begins."""

    def _loop(self) -> None:
        self._prepare()
        while True:
            with self._cond:
                while not self._closed and not self._next():
                    self._cond.wait(timeout=self._rest())
                if self._closed:
                    break
                what, self._busy, self._poked = self._next(), True, False
                self._last = what
                if what in self._commands:
                    self._commands.remove(what)
                self._dirty.pop(what, None)
            try:
                self._turn(what)
            except Exception as fault:  # noqa: BLE001  (the worker lives on; the person reads the sentence)
                self._fail(fault)
            with self._cond:
                if self._job is None:
                    self._dirty = dict.fromkeys(self._postponed, 0.0) | self._dirty
                    self._postponed.clear()
                self._busy = False
        try:
            self._end_job()
        except Exception:
            log.exception("the last results could not be kept")

    @property
    def _trains(self) -> bool:
        return self._job is not None and not self._paused

    def _next(self) -> str:
        """The most urgent thing to do, or an empty string: commands, inputs that have rested, the job.

        What starts work waits until the model and the text that were asked for before it are there; so does its pause.
        """
        settling = self._loading is not None or "model" in self._dirty or "read" in self._dirty
        begins = False
        for command in self._commands:
            waits = command == "pause" and begins and self._job is None
            if not settling or (command in AT_ONCE and not waits):
                return command
            begins |= command in BEGINNINGS
        if self._loading is not None and self._loading.done:
            return "loaded"
        now = time.monotonic()
        for what in ("model", "read", "settings", "corpus", "selected", "progress", "statistics", "fidelity"):
            again = what == "selected" == self._last and self._trains  # the training has its turn in between
            if what in self._dirty and self._dirty[what] <= now and not again:
                return what
        return "job" if self._trains else ""

    def _rest(self) -> float | None:
        if self._loading is not None:
            return 0.1
        return max(0.01, min(self._dirty.values()) - time.monotonic()) if self._dirty else None

    def _turn(self, what: str) -> None:
        getattr(self, f"_do_{what}")()

    def _fail(self, fault: Exception) -> None:
        log.error("the worker failed", exc_info=fault)
        Loop._end_job(self)
        known = isinstance(fault, (ValueError, TypeError, OSError, ModelLoadError))
        said = ended(fault if known else f"{type(fault).__name__}: {fault}")
        self._say("failed", f"{said} What was shown before is kept; change the setting and try again.", trouble=True)

    def _wake(self) -> None:
        """The model that is being loaded has news: bytes that came, or its end."""
        with self._cond:
            self._dirty["progress"] = 0.0
            self._cond.notify_all()

    def _say(self, phase: str, message: str, *, trouble: bool = False, **numbers: Any) -> None:
        if message != self._status.message:
            self._said_at = time.monotonic()
        self._status = replace(self._status, phase=phase, message=message, trouble=trouble, **numbers)
        if phase not in ("training", "paused", "ready"):
            self._status = replace(self._status, total=0)
        self.publisher.post(status=self._status)

    def _fault(self, sentence: str, *panes: str) -> None:
        """Show a sentence about trouble in the panes that it is about; an empty one takes theirs away."""
        others = {pane: said for pane, said in self._faults.items() if pane not in panes}
        faults = others | (dict.fromkeys(panes, sentence) if sentence else {})
        if faults != self._faults:
            self._faults = faults
            self.publisher.post(faults=dict(faults))

    def _end_job(self) -> None:
        job, self._job, self._paused = self._job, None, False
        if job is not None:
            job.close()


def ended(words: object) -> str:
    """Words as a sentence: with a full stop where they have none."""
    said = str(words)
    return said if said.endswith((".", "!", ")")) else said + "."
