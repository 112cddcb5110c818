"""The measures of an SAE as a person reads them: number, word, definition, rule, and what to try."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from sae_widget.metrics import dead_count, frequency_histogram

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

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
L0_NEAR = 0.2
"""A target counts as reached within this share of it."""
DEAD_FINE = 0.1
"""A tenth of the features lost is usual and harmless."""
DEAD_BROKEN = 0.5
"""With half of the features gone the SAE is less wide than asked for, and training has gone wrong."""
WORDS = ("fine", "look", "broken", "unknown")
LOWEST, BINS_PER_DECADE = -5, 2
"""The histogram begins at one token in 100,000: less is not measured on the tokens that are looked at."""


@dataclass(frozen=True)
class Numbers:
    """What cards and facts are made from; nan where a number is not known."""

    explained_variance: float
    explained_variance_with_first: float
    l0: float
    dead: int
    d_sae: int
    where: str  # on what it was measured, in words
    target_l0: float = 0.0  # what training steers to; 0: nothing
    validation: float = math.nan  # explained variance on text that is not trained on
    bias: float = math.nan  # relative reconstruction bias


@dataclass(frozen=True)
class Card:
    """One number of the row."""

    key: str
    title: str
    number: str
    small: str  # what stands behind the number, in small letters
    word: str  # one of WORDS
    means: str  # the definition, the rule and what to try


def health_cards(numbers: Numbers, first_share: float = math.nan) -> tuple[Card, ...]:
    """The four cards, L0 first: with a wrong one the others look good and the features are mixed.

    Args:
        numbers: what was measured.
        first_share: of the squared norm of the text, what position 0 holds; nan leaves the sentence out.
    """
    return (_l0(numbers), _variance(numbers), _variance_with_first(numbers, first_share), _dead(numbers))


def _l0(numbers: Numbers) -> Card:
    value, share, target = numbers.l0, numbers.l0 / max(1, numbers.d_sae), numbers.target_l0
    reached = not target or abs(value - target) <= L0_NEAR * target
    steered = (
        f"Training steers it to {target:g}; look when it is not within {L0_NEAR:.0%} of that. Try: more steps. "
        if target
        else ""
    )
    return Card(
        "l0",
        "L0 (features on)",
        "–" if math.isnan(value) else f"{value:,.1f}",
        f"→ {target:g}" if target else "",
        _word(value, value >= 1 and share <= L0_FINE and reached, share > L0_BROKEN or value <= 0),
        f"How many of the {numbers.d_sae:,} features fire on a token, the mean of #{{i: activation i > 0}}. "
        "A wrong one mixes features: too many, and one idea is spread over several; too few, and one feature stands "
        f"for several. {steered}Fine from 1 up to {L0_FINE:.0%} of them, broken above {L0_BROKEN:.0%} (nothing is "
        "taken apart) and at 0 (nothing fires). "
        "Try: a stronger penalty or a smaller k when it is high, the reverse when it is below 1.",
    )


def _variance(numbers: Numbers) -> Card:
    value = numbers.explained_variance
    return Card(
        "explained_variance",
        "Explained variance",
        _decimal(value),
        "",
        _word(value, value >= EV_FINE, value < EV_BROKEN),
        "Share of the activations' variance that the reconstruction keeps, position 0 left out: "
        "1 − Σ‖x − sae_out‖² / Σ‖x − mean‖². 1 is perfect "
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
        "",
        word,
        "The same with the first position of each window, whose activation is often a hundred times larger "
        f"than any other.{warning} Look when it is more than {FIRST_TOKEN_FLATTERS:g} above the number without. "
        "Try: leave position 0 out of training.",
    )


def _dead(numbers: Numbers) -> Card:
    share = numbers.dead / max(1, numbers.d_sae)
    return Card(
        "dead",
        "Dead features",
        f"{numbers.dead:,}",
        f"of {numbers.d_sae:,}",
        _word(share, share <= DEAD_FINE, share > DEAD_BROKEN),
        "Features that never fired on the tokens that were looked at: #{i: frequency i = 0}. They take room and "
        f"explain nothing. Fine up to {DEAD_FINE:.0%}, broken above {DEAD_BROKEN:.0%}. "
        "Try: a lower learning rate, a weaker penalty, centred activations, fewer features, or reviving dead ones.",
    )


def health_facts(numbers: Numbers, fidelity: Any = None, unmeasured: str = "") -> tuple[tuple[str, str, str], ...]:
    """What else is measured, ``(label, value, what it means)``; what is not known is left out.

    Args:
        numbers: what was measured.
        fidelity: what the language model loses when it reads the reconstruction (``sae_widget.fidelity``), or None.
        unmeasured: why that cannot be known, as the end of a sentence.
    """
    found = []
    if not math.isnan(numbers.validation):
        means = "Explained variance on text that was kept out of training; far below the other, it learned by heart"
        found.append(("on held-out text", _decimal(numbers.validation), means))
    if not math.isnan(numbers.bias):
        means = (
            "Σ‖sae_out‖² / Σ sae_out · x: 1 is unbiased; below 1 reconstructions are too small, as a penalty makes them"
        )
        found.append(("size kept (1 − shrinkage)", f"{numbers.bias:.0%}", means))
    if fidelity is not None:
        share, other = fidelity.recovered_zero, fidelity.recovered_mean
        means = (
            "How much of the language model's skill is left when it reads the reconstruction: "
            "(CE_zero − CE_sae) / (CE_zero − CE_clean) of the cross-entropy loss, with zero in place of the activation "
            f"as the worst; {_percent(other)} with the mean in its place. It flatters, as zero is very bad: the loss "
            f"rises from {fidelity.ce_clean:.2f} to {fidelity.ce_sae:.2f} (zero: {fidelity.ce_zero:.2f}), measured on "
            f"{fidelity.n_tokens:,} tokens"
        )
        found.append(("CE recovered", _percent(share), means))
        means = (
            "How far the next-token distribution moves: mean over tokens of Σ p log(p / q), in nats; 0 is not at all"
        )
        found.append(("KL", f"{fidelity.kl:.2g}", means))
    elif unmeasured:
        means = "How much of the language model's skill is left when it reads the reconstruction"
        found.append((f"CE recovered and KL are not measured: {unmeasured.rstrip('.')}.", "", means))
    return tuple(found)


def frequency_bars(frequency: ArrayLike) -> list[list[Any]]:
    """How many features fire how often: ``[words, features]``, those that never fire first, then half decades.

    Args:
        frequency: ``[d_sae]`` share of tokens on which each feature fires, 0 to 1; the first bar of those that
            fire holds all that are rarer than its left edge.
    """
    shares = np.asarray(frequency, dtype=np.float64)
    sound = shares[(shares >= 0) & (shares <= 1)]  # a file from anywhere may have others
    if not len(sound):
        return []
    edges, counts, _ = frequency_histogram(sound, -LOWEST * BINS_PER_DECADE, LOWEST)
    words = [f"on {_share(low)} to {_share(high)} of tokens" for low, high in pairwise(edges)]
    return [["never", dead_count(sound)], *([said, int(n)] for said, n in zip(words, counts, strict=True))]


def _share(log10: float) -> str:
    return f"{float(f'{100 * 10**log10:.2g}'):g}%"


def _percent(share: float) -> str:
    return "–" if math.isnan(share) else f"{share:.1%}".replace("-", "−")


def _word(value: float, fine: bool, broken: bool) -> str:
    if math.isnan(value):
        return "unknown"
    return "broken" if broken else "fine" if fine else "look"


def _decimal(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.2f}".replace("-", "−")
