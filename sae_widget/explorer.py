"""``SuperpositionExplorer``: the state, the runner and the views, put together."""

from __future__ import annotations

import operator
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ipywidgets as W

from sae_widget import inputs as inputs_of
from sae_widget.cells import replace_predecessor
from sae_widget.config import MAX_D_SAE, TrainConfig
from sae_widget.inputs import checked_text
from sae_widget.journal import JOURNAL
from sae_widget.layers import LayerKeeper
from sae_widget.names import NameBook
from sae_widget.runner import Runner
from sae_widget.runner.opened import opened_from
from sae_widget.runner.saving import write_shown
from sae_widget.runs import read_explorer, read_run
from sae_widget.state import ExplorerState
from sae_widget.views import VIEWS
from sae_widget.views.arrangement import arrange
from sae_widget.views.card import clean_name
from sae_widget.views.clock import PageClock, is_polled
from sae_widget.views.presets import PRESETS
from sae_widget.views.selection import selection_for
from sae_widget.views.tree import answer_the_page, close_everything

if TYPE_CHECKING:
    from sae_widget.activations.base import Activations, LanguageModel
    from sae_widget.features import Features
    from sae_widget.fidelity import Fidelity
    from sae_widget.sae.base import SAE
    from sae_widget.training import History


class SuperpositionExplorer(W.VBox):
    """Take a language model apart: read a text, train a sparse autoencoder, look at its features.

    Every argument is also a control, and everything on the screen is an attribute.

    Args:
        text: what is read first.
        model: ``"auto"`` (GPT-2 when it is on this machine, else the bundled model), ``"bundled"``, a hub name
            such as ``"gpt2"``, or a local directory.
        layer: block whose ``hook_name`` is read, from 0; by default two thirds of the way up.
        hook_name: ``resid_pre``, ``resid_mid``, ``resid_post``, ``attn_out``, ``mlp_out`` or ``final_norm``.
        prepend_bos: read each window behind the start token.
        corpus: what is trained on: ``"documentation"`` (Python's own), ``"text"``, or a file or folder of texts.
        corpus_tokens: how many tokens of the corpus, 10 to 50,000,000.
        preset: ``"original tutorial"`` starts from that recipe.
        name: explorers of one name replace each other; by default the notebook cell is the name.
        settings: any field of ``TrainConfig``: ``d_sae``, ``architecture``, ``k``, ``l1_coefficient``, ...

    Raises:
        TypeError: for an unknown keyword, naming the nearest known one, or a value of the wrong type.
        ValueError: for a value outside its range, or a corpus or layer that is not there.
    """

    __signature__ = inputs_of.signature()
    _closed = True  # until everything is made

    def __init__(
        self, text: str | None = None, *, preset: str | None = None, name: str | None = None, **given: Any
    ) -> None:
        inputs, settings = inputs_of.split(given)
        if text is not None:
            inputs["text"] = checked_text(text)
        if preset not in (None, "original tutorial"):
            raise ValueError(f"preset must be 'original tutorial' or None, got {preset!r}")
        tutorial = PRESETS[0]
        if preset:
            inputs = {name: value for name, value in tutorial.values.items() if name != "settings"} | inputs
        inputs["settings"] = TrainConfig.original_tutorial(**settings) if preset else TrainConfig(**settings)
        inputs_of.check(inputs, name)
        asked, layer_of = inputs.get("layer"), tutorial.layer if preset else inputs_of.upper_middle
        inputs.setdefault("layer", inputs_of.first_layer(inputs.get("model", "auto"), layer_of))
        replace_predecessor(self, name)
        self.state = ExplorerState(**inputs)
        self._names = NameBook(self.state)
        polled = is_polled()
        self._runner = Runner(self.state, polled=polled, expect=self._names.expect)
        self._closed = False
        super().__init__()
        self.add_class("sae-widget")
        self._views = [view(self.state) for view in VIEWS]
        self.children = arrange({view.name: view.widget for view in self._views})
        if polled:
            clock, publisher = PageClock(), self._runner.publisher
            clock.observe(lambda _change: publisher.flush(), names=["ticks"])
            self.children = [*self.children, clock]
        self.layout.width, self.layout.grid_gap = "100%", "8px"
        answer_the_page(self, *(widget for view in self._views for widget in view.unplaced))
        LayerKeeper(self.state, asked, layer_of)
        self._runner.start()

    # -- what is seen can be had -------------------------------------------------------------------------------

    @property
    def sae(self) -> SAE | None:
        """The SAE that is shown."""
        return None if self.state.features is None else self.state.features.sae

    @property
    def features(self) -> Features | None:
        """The SAE that is shown with its statistics and its activations on the text."""
        return self.state.features

    @property
    def activations(self) -> Activations | None:
        """Activations of the text, ``[n_tokens, d_in]`` in ``.values``."""
        return self.state.activations

    @property
    def history(self) -> History | None:
        """Losses and metrics of the last training."""
        return self.state.history

    @property
    def fidelity(self) -> Fidelity | None:
        """What the language model loses when it reads the output of the SAE that is shown; None until it is measured.

        That is after a training, after ``show``, or when a feature's examples were looked for. Where it cannot be,
        the health row says why.
        """
        return self.state.fidelity

    @property
    def language_model(self) -> LanguageModel | None:
        """The model that is read."""
        return self.state.language_model

    @property
    def status(self) -> str:
        """The status line."""
        return self.state.status.message

    @property
    def log(self) -> str:
        """What went wrong in this kernel, with tracebacks: ``print(explorer.log)``."""
        return JOURNAL.text

    @property
    def settings(self) -> TrainConfig:
        """The recipe of the next training."""
        return self.state.settings

    @property
    def selected_feature(self) -> int | None:
        """Number of the selected feature, None without one; ``ValueError`` for one that the SAE does not have."""
        return self.state.selected

    @selected_feature.setter
    def selected_feature(self, feature: int | None) -> None:
        self.state.selected = None if feature is None else self._checked_feature("selected_feature", feature)

    # -- what a button does, from code ------------------------------------------------------------------------

    def read(self, text: str) -> None:
        """Read another text; ``ValueError`` when it is longer than 200,000 characters."""
        self._open()
        self.state.text = checked_text(text)

    def set(self, **settings: Any) -> None:
        """Change settings, fields of ``TrainConfig``, of the next training, or the live ones of this one."""
        self._open()
        self.state.settings = self.state.settings.changed(**settings)

    def train(self, *, blocking: bool = False) -> None:
        """Train a new SAE; returns at once unless ``blocking``.

        The notebook's square button (an interrupt) ends a cell that waits, not a training in the background:
        that is ended by ``stop`` or the Stop button.
        """
        self._command("train")
        if blocking:
            self.wait()

    def pause(self) -> None:
        """Hold the training; ``resume`` goes on bit for bit."""
        self._command("pause")

    def resume(self) -> None:
        """Go on with a paused, stopped or finished training, or train the SAE that is shown further."""
        self._command("resume")

    def stop(self) -> None:
        """End the training; the SAE is kept."""
        self._command("stop")

    def reset(self) -> None:
        """Go back to the SAE that was there before training; the trained one stays on disk."""
        self._command("reset")

    def restore(self) -> None:
        """Show the last automatically saved SAE of this model and read point."""
        self._command("restore")

    def wait(self, timeout: float | None = None) -> bool:
        """Block until nothing is left to do; False when ``timeout`` seconds were not enough."""
        self._open()
        return self._runner.wait(timeout)

    def name_feature(self, feature: int, name: str) -> None:
        """Give a feature a name; an empty one takes it away.

        Args:
            feature: its number, 0 to ``d_sae - 1`` of the SAE that is shown.
            name: one line is kept of it, at most 80 characters.

        Raises:
            TypeError: a feature that is no whole number, a name that is no string.
            ValueError: a feature that the SAE does not have, or there is no SAE yet.
        """
        self._open()
        feature = self._checked_feature("feature", feature)
        if self.sae is None:
            raise ValueError("there is no SAE yet whose features could be named: train or show one first")
        if not isinstance(name, str):
            raise TypeError(f"name must be a string, got {name!r}")
        name = clean_name(name)
        names = {key: value for key, value in self.state.feature_names.items() if key != feature}
        self.state.feature_names = names | ({feature: name} if name else {})

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write what is shown into a directory: the SAE, its statistics, the text, the recipe and the names.

        Args:
            path: the directory, made when it does not exist.

        Raises:
            ValueError: there is no SAE yet.
            SaeFileError: it could not be written.
        """
        write_shown(self.state, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, anyway: bool = False) -> SuperpositionExplorer:
        """An explorer that shows what ``save`` or ``sae-widget train`` wrote, or an SAE alone, as ``show`` takes it.

        Args:
            path: the directory.
            anyway: show it even when it was trained on another model or place.

        Raises:
            SaeFileError: there is no SAE, or a file is damaged.
        """
        opened = opened_from(path)  # a damaged one is refused here, and not in the status of an explorer without it
        saved = opened.saved
        explorer = cls(**(inputs_of.known_here(saved.inputs) if saved else inputs_of.for_sae(opened.sae)))
        if saved is not None:
            explorer.state.selected = saved.selected if (saved.selected or 0) < opened.sae.d_sae else None
        explorer._runner.open(replace(opened, anyway=anyway, selected=explorer.state.selected))
        return explorer

    def show(self, sae: SAE | str | os.PathLike[str], *, anyway: bool = False) -> None:
        """Show any SAE on the text: a published one, one of another program, one that was made in Python.

        What it says of layer, hook and start token, the form takes over. Position 0 of each window is left out of
        means and statistics. Statistics that do not lie beside it are counted on the corpus, in the background.

        Args:
            sae: what ``load_sae`` or ``load_release`` returned, or a directory that ``load_sae`` reads.
            anyway: show it even when it was trained on another model or place; without, the page asks.

        Raises:
            SaeFileError: there is no SAE in the directory, or a file is damaged.
            TypeError: neither an SAE of float32 nor a path.
            ValueError: weights that are not finite.
            RuntimeError: this explorer is training; it is stopped with ``stop``.
        """
        self._open()
        opened = opened_from(sae)
        self._end_other_work()
        self._runner.open(replace(opened, anyway=anyway))

    def follow(self, path: str | os.PathLike[str]) -> None:
        """Show a training of another process while it goes on, and its result at the end; ``stop`` ends that.

        The place, text and recipe become those of the run, which nothing here changes.

        Args:
            path: the folder that ``sae-widget train`` writes; it is there from the first step on.

        Raises:
            SaeFileError: no training has written there yet, or a file of it is damaged.
            RuntimeError: this explorer is training; it is stopped with ``stop``.
        """
        self._open()
        folder = Path(path)
        read_run(folder)
        saved = read_explorer(folder)
        self._end_other_work()
        inputs_of.take(self.state, saved.inputs)
        self._names.expect(str(folder), saved.names)
        self._runner.follow(folder)

    def close(self) -> None:
        """Stop the threads and free everything; what was trained stays on disk."""
        if self._closed:
            return
        self._closed = True
        self._runner.close()
        for view in self._views:
            view.close()
        self.state.unobserve_all()
        self.unobserve_all()
        children, self.children = self.children, []
        close_everything(*children, self.layout, selection_for(self.state))
        super().close()

    def __repr__(self) -> str:
        place = f"layer={self.state.layer}, hook_name={self.state.hook_name!r}"
        return f"SuperpositionExplorer(model={self.state.model!r}, {place}): {self.status}"

    # -- own affairs --------------------------------------------------------------------------------------------

    def _open(self) -> None:
        if self._closed:
            raise RuntimeError("this explorer is closed: make a new one")

    def _command(self, name: str) -> None:
        self._open()
        self._runner.command(name)

    def _end_other_work(self) -> None:
        if self._runner.trains:
            raise RuntimeError("this explorer is training: stop it first")
        if self._runner.follows:
            self._runner.command("stop")

    def _checked_feature(self, what: str, feature: Any) -> int:
        most = MAX_D_SAE if self.sae is None else self.sae.d_sae
        if isinstance(feature, bool) or not hasattr(feature, "__index__"):
            raise TypeError(f"{what} must be a whole number, got {feature!r}")
        if not 0 <= feature < most:
            raise ValueError(f"{what} must be between 0 and {most - 1}, got {feature}")
        return operator.index(feature)
