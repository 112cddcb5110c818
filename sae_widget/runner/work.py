"""What the worker does for each command and each input: the runner of the explorer."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sae_widget.autosave import autosave, load_run, run_name, saved_runs
from sae_widget.checkpoint import SaeFileError
from sae_widget.runner.desk import Desk
from sae_widget.runner.loading import ModelLoading
from sae_widget.runner.loop import DEBOUNCE, Loop
from sae_widget.runner.threads import leave_one_core
from sae_widget.training import History, TrainingFault

if TYPE_CHECKING:
    from collections.abc import Generator

    from sae_widget.autosave import SavedRun
    from sae_widget.features import FeatureStats
    from sae_widget.sae.base import SAE
    from sae_widget.state import ExplorerState

log = logging.getLogger("sae_widget")
SLICE = 0.05
"""Seconds of training between two looks at the inputs."""
FIRST_SAVE, SAVE_EVERY = 5.0, 30.0
"""Seconds of training before the first automatic save, and between two."""
NOTICE = 6.0
"""Seconds for which a sentence about trouble stays while the training goes on."""


class Runner(Loop):
    """Turns the inputs of a state into its results: model, text, training, feature card."""

    def __init__(self, state: ExplorerState, *, polled: bool = False) -> None:
        self.desk = Desk()
        self._history: History | None = None
        self._run = self._unsaved = ""
        self._path = Path()
        super().__init__(state, polled=polled)

    def _prepare(self) -> None:
        leave_one_core()

    def open(self, path: Path) -> None:
        """Ask for a saved SAE to be shown."""
        self._path = path
        self.command("open")

    def _do_model(self) -> None:
        if self._training_is_on("model"):
            return
        if self._loading is not None:
            self._loading.cancel()
        self._loading = ModelLoading(self.state.model, self._wake)
        self._loading.start()
        if self.desk.model is None and self._loading.remote:
            self._take(ModelLoading.bundled())  # something real to look at while the other one is fetched
        self._say("loading", self._loading.words)
        self._offer("cancel")

    def _do_loaded(self) -> None:
        loading, self._loading = self._loading, None
        assert loading is not None
        if loading.model is not None:
            self._take(loading.model)
            return
        if self.desk.model is None:
            self._take(ModelLoading.bundled())
        shown = f" Showing {self.desk.model.label}." if self.desk.model else ""
        self._say("ready", f"{loading.fault}{shown}", trouble=not loading.cancelled)
        self._offer("retry" if loading.remote else "")

    def _do_retry(self) -> None:
        self._do_model()

    def _do_cancel(self) -> None:
        if self._loading is not None:
            self._loading.cancel()

    def _do_load_gpt2(self) -> None:
        self.state.model = "gpt2"

    def _take(self, model: Any) -> None:
        self._end_job()
        self.desk.take_model(model)
        self.publisher.post(language_model=model, activations=None, features=None, card=None)
        self.publisher.flush()  # the explorer fits the layer to the model before the text is read
        self._do_read()

    def _do_read(self) -> None:
        state = self.state
        with self._cond:
            self._dirty.pop("read", None)  # a button and the text it sets ask for one reading
        if self.desk.model is None or self._training_is_on("text or layer", quiet=state.text == ""):
            return
        self._say("reading", "Reading the text")
        try:
            self.desk.read(state.text, state.layer, state.hook_name, prepend_bos=state.prepend_bos)
        except (ValueError, TypeError) as fault:
            message = f"{fault} The last text stays."
            self.publisher.post(faults={"tokens": message})
            self._say("ready", message, trouble=True)
            return
        self.publisher.post(activations=self.desk.prompt, faults={})
        self._show_features()
        self._say("ready", self._ready_words())
        self._offer()

    def _do_settings(self) -> None:
        trainer = self.desk.trainer
        if trainer is None or self._job is None:
            return
        try:
            trainer.reconfigure(self.state.settings)
        except ValueError as fault:
            self._say(self._status.phase, f"{fault} The run goes on with its own.", trouble=True)

    def _do_selected(self) -> None:
        feature, shown = self.state.selected, self.desk.shown
        if feature is None or shown is None or not 0 <= feature < shown.sae.d_sae:
            return
        if self.desk.corpus is None and self._job is None:
            for _ in self.desk.read_training_data(self._example_corpus(), self.state.corpus_tokens, self.state.text):
                if self._poked:  # a person is waiting for something else; the examples come after it
                    with self._cond:
                        self._dirty.setdefault("selected", time.monotonic() + DEBOUNCE)
                    return
        self.publisher.post(card=self.desk.card(feature))

    def _do_train(self) -> None:
        if self._job is not None:
            self._say(
                self._status.phase,
                "Already training: stop it first, or change learning rate and sparsity live.",
            )
            return
        self._paused = False
        self._run = run_name()
        self._job = self._training()

    def _do_pause(self) -> None:
        if self._job is None or self._paused:
            self._say(self._status.phase, "Nothing is training.")
            return
        self._paused = True
        self._show_training(final=False)
        self._say("paused", f"Paused at step {self._status.step:,}. Resume goes on as if nothing had happened.")

    def _do_resume(self) -> None:
        if self._job is not None and self._paused:
            self._paused = False
            self._say("training", "Training")
        elif self._job is None and self.desk.can_continue:
            self._job = self._training(go_on=True)
        else:
            self._say(self._status.phase, "Nothing to resume: press Train.")

    def _do_stop(self) -> None:
        if self._job is None:
            self._say(self._status.phase, "Nothing is training.")
            return
        step, began = self._status.step, self.desk.trainer is not None
        self._end_job()
        kept = self._unsaved or " The SAE is kept; Continue goes on from here."
        words = f"Stopped at step {step:,}.{kept}" if began else "Stopped."
        self._say("ready", words)

    def _do_reset(self) -> None:
        self._end_job()
        self.desk.forget_training()
        self._history = None
        self.publisher.post(history=None, card=None)
        self._show_features()
        self._say("ready", "Back to the start. The trained SAE is saved: Restore brings it back.")

    def _do_restore(self) -> None:
        runs = self._saved_here()
        if not runs:
            self._say("ready", f"No saved SAE for {self.desk.site_words} of this model.", trouble=True)
            return
        sae, stats = load_run(runs[0].path)
        when = time.strftime("%d %b %H:%M", time.localtime(runs[0].saved))
        self.desk.open(sae, stats, f"your saved SAE of {when}, {self.desk.site_words}")
        self._show_features()
        self._say("ready", f"Restored the SAE of {when}.")

    def _do_open(self) -> None:
        sae, stats = load_run(self._path)
        self.desk.open(sae, stats, f"the SAE of {self._path.name}, {self.desk.site_words}")
        self._show_features()
        self._say("ready", self._ready_words())

    def _do_job(self) -> None:
        end = time.monotonic() + SLICE
        try:
            for _ in self._job or ():
                if self._poked or time.monotonic() > end:
                    return
        except TrainingFault as fault:
            self._paused = True
            self._show_training(final=False)
            self._say("paused", str(fault), trouble=True)
            return
        self._job = None

    def _training(self, *, go_on: bool = False) -> Generator[None, None, None]:
        """The training as a sequence of short pieces of work; pausing is not asking for the next."""
        state = self.state
        if not go_on:
            self._say("reading", "Reading the corpus", step=0, total=0)
            for n in self.desk.read_training_data(state.corpus, state.corpus_tokens, state.text):
                self._say("reading", f"Reading the corpus: {n:,} tokens")
                yield
            trainer = self.desk.start_training(state.settings)
            self._history = History()
            self.publisher.post(history=self._history)
        else:
            assert self.desk.trainer is not None
            trainer = self.desk.trainer
            more = trainer.step + state.settings.steps if trainer.step >= trainer.config.steps else trainer.config.steps
            trainer.reconfigure(replace(state.settings, steps=more))
        yield from self._steps(trainer)
        self._show_training(final=True)
        words = self._unsaved or " Click a feature to see what it does."
        self._say("ready", f"Trained {trainer.step:,} steps.{words}", trouble=bool(self._unsaved))

    def _steps(self, trainer: Any) -> Generator[None, None, None]:
        assert self._history is not None
        tick, shown, cost = 0.0, time.monotonic(), 0.0
        save_at = shown + FIRST_SAVE
        for record in trainer.run():
            self._history.append(record)
            now = time.monotonic()
            if now - tick >= 0.1:
                tick = now
                self._progress(record)
            if now - shown >= max(0.5, 40 * cost):  # drawing features takes at most a fortieth of the time
                self._show_training(final=False)
                shown = time.monotonic()
                cost = shown - now
            if now >= save_at:
                self._autosave(trainer.sae(), None)
                save_at = time.monotonic() + SAVE_EVERY
            yield
        self._progress(self._history.last)

    def _progress(self, record: Any) -> None:
        trainer = self.desk.trainer
        if record is None or trainer is None:
            return
        rate, size = record.tokens_per_second, trainer.batch_size
        left = (trainer.config.steps - record.step) * size / rate if rate > 0 else 0.0
        notice = self._status.trouble and time.monotonic() < self._said_at + NOTICE
        self._say(
            "training",
            self._status.message if notice else "Training",
            trouble=notice,
            step=record.step,
            total=trainer.config.steps,
            tokens_per_second=rate,
            seconds_left=left,
        )
        self.publisher.post(history_tick=len(self._history or ()))

    def _show_training(self, *, final: bool) -> None:
        if self.desk.trainer is None or self.desk.corpus is None or not self.desk.can_continue:
            return
        shown = self.desk.show_training(final=final)
        self._show_features()
        if final and self.desk.trainer.step:
            self._autosave(shown.sae, shown.stats)

    def _autosave(self, sae: SAE, stats: FeatureStats | None) -> None:
        """Write the SAE to disk; a full disk is worth a sentence, not the end of the training."""
        self._unsaved = ""
        try:
            autosave(sae, stats, self.state.settings, self._run)
        except (OSError, SaeFileError) as fault:
            log.warning("autosave failed: %s", fault)
            self._unsaved = f" It could not be saved to disk ({fault}) and stays in memory: free some space."
            self._say(self._status.phase, f"The SAE is trained on.{self._unsaved}", trouble=True)

    def _show_features(self) -> None:
        features = self.desk.features()
        self.publisher.post(features=features, history_tick=len(self._history or ()))
        with self._cond:
            if self.state.selected is not None and self._job is None:
                self._dirty["selected"] = time.monotonic()

    def _fail(self, fault: Exception) -> None:
        training = self._job is not None
        super()._fail(fault)
        if training:
            try:
                self._show_training(final=True)  # what was trained so far is good: each step is applied whole
            except Exception:
                log.exception("the SAE of the failed training could not be shown")

    def _end_job(self) -> None:
        training = self._job is not None
        super()._end_job()
        if training:
            self._show_training(final=True)

    def _training_is_on(self, what: str, *, quiet: bool = False) -> bool:
        if self._job is None:
            return False
        if not quiet:
            self._say(
                self._status.phase,
                f"The {what} changes when the training has stopped: stop it first.",
                trouble=True,
            )
        return True

    def _saved_here(self) -> list[SavedRun]:
        """Automatically saved runs of this model and read point, the newest first."""
        keys = ("model_name", "layer", "hook_name")
        return [run for run in saved_runs() if tuple(run.info.get(key) for key in keys) == self.desk.site]

    def _example_corpus(self) -> str:
        return self.state.corpus if self.state.corpus != "text" else "documentation"

    def _ready_words(self) -> str:
        shown = self.desk.shown
        if shown is None:
            return f"No SAE for {self.desk.site_words} yet: press Train to make one."
        return f"Showing {shown.source}: {shown.sae.d_sae:,} features. Click one, or press Train to make your own."

    def _offer(self, *more: str) -> None:
        """Say which further buttons make sense now."""
        offers = [name for name in more if name]
        if "cancel" not in offers and self.desk.model is not None:
            if self.desk.trainer is None and self._saved_here():
                offers.append("restore")
        self.publisher.post(offers=tuple(offers))
