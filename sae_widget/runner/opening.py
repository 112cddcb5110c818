"""An SAE from elsewhere put on show: where it reads, on what it was not trained after a word, and with statistics."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from sae_widget.autosave import saved_runs
from sae_widget.checkpoint import SaeFileError
from sae_widget.checkpoint.sites import mismatch, place_for, reading_notes, trained_on
from sae_widget.runner.follow import FollowingLoop
from sae_widget.runner.loop import DEBOUNCE, ended
from sae_widget.runner.opened import opened_from, typed_folder
from sae_widget.runner.saving import save_named
from sae_widget.state import SaveAnswer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sae_widget.autosave import SavedRun
    from sae_widget.runner.opened import Opened
    from sae_widget.state import ExplorerState

log = logging.getLogger("sae_widget")
REPLACED = ("restore", "load_anyway", "keep")
"""Offers that mean nothing any more once a training begins."""


class OpeningLoop(FollowingLoop):
    """The part of the runner that opens.

    Args:
        state: of the explorer.
        polled: as ``Publisher`` takes it.
        expect: told the names that features of an SAE have, with the SAE's key, before it is shown.
    """

    def __init__(
        self,
        state: ExplorerState,
        *,
        polled: bool = False,
        expect: Callable[[str, dict[int, str]], None] | None = None,
    ) -> None:
        self._expect = expect
        self._asked: Opened | None = None
        self._offered: tuple[str, ...] = ()
        self._unread = False  # whether the model's loss is not known for want of a corpus
        self._waiting: Opened | None = None  # for a word: it was trained on something else
        self._unreached = False  # whether the model that was asked for last could not be fetched
        super().__init__(state, polled=polled)

    def open(self, opened: Opened) -> None:
        """Ask for an SAE to be shown."""
        self._take_opened(opened)
        self.command("open")

    def _take_opened(self, opened: Opened) -> None:
        if self._expect is not None:
            self._expect(opened.key, opened.saved.names if opened.saved else {})
        self._asked = opened

    def _do_show(self) -> None:
        """Show the SAE of the folder that was typed in the page."""
        if self._training_is_on("SAE that is shown"):
            return
        self._offer()  # whatever waited for a word waits no more
        self._say("reading", "Opening a saved SAE")
        try:
            opened = opened_from(typed_folder(self.state.folder))
        except (SaeFileError, ValueError, TypeError) as fault:
            self._refuse(ended(fault), typed=True)
            return
        self._take_opened(replace(opened, typed=True))
        self._do_open()

    def _do_save(self) -> None:
        """Keep what is shown under the name that was typed in the page; a training goes on meanwhile."""
        self.publisher.flush()  # what the status line says is what is saved
        try:
            answer = SaveAnswer(saved=save_named(self.state))
        except SaeFileError as fault:
            answer = SaveAnswer(trouble=str(fault))
        except Exception as fault:  # it is no reason to end a training
            log.exception("what is shown could not be saved")
            answer = SaveAnswer(trouble=f"It could not be saved ({type(fault).__name__}: {fault}). Nothing was kept.")
        self.publisher.post(save_answer=answer)

    def _refuse(self, said: str, *, typed: bool) -> None:
        """Say why an SAE is not shown, at the box too when its folder was typed there."""
        self._say("ready", said, trouble=True)
        if typed:
            self._fault(said, "folder")

    def _do_open(self) -> None:
        opened, desk, state = self._asked, self.desk, self.state
        if opened is None or self._training_is_on("SAE that is shown"):
            return
        if desk.model is None:
            raise ValueError("there is no language model to show this SAE on")
        self._offer()  # whatever waited for a word waits no more
        sae, model = opened.sae, desk.model
        elsewhere = mismatch(sae, model.name, state.layer, state.hook_name)
        if sae.d_in != model.d_in:
            self._refuse(self._other_width(opened), typed=opened.typed)
            return
        place, bos = place_for(sae, model.n_layer, state.layer, state.hook_name), state.prepend_bos
        if mismatch(sae, model.name, *place) is None:
            told, elsewhere = sae.metadata.get("prepend_bos"), None
            bos = told if isinstance(told, bool) and (model.bos_id is not None or not told) else bos
            self.publisher.post(layer=place[0], hook_name=place[1], prepend_bos=bos)
            self.publisher.flush()  # the form says where it reads before it is read there
        elif not opened.anyway:
            self._ask(opened, str(elsewhere))
            return
        if not self._read_where_the_form_says():
            self._refuse(f"{self._status.message} The SAE was not loaded.", typed=opened.typed)
            return
        made = f", though trained on {trained_on(sae)}" if elsewhere else ""
        desk.open(sae, opened.stats, f"{opened.words}, {desk.site_words}{made}", opened.key, anyway=opened.anyway)
        self._show_features()
        if opened.selected is not None:  # another SAE that was shown first may not have had it
            self.publisher.post(selected=opened.selected)
        self._offer()
        self._say("ready", self._what_is_shown())

    def _ask(self, opened: Opened, elsewhere: str) -> None:
        self._offer("load_anyway", "keep")
        self._waiting = opened
        words = f"{elsewhere[:1].upper()}{ended(elsewhere[1:])} What is shown is kept"
        said = f"{words}; Load anyway (in Python: anyway=True) shows it, but its features may mean nothing here."
        self._refuse(said, typed=opened.typed)

    def _other_width(self, opened: Opened) -> str:
        model = self.desk.model
        assert model is not None
        made = trained_on(opened.sae)
        on = f" of {made}" if made else ""
        return (
            f"{opened.words[:1].upper()}{opened.words[1:]} reads {opened.sae.d_in:,} dimensions{on}, {model.label} has "
            f"{model.d_in:,}: it cannot be shown there. What is shown is kept; choose its model first, then show it."
        )

    def _do_load_anyway(self) -> None:
        if self._waiting is None:
            self._say(self._status.phase, "No SAE is waiting to be loaded.")
            return
        self._asked = replace(self._waiting, anyway=True)
        self._do_open()

    def _do_keep(self) -> None:
        if self._waiting is None:
            self._say(self._status.phase, "No SAE is waiting to be loaded.")
            return
        self._offer()
        self._say("ready", f"The other SAE was not loaded. {self._what_is_shown()}")

    def _do_follow(self) -> None:
        self._withdraw()
        super()._do_follow()

    def _do_statistics(self) -> None:
        """Take the statistics of an SAE that came without; whatever a person asks for comes first."""
        shown = self.desk.shown
        if shown is None or shown.stats is not None:
            return
        if self._job is not None:
            self._postponed.add("statistics")
            return
        pieces = self.desk.take_statistics(*self._examples())
        try:
            if not self._aside("statistics", "Counting what its features do.", pieces):
                return
        except (ValueError, OSError) as fault:
            self.desk.drop_corpus()
            self._fault(f"There are no statistics of this SAE: {ended(fault)}", "health")
            return
        self._show_features()

    def _do_corpus(self) -> None:
        """Look in another corpus for what the last one did not give, and for nothing else."""
        if self._job is not None:
            self._postponed.add("corpus")
            return
        shown = self.desk.shown
        if "card" in self._faults:
            self._look_for_examples()
        if shown is not None and shown.stats is None:
            with self._cond:
                self._dirty["statistics"] = time.monotonic()
        if shown is not None and self._unread:
            self._look_at_predictions()

    def _do_fidelity(self) -> None:
        """Find out what the language model loses with the SAE on show; whatever a person asks for comes first."""
        state, self._unread = self.state, False
        if self._job is not None:
            self._postponed.add("fidelity")
            return
        pieces = self.desk.look_at_predictions(state.corpus, state.corpus_tokens, state.text)
        try:
            if not self._aside("fidelity", "Measuring what the model loses with it.", pieces):
                return
        except (ValueError, OSError) as fault:
            self.desk.drop_corpus()
            self._unread = True
            self.publisher.post(fidelity=None, unmeasured=str(fault))
            return
        self._show_predictions()

    def _aside(self, what: str, words: str, pieces: Iterator[int]) -> bool:
        """Do pieces of work that nobody has asked for, with words about them; whether that came to its end."""
        said, told = self._status, False
        try:
            for _ in pieces:
                if not told:
                    self._say(said.phase, f"{said.message} {words}", trouble=said.trouble)
                told = True
                with self._cond:
                    if self._poked or self._next():
                        self._dirty.setdefault(what, time.monotonic() + DEBOUNCE)
                        return False
        finally:
            if told:
                self._say(said.phase, said.message, trouble=said.trouble)
        return True

    def _show_features(self) -> None:
        super()._show_features()
        shown = self.desk.shown
        if shown is not None and shown.stats is None:
            with self._cond:
                self._dirty["statistics"] = time.monotonic()
            return
        self._fault("", "health")
        if shown is not None and not shown.ships and self.desk.predictions is None:
            self._look_at_predictions()

    def _examples(self) -> tuple[str, int, str]:
        """The corpus from which examples and statistics are taken, as ``Desk.read_training_data`` wants it."""
        state = self.state
        return state.corpus if state.corpus != "text" else "documentation", state.corpus_tokens, state.text

    def _read_where_the_form_says(self) -> bool:
        """Whether the place of the form is the one on the desk, which it is not when a reading failed: read again."""
        desk, state = self.desk, self.state

        def same() -> bool:
            return (desk.layer, desk.hook_name, desk.prepend_bos) == (state.layer, state.hook_name, state.prepend_bos)

        if not same():
            self._turn("read")
        return same()

    def _saved_here(self) -> list[SavedRun]:
        """Automatically saved runs of this model and read point, the newest first."""
        keys = ("model_name", "layer", "hook_name")
        return [run for run in saved_runs() if tuple(run.info.get(key) for key in keys) == self.desk.site]

    def _what_is_shown(self) -> str:
        desk, shown = self.desk, self.desk.shown
        if shown is None:
            return f"No SAE for {desk.site_words} yet: press Train to make one."
        words = f"Showing {shown.source}: {shown.sae.d_sae:,} features. Click one, or press Train to make your own."
        length = 0 if desk.prompt is None else int(desk.prompt.position.max()) + 1
        notes = reading_notes(shown.sae, prepend_bos=desk.prepend_bos, length=length)
        return f"{words} {notes}".rstrip()

    def _fail(self, fault: Exception) -> None:
        trained = self._job is not None
        super()._fail(fault)
        if trained:
            self._offer()

    def _offer(self, *more: str) -> None:
        """Say which further buttons make sense now."""
        loads, desk = self._loading is not None, self.desk
        offers = [*(["cancel"] if loads else ["retry"] if self._unreached else []), *more]
        if "load_anyway" not in offers:
            self._waiting = None
            self._fault("", "folder")
            free = not loads and self._job is None and desk.model is not None
            if free and (not desk.can_continue or desk.opened):
                runs = self._saved_here()
                if runs and (desk.shown is None or desk.shown.key != runs[0].path.name):
                    offers.append("restore")
        self._offered = tuple(offers)
        self.publisher.post(offers=self._offered)

    def _withdraw(self) -> None:
        """Offer no more what a training that begins replaces."""
        self._waiting = None
        self._fault("", "folder")
        self._offered = tuple(offer for offer in self._offered if offer not in REPLACED)
        self.publisher.post(offers=self._offered)
