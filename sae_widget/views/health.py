"""Whether the SAE is any good: four numbers with a word each, further facts, and how often features fire."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, ClassVar

import ipywidgets as W
import numpy as np
from traitlets import Int, List, Unicode

from sae_widget.config import ARCHITECTURES
from sae_widget.views.base import read_static
from sae_widget.views.measures import Numbers, frequency_bars, health_cards, health_facts
from sae_widget.views.pane import Pane
from sae_widget.views.selection import GuardedWidget

if TYPE_CHECKING:
    from sae_widget.activations.base import Activations
    from sae_widget.sae.base import SAE
    from sae_widget.state import ExplorerState
    from sae_widget.training import History

HELD_OUT = "validation_explained_variance"
NOTHING_YET = "No SAE yet: its numbers show as soon as one is read or trained."


class HealthCards(GuardedWidget):
    """The cards in the page."""

    _esm = read_static("dom.js", "health.js")
    cards = List().tag(sync=True)
    facts = List(help="[label, value, what it means]").tag(sync=True)
    bars = List(help="[words, number of features]: how often features fire").tag(sync=True)
    empty = Unicode().tag(sync=True)
    draws = Int(0).tag(sync=True)


class HealthRow(Pane):
    """L0, explained variance with and without position 0, dead features; facts; the frequency histogram."""

    name = "health"
    question = "Is it any good?"
    reads = (
        *("features", "history", "history_tick", "status", "activations", "settings"),
        *("fidelity", "unmeasured", "faults"),
    )
    pace: ClassVar[dict[str, float]] = {"history_tick": 0.5, "status": 0.5}
    counts_in_head = False

    def build_content(self) -> list[W.Widget]:
        """The row of cards."""
        self.row = HealthCards()
        self._share_of: Any = None
        return [self.row]

    def draw_content(self) -> None:
        """Make the cards anew from the running training, or from the SAE that is shown."""
        numbers = current_numbers(self.state)
        share = self._first_share(self.state.activations)
        cards = [] if numbers is None else health_cards(numbers, share)
        stats = self.state.features.stats if self.state.features is not None else None
        with self.row.hold_sync():
            self.row.facts = [] if numbers is None else health_facts(numbers, *self._fidelity())
            self.row.bars = frequency_bars(stats.frequency) if stats is not None else []
            self.row.cards = [asdict(card) for card in cards]
            self.row.empty = "" if cards else NOTHING_YET
            self.row.draws = self.draws
        self.head.note = "" if numbers is None else numbers.where

    def urgent(self, change: Any) -> bool:
        """A status matters here when its phase changes."""
        return change.name == "status" and change.old.phase != change.new.phase

    def _fidelity(self) -> tuple[Any, str]:
        """That of the SAE that is shown, or why there is none; it says nothing of one that is being trained."""
        return (None, "") if runs(self.state) else (self.state.fidelity, self.state.unmeasured)

    def _first_share(self, activations: Activations | None) -> float:
        if self._share_of is not activations or activations is None:
            self._share_of, self._share = activations, first_token_share(activations)
        return self._share


def runs(state: ExplorerState) -> bool:
    """Whether a training is under way."""
    return state.status.phase in ("training", "paused", "stopping")


def current_numbers(state: ExplorerState) -> Numbers | None:
    """The numbers of the running training, otherwise those of the SAE that is shown; None without either."""
    features, running = state.features, runs(state)
    its_own = features is not None and features.key == state.history_of
    history = state.history if running or its_own else None
    stats = features.stats if features is not None else None
    if history is not None and len(history) and (running or stats is None):
        last, config = history.last, history.config or state.settings
        assert last is not None
        return Numbers(
            last.explained_variance,
            last.explained_variance_with_first,
            last.l0,
            last.dead,
            config.d_sae,
            "on the latest batch",
            target_l0=0.0 if "k" in ARCHITECTURES[config.architecture] else config.target_l0,
            validation=held_out(history),
        )
    if stats is None or features is None:
        return None
    return Numbers(
        stats.explained_variance,
        stats.explained_variance_with_first,
        stats.l0,
        int(stats.dead.sum()),
        features.sae.d_sae,
        f"{features.source}, on {stats.n_tokens:,} tokens",
        target_l0=aimed_at(features.sae),
        validation=held_out(history),
        bias=float(getattr(stats, "relative_reconstruction_bias", math.nan)),
    )


def aimed_at(sae: SAE) -> float:
    """The L0 that the training of an SAE steered to; 0 when none is noted in its file, or its kind has a ``k``."""
    noted: Any = sae.metadata
    for key in ("training", "settings", "target_l0"):
        noted = noted.get(key) if isinstance(noted, dict) else None
    known = isinstance(noted, (int, float)) and math.isfinite(noted) and noted > 0
    return float(noted) if known and "k" not in ARCHITECTURES.get(sae.architecture, ()) else 0.0


def held_out(history: History | None) -> float:
    """The last explained variance on text that is not trained on; nan where it was never measured."""
    if history is None or not hasattr(history.last, HELD_OUT):
        return math.nan
    found = history.series(("step", HELD_OUT))[HELD_OUT]
    finite = found[np.isfinite(found)]
    return float(finite[-1]) if len(finite) else math.nan


def first_token_share(activations: Activations | None) -> float:
    """Share of the squared norm of a text's activations that its first positions hold; nan if not known."""
    if activations is None or activations.n_tokens == 0:
        return math.nan
    squared = activations.values.square().sum(1)  # [n_tokens]
    total = float(squared.sum())
    return float(squared[activations.position == 0].sum()) / total if total > 0 else math.nan
