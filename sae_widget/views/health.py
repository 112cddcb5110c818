"""Whether the SAE is any good: four numbers, each with a word, its definition and what to try."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import ipywidgets as W
from traitlets import Int, List, Unicode

from sae_widget.views.base import read_static
from sae_widget.views.pane import Pane
from sae_widget.views.selection import GuardedWidget

if TYPE_CHECKING:
    from sae_widget.activations.base import Activations
    from sae_widget.state import ExplorerState

EV_FINE = 0.6
"""Published SAEs of GPT-2 small keep 0.61 to 0.82 of the variance; below that much is missing."""
EV_BROKEN = 0.0
"""At zero the mean activation alone would reconstruct as well."""
FIRST_TOKEN_FLATTERS = 0.15
"""Position 0 can hold most of the variance: a gap this wide tells of one token, not of the features."""
L0_FINE = 0.1
"""Share of the features on at once; where known features were recovered, it stayed below this."""
L0_BROKEN = 0.3
"""With more than this share on at once the runs reconstructed everything and found nothing."""
DEAD_FINE = 0.1
"""A tenth of the features lost is usual and harmless."""
DEAD_BROKEN = 0.5
"""With half of the features gone the SAE is less wide than asked for, and training has gone wrong."""
WORDS = ("fine", "look", "broken", "unknown")
NOTHING_YET = "No SAE yet: its numbers show as soon as one is read or trained."


@dataclass(frozen=True)
class Numbers:
    """What the cards are made from; nan where a number is not known."""

    explained_variance: float
    explained_variance_with_first: float
    l0: float
    dead: int
    d_sae: int
    where: str  # on what it was measured, in words


@dataclass(frozen=True)
class Card:
    """One number of the row."""

    key: str
    title: str
    number: str
    word: str  # one of WORDS
    means: str  # the definition, the rule and what to try


class HealthCards(GuardedWidget):
    """The cards in the page."""

    _esm = read_static("dom.js", "health.js")
    cards = List().tag(sync=True)
    empty = Unicode().tag(sync=True)
    draws = Int(0).tag(sync=True)


class HealthRow(Pane):
    """Explained variance with and without position 0, L0 and dead features: number, word, what to do."""

    name = "health"
    question = "Is it any good?"
    reads = ("features", "history", "history_tick", "status", "activations", "settings", "faults")
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
        with self.row.hold_sync():
            self.row.cards = [asdict(card) for card in cards]
            self.row.empty = "" if cards else NOTHING_YET
            self.row.draws = self.draws
        self.head.note = "" if numbers is None else numbers.where

    def urgent(self, change: Any) -> bool:
        """A status matters here when its phase changes."""
        return change.name == "status" and change.old.phase != change.new.phase

    def _first_share(self, activations: Activations | None) -> float:
        if self._share_of is not activations or activations is None:
            self._share_of, self._share = activations, first_token_share(activations)
        return self._share


def current_numbers(state: ExplorerState) -> Numbers | None:
    """The numbers of the running training, otherwise those of the SAE that is shown; None without either."""
    history, features = state.history, state.features
    running = state.status.phase in ("training", "paused", "stopping")
    stats = features.stats if features is not None else None
    if history is not None and len(history) and (running or stats is None):
        last = history.last
        return Numbers(
            last.explained_variance,
            last.explained_variance_with_first,
            last.l0,
            last.dead,
            state.settings.d_sae if features is None else features.sae.d_sae,
            "on the latest batch",
        )
    if stats is None:
        return None
    return Numbers(
        stats.explained_variance,
        stats.explained_variance_with_first,
        stats.l0,
        int(stats.dead.sum()),
        features.sae.d_sae,
        f"{features.source}, on {stats.n_tokens:,} tokens",
    )


def first_token_share(activations: Activations | None) -> float:
    """Share of the squared norm of a text's activations that its first positions hold; nan if not known."""
    if activations is None or activations.n_tokens == 0:
        return math.nan
    squared = activations.values.square().sum(1)  # [n_tokens]
    total = float(squared.sum())
    return float(squared[activations.position == 0].sum()) / total if total > 0 else math.nan


def health_cards(numbers: Numbers, first_share: float = math.nan) -> tuple[Card, ...]:
    """The four cards.

    Args:
        numbers: what was measured.
        first_share: of the squared norm of the text, what position 0 holds; nan leaves the sentence out.
    """
    return (_variance(numbers), _variance_with_first(numbers, first_share), _l0(numbers), _dead(numbers))


def _variance(numbers: Numbers) -> Card:
    value = numbers.explained_variance
    return Card(
        "explained_variance",
        "Explained variance",
        _decimal(value),
        _word(value, value >= EV_FINE, value < EV_BROKEN),
        "Share of the activations' variance that the reconstruction keeps, position 0 left out; 1 is perfect "
        f"and 0 no better than the mean. Fine from {EV_FINE:g}, broken below {EV_BROKEN:g}. "
        "Try: more steps, more features, a weaker penalty or a larger k.",
    )


def _variance_with_first(numbers: Numbers, first_share: float) -> Card:
    value = numbers.explained_variance_with_first
    flattered = value - numbers.explained_variance > FIRST_TOKEN_FLATTERS
    word = _word(value, value >= EV_FINE and not flattered, value < EV_BROKEN)
    warning = " The first token flatters it here: go by the number without it." if flattered else ""
    if not math.isnan(first_share):
        warning += f" In this text position 0 holds {first_share:.0%} of the squared norm."
    return Card(
        "explained_variance_with_first",
        "… with position 0",
        _decimal(value),
        word,
        "The same with the first position of each window, whose activation is often a hundred times larger "
        f"than any other.{warning} Look when it is more than {FIRST_TOKEN_FLATTERS:g} above the number without. "
        "Try: leave position 0 out of training.",
    )


def _l0(numbers: Numbers) -> Card:
    value, share = numbers.l0, numbers.l0 / max(1, numbers.d_sae)
    return Card(
        "l0",
        "L0 (features on)",
        "–" if math.isnan(value) else f"{value:,.1f}",
        _word(value, value >= 1 and share <= L0_FINE, share > L0_BROKEN or value <= 0),
        f"How many of the {numbers.d_sae:,} features fire on a token, on average. Fine from 1 up to "
        f"{L0_FINE:.0%} of them, broken above {L0_BROKEN:.0%}: then nothing is taken apart. "
        "Try: a stronger penalty or a smaller k when it is high, the reverse when it is below 1.",
    )


def _dead(numbers: Numbers) -> Card:
    share = numbers.dead / max(1, numbers.d_sae)
    return Card(
        "dead",
        "Dead features",
        f"{numbers.dead:,} of {numbers.d_sae:,}",
        _word(share, share <= DEAD_FINE, share > DEAD_BROKEN),
        "Features that never fired on the tokens that were looked at; they take room and explain nothing. "
        f"Fine up to {DEAD_FINE:.0%}, broken above {DEAD_BROKEN:.0%}. "
        "Try: a lower learning rate, a weaker penalty, centred activations, or fewer features.",
    )


def _word(value: float, fine: bool, broken: bool) -> str:
    if math.isnan(value):
        return "unknown"
    return "broken" if broken else "fine" if fine else "look"


def _decimal(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.2f}".replace("-", "−")
