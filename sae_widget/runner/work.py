"""What the worker does for each command and each input: the runner of the explorer."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from sae_widget.autosave import load_run, run_name
from sae_widget.config import FIXED_SETTINGS
from sae_widget.memory import is_out_of_memory
from sae_widget.runner.loading import ModelLoading
from sae_widget.runner.loop import DEBOUNCE, ended
from sae_widget.runner.opening import OpeningLoop
from sae_widget.runner.threads import leave_one_core
from sae_widget.training.start import going_on

if TYPE_CHECKING:
    from sae_widget.config import TrainConfig
    from sae_widget.state import ExplorerState


CARD_SHARE = 3.0
"""While a training goes on, examples are looked for again after so many times as long as it took."""
WAITS = "a change of this needs a new SAE, so Train takes it. This one goes on as it is."
"""Said behind the names of settings that the SAE that trains cannot take."""
POLLED = " Here a page sees no news from threads, so this one asks for them: keep it open."
"""Said once where that is so (Colab)."""


class Runner(OpeningLoop):
    """Turns the inputs of a state into its results: model, text, training, feature card."""

    def __init__(self, state: ExplorerState, *, polled: bool = False, **more: Any) -> None:
        self._unsaid = POLLED if polled else ""
        super().__init__(state, polled=polled, **more)

    def _prepare(self) -> None:
        leave_one_core()

    def _do_model(self) -> None:
        if self._training_is_on("model", "model"):
            return
        if self._loading is not None:
            self._loading.cancel()
        self._unreached = False
        self._loading = ModelLoading(self.state.model, self._wake)
        self._loading.start()
        if self.desk.model is None and self._loading.remote:
            self._take(ModelLoading.bundled())  # something real to look at while the other one is fetched
        self._say("loading", self._loading.words)
        self._offer()

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
        self._unreached = loading.remote
        self._offer()

    def _do_progress(self) -> None:
        if self._loading is not None and not self._loading.done:
            self._say("loading", self._loading.words)

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
        self._fault("", "card", "health")
        nothing = dict.fromkeys(("activations", "features", "card", "fidelity"))
        self.publisher.post(language_model=model, unmeasured="", **nothing)
        self._offer()
        self.publisher.flush()  # the explorer fits the layer to the model before the text is read
        self._do_read()

    def _do_read(self) -> None:
        state = self.state
        with self._cond:
            self._dirty.pop("read", None)  # a button and the text it sets ask for one reading
        if self.desk.model is None:
            return
        if not self._other_text_alone() and self._training_is_on("text or layer", "read"):
            return
        self._say("reading", "Reading the text")
        try:
            self.desk.read(state.text, state.layer, state.hook_name, prepend_bos=state.prepend_bos)
        except (ValueError, TypeError) as fault:
            message = ended(fault) + (" The last text stays." if self.desk.prompt is not None else "")
            self._fault(message, "tokens")
            self._say("ready", message, trouble=True)
            return
        except Exception:
            self._fault("The text could not be read. The last one stays: read it again.", "tokens")
            raise
        self._fault("", "tokens")
        if self._history is None and self.desk.can_continue:  # a reset elsewhere has cleared the chart
            self._show_history(self._own, self.desk.run)
        self.publisher.post(activations=self.desk.prompt)
        self._show_features()
        self._offer()
        if self._loading is not None:
            self._say("loading", self._loading.words)  # which goes on
        elif not self.follows:  # that says itself how far it is
            unsaid, self._unsaid = self._unsaid, ""
            self._say("ready", self._what_is_shown() + unsaid)

    def _do_settings(self) -> None:
        trainer = self.desk.trainer
        if trainer is None or not self._began:
            return  # what is still to begin takes the settings when it does
        try:
            self._reconfigure(trainer, trainer.config.with_live(self.state.settings))
        except ValueError as fault:
            self._say(self._status.phase, f"{ended(fault)} The run goes on with its own.", trouble=True)
            return
        except (RuntimeError, MemoryError) as fault:
            if not is_out_of_memory(fault):
                raise
            words = "Out of memory with these settings: nothing is lost, and the run goes on with its own."
            self._say(self._status.phase, words, trouble=True)
            return
        self._say_what_waits(trainer.config)

    def _do_selected(self) -> None:
        feature, shown = self.state.selected, self.desk.shown
        if feature is None or shown is None or not 0 <= feature < shown.sae.d_sae:
            self._fault("", "card")
            return
        wanted = self._examples()
        if not self.desk.has_examples(*wanted):
            if self.trains and not self._paused:
                return  # it is reading what will serve here too
            if self.trains:
                self._fault("Its examples are looked for when the training goes on or ends.", "card")
            try:
                for _ in () if self.trains else self.desk.read_training_data(*wanted):
                    if self._poked:  # a person is waiting for something else; the examples come after it
                        with self._cond:
                            self._dirty.setdefault("selected", time.monotonic() + DEBOUNCE)
                        return
            except (ValueError, OSError) as fault:
                self.desk.drop_corpus()
                self._fault(f"No examples can be shown: {ended(fault)}", "card")
        known = self.desk.has_examples(*wanted)
        if known:
            self._fault("", "card")
            if self.desk.predictions is None:
                self._look_at_predictions()  # its texts are there
        began = time.monotonic()
        card = self.desk.card(feature, examples=known)
        self._card_of = card.key
        self.publisher.post(card=card)
        if self._job is not None and not self._paused:
            now = time.monotonic()
            self._next_card = now + CARD_SHARE * (now - began)

    def _do_train(self) -> None:
        if self._job is not None:
            words = "A run of another process is followed" if self.follows else "Already training"
            live = "" if self.follows else ", or change learning rate and sparsity live"
            self._say(self._status.phase, f"{words}: stop it first{live}.")
            return
        if not self._read_where_the_form_says():
            return
        self._paused = False
        self._fault("", "controls", "chart")
        self._withdraw()
        self._job = self._training()

    def _do_pause(self) -> None:
        if self.follows:
            self._say(self._status.phase, "This run trains in another process and cannot pause from here.")
            return
        if self._job is None or self._paused:
            self._say(self._status.phase, "Nothing is training.")
            return
        self._paused = True
        self._show_training(final=False)
        if not self._began:
            self._look_for_examples()
        self._say_paused()

    def _do_resume(self) -> None:
        self._fault("", "controls", "chart")
        if self._job is not None and self._paused:
            self._paused = False
            self._say(*(("training", "Training") if self._began else ("reading", "Reading the corpus")))
        elif self._job is None and self.desk.can_continue and self.desk.trainer is not None and not self.desk.opened:
            self._withdraw()
            self._job = self._training(go_on=True)
            self._say("training", "Training")
            self._say_what_waits(self.desk.trainer.config)
        elif self._job is not None or self.desk.shown is None:
            self._say(self._status.phase, "Nothing to resume: press Train.")
        elif self._read_where_the_form_says():
            self._train_on()

    def _train_on(self) -> None:
        """Train the SAE on show, which was not trained here, further; the form shows what it takes of the settings."""
        shown = self.desk.shown
        if shown is None:
            return
        try:
            settings = going_on(shown.sae, self.state.settings.changed(skip_first=shown.skip_first))
        except ValueError as fault:
            self._say(self._status.phase, ended(fault), trouble=True)
            return
        self.publisher.post(settings=settings)
        self.publisher.flush()
        self._withdraw()
        run = run_name()
        if self._expect is not None:
            self._expect(run, dict(self.state.feature_names))  # its features stay what they are
        self._job = self._training(start=shown.sae, run=run)

    def _do_stop(self) -> None:
        if self._stop_following():
            return
        with self._cond:
            dropped, self._dropped = self._dropped, False
        if self._job is None and not dropped:
            self._say(self._status.phase, "Nothing is training.")
            return
        step = self._step()
        self._end_job()
        if step:
            kept = self._unsaved or " The SAE is kept; Continue goes on from here."
            self._say("ready", f"Stopped at step {step:,}.{kept}", step=step, trouble=bool(self._unsaved))
        else:
            self._say("ready", "Stopped before the first step. What was shown before is kept; Train begins anew.")
            self._offer()

    def _do_reset(self) -> None:
        self._end_job()
        self.desk.forget_training()
        if self.desk.trainer is None:
            self._own = None
        self._show_history(None, "")
        self._fault("", "controls", "chart")
        self.publisher.post(card=None)
        self._show_features()
        self._offer()
        saved = " The trained SAE is saved: Restore brings it back." if self._saved_here() else ""
        self._say("ready", f"Back to the start.{saved}")

    def _do_restore(self) -> None:
        if self._training_is_on("SAE that is shown"):
            return
        runs = self._saved_here()
        if not runs:
            self._say("ready", f"No saved SAE for {self.desk.site_words} of this model.", trouble=True)
            return
        sae, stats = load_run(runs[0].path)
        when = time.strftime("%d %b %H:%M", time.localtime(runs[0].saved))
        self.desk.open(sae, stats, f"your saved SAE of {when}, {self.desk.site_words}", runs[0].path.name)
        self._show_features()
        self._offer()
        self._say("ready", f"Restored the SAE of {when}.")

    def _say_what_waits(self, config: TrainConfig) -> None:
        """Say which settings of the form the SAE that trains cannot take any more, if there are such."""
        names = [name for name in FIXED_SETTINGS if getattr(self.state.settings, name) != getattr(config, name)]
        if names:
            self._say(self._status.phase, f"{', '.join(names)}: {WAITS}", trouble=True)
        elif self._status.message.endswith(WAITS):  # they were put back
            if self._paused:
                self._say_paused()
            else:
                self._say(self._status.phase, "Training")

    def _say_paused(self) -> None:
        step = self._step()
        where = f"at step {step:,}" if step else "before the first step"
        self._say("paused", f"Paused {where}. Resume goes on as if nothing had happened.", step=step)

    def _step(self) -> int:
        """Steps that the job has trained: 0 while it reads, whatever the run before it did."""
        return self.desk.trainer.step if self._began and self.desk.trainer is not None else 0
