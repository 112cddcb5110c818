"""A training as a sequence of short pieces of work, and what is shown and saved of it on the way."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sae_widget.autosave import autosave, run_name
from sae_widget.checkpoint import SaeFileError
from sae_widget.memory import is_out_of_memory
from sae_widget.runner.desk import Desk
from sae_widget.runner.loop import Loop
from sae_widget.training import History, TrainingFault
from sae_widget.training.spikes import Spikes
from sae_widget.training.start import going_on

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from sae_widget.config import TrainConfig
    from sae_widget.features import FeatureStats
    from sae_widget.sae.base import SAE
    from sae_widget.state import ExplorerState
    from sae_widget.training import Trainer, TrainStep

log = logging.getLogger("sae_widget")
SLICE = 0.05
"""Seconds of training between two looks at the inputs."""
FIRST_SAVE, SAVE_EVERY = 5.0, 30.0
"""Seconds of training before the first automatic save, and between two."""
NOTICE = 6.0
"""Seconds for which a sentence about trouble stays while the training goes on."""


class TrainingLoop(Loop):
    """The part of the runner that trains."""

    def __init__(self, state: ExplorerState, *, polled: bool = False) -> None:
        self.desk = Desk()
        self._history: History | None = None
        self._own: History | None = None  # that of the trainer on the desk; the one that is shown may be another run's
        self._unsaved = ""
        self._began = False  # whether the job has a trainer of its own; while it reads, the desk holds the last run's
        self._halved = False
        self._card_of = ""  # the key of the SAE of which a feature's card was made last
        super().__init__(state, polled=polled)

    def _do_job(self) -> None:
        end = time.monotonic() + SLICE
        try:
            for _ in self._job or ():
                if self._poked or time.monotonic() > end:
                    return
        except TrainingFault as fault:
            self._job, self._paused = self._training(go_on=True), True  # the old one ended with its exception
            if self._history is not None:
                self._history.gap(fault.step)
            self._show_training(final=False)
            self._say("paused", str(fault), trouble=True)
            self._fault(str(fault), "chart")
            return
        self._job = None
        self._look_for_examples()

    def _training(self, *, go_on: bool = False, start: SAE | None = None, run: str = "") -> Generator[None, None, None]:
        """The training as a sequence of short pieces of work; pausing is not asking for the next.

        Args:
            go_on: with the trainer on the desk, instead of a new one.
            start: the SAE that a new one goes on from.
            run: its name, when it has one already.
        """
        state = self.state
        if not go_on:
            self._say("reading", "Reading the corpus", step=0, total=0)
            for n in self.desk.read_training_data(state.corpus, state.corpus_tokens, state.text):
                if not self._noticed():
                    self._say("reading", f"Reading the corpus: {n:,} tokens")
                yield
            for n in self.desk.write_training_data():
                self._say("reading", f"Reading the corpus to the disk, as it does not fit into memory: {n:,} tokens")
                yield
            settings = state.settings if start is None else going_on(start, state.settings)
            trainer = self.desk.start_training(settings, run or run_name(), start)
            self._own = History(config=trainer.config)  # from here on it is another run
            self._began, self._halved = True, False
            self._show_history(self._own, self.desk.run)
            self._look_for_examples()
        else:
            assert self.desk.trainer is not None
            trainer, self._began = self.desk.trainer, True
            self._show_history(self._own, self.desk.run)  # another run may have been followed meanwhile
            config = trainer.config.with_live(state.settings)
            self._reconfigure(trainer, replace(config, steps=_goal(trainer, state.settings.steps)))
        yield from self._steps(trainer)
        self._show_training(final=True)
        self._began = False
        self._look_at_predictions()
        words = self._unsaved or " Click a feature to see what it does."
        notes = self.desk.training_words(), self.desk.trained_words()
        told = " ".join(filter(None, (f"Trained {trainer.step:,} steps.", *notes)))
        self._say("ready", f"{told}{words}", trouble=bool(self._unsaved))

    def _steps(self, trainer: Any) -> Generator[None, None, None]:
        assert self._history is not None
        tick, shown, cost, spikes = 0.0, time.monotonic(), 0.0, Spikes()
        save_at = shown + FIRST_SAVE
        for record in self._records(trainer):
            self._history.append(record)
            now, times = time.monotonic(), spikes.times(record.loss)
            if times:
                words = (
                    f"The loss jumped to {record.loss:,.4g} at step {record.step:,}, {times:,.0f} times what it was."
                )
                self._say("training", f"{words} It trains on; if it stays high, lower the learning rate.", trouble=True)
            if now - tick >= 0.1:
                tick = now
                self._progress(record)
            if now - shown >= max(0.5, 40 * cost):  # drawing features takes at most a fortieth of the time
                self._show_training(final=False)
                shown = time.monotonic()
                cost = shown - now
            if now >= save_at:
                self._autosave(trainer, trainer.sae(), None)
                save_at = time.monotonic() + SAVE_EVERY
            yield
        self._progress(self._history.last)

    def _records(self, trainer: Trainer) -> Iterator[TrainStep]:
        """The trainer's records; when memory runs out, once more with half the batch."""
        while True:
            try:
                yield from trainer.run()
                return
            except (RuntimeError, MemoryError) as fault:
                if not is_out_of_memory(fault) or self._halved:
                    raise
            self._halved = True
            size = max(1, trainer.batch_size // 2)
            self._reconfigure(trainer, replace(trainer.config, batch_size=size))
            words = f"Out of memory: nothing is lost, and it trains on with half the batch, {size:,} tokens."
            self._say("training", words, trouble=True)

    def _reconfigure(self, trainer: Trainer, config: TrainConfig) -> None:
        """Give the trainer on the desk other settings, and its history with it."""
        trainer.reconfigure(config)
        if self._own is not None:
            self._own.config = trainer.config

    def _noticed(self) -> bool:
        """Whether a sentence about trouble stands that has not been there for long."""
        return self._status.trouble and time.monotonic() < self._said_at + NOTICE

    def _progress(self, record: Any) -> None:
        trainer = self.desk.trainer
        if record is None or trainer is None:
            return
        rate, size = record.tokens_per_second, trainer.batch_size
        left = (trainer.config.steps - record.step) * size / rate if rate > 0 else 0.0
        notice = self._noticed()
        self._say(
            "training",
            self._status.message if notice else ". ".join(filter(None, ("Training", self.desk.training_words()))),
            trouble=notice,
            step=record.step,
            total=trainer.config.steps,
            tokens_per_second=rate,
            seconds_left=left,
        )
        self.publisher.post(history_tick=len(self._history or ()))

    def _show_training(self, *, final: bool) -> None:
        if not self._began or self.desk.trainer is None or not self.desk.can_continue:
            return
        shown = self.desk.show_training(final=final)
        self._show_features()
        if final and self.desk.trainer.step:
            self._autosave(self.desk.trainer, shown.sae, shown.stats)

    def _autosave(self, trainer: Trainer, sae: SAE, stats: FeatureStats | None) -> None:
        """Write the SAE to disk; a full disk is worth a sentence, not the end of the training."""
        self._unsaved = ""
        try:
            autosave(sae, stats, trainer.config, self.desk.run)
        except (OSError, SaeFileError) as fault:
            log.warning("autosave failed: %s", fault)
            self._unsaved = f" It could not be saved to disk ({fault}) and stays in memory: free some space."
            self._say(self._status.phase, f"The SAE is trained on.{self._unsaved}", trouble=True)

    def _show_history(self, history: History | None, of: str) -> None:
        self._history = history
        self.publisher.post(history=history, history_of=of)

    def _show_features(self) -> None:
        self.publisher.post(features=self.desk.features(), history_tick=len(self._history or ()))
        self._show_predictions()
        shown = self.desk.shown
        if self._job is None or self._paused or (shown is not None and shown.key != self._card_of):
            self._look_for_examples()

    def _look_for_examples(self) -> None:
        """Make the card of the selected feature again."""
        with self._cond:
            if self.state.selected is not None:
                self._dirty["selected"] = time.monotonic()

    def _training_is_on(self, what: str, turn: str = "") -> bool:
        """Whether a job is on; if so, say that it changes after the job, and see to that where it is an input."""
        if self._job is None:
            return False
        self._postponed |= {turn} if turn else set()
        self._say(
            self._status.phase,
            f"The {what} changes when the training has stopped: stop it first.",
            trouble=True,
        )
        return True

    def _look_at_predictions(self) -> None:
        """Measure, when nothing else is to be done, what the language model loses with the SAE on show."""
        with self._cond:
            self._dirty["fidelity"] = time.monotonic()

    def _show_predictions(self) -> None:
        found = self.desk.predictions
        fidelity, why_not = (None, "") if found is None else (found.fidelity, found.why_not)
        self.publisher.post(fidelity=fidelity, unmeasured=why_not)

    def _fail(self, fault: Exception) -> None:
        pane = "chart" if self._began else "controls" if self._job is not None else ""
        super()._fail(fault)
        if self._began:
            self._look_at_predictions()
        if pane:
            self._fault(self._status.message, pane)
        try:
            self._show_training(final=True)  # what was trained so far is good: each step is applied whole
        except Exception:
            log.exception("the SAE of the failed training could not be shown")
        self._began = False

    def _end_job(self) -> None:
        super()._end_job()
        self._look_for_examples()
        if self._began:
            self._look_at_predictions()
        self._show_training(final=True)
        self._began = False


def _goal(trainer: Trainer, steps: int) -> int:
    """Where a training that goes on ends: at the steps that are set, or as many again when it has had its own."""
    if trainer.step >= trainer.config.steps:
        return trainer.step + steps
    return steps if steps > trainer.step else trainer.config.steps
