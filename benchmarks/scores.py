"""How good a dictionary is on tokens that it was not trained on, with one measure for everybody."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch

from sae_widget.metrics import explained_variance, l0, mmcs

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.contestants import Trained

MOVES = 4  # of a penalty, by a factor of two each, until the L0 asked for lies between two runs


class Score(NamedTuple):
    """Explained variance, features on a token, and mean max cosine similarity (nan: the truth is not known)."""

    variance: float
    l0: float
    mmcs: float


@torch.no_grad()
def score(trained: Trained, held: torch.Tensor, true: torch.Tensor | None) -> Score:
    """Scores on ``held [n, d_in]``, in the units that the dictionary was trained in."""
    acts = trained.encode(held)  # [n, d_sae]
    found = math.nan if true is None else mmcs(trained.directions, true)
    return Score(explained_variance(held, trained.decode(acts)), l0(acts), found)


def at_l0(train: Callable[[float], Score], penalty: float, wanted: float) -> Score | None:
    """The score of a contestant whose penalty is chosen so that ``wanted`` features fire on a token.

    The penalty moves by factors of two until ``wanted`` lies between two runs; a run in between them follows, and what
    is told is read off between the two nearest, linear in log L0.

    Args:
        train: penalty -> score.
        penalty: the first.
        wanted: the L0.

    Returns:
        The score, or None when no penalty that was tried comes to it.
    """
    last = train(penalty)
    factor = 2.0 if last.l0 > wanted else 0.5
    for _ in range(MOVES):
        penalty *= factor
        now = train(penalty)
        if (now.l0 - wanted) * (last.l0 - wanted) <= 0:
            low, high = sorted((last, now), key=lambda one: one.l0)
            middle = train(penalty / factor * factor ** abs(_share(last, now, wanted)))
            ends = (middle, high) if middle.l0 <= wanted else (low, middle)
            return _between(*ends, wanted) if low.l0 <= middle.l0 <= high.l0 else _between(low, high, wanted)
        last = now
    return None


def _share(one: Score, other: Score, wanted: float) -> float:
    """How far on the way from one score to another ``wanted`` lies, in log L0."""
    way = math.log(max(other.l0, 1e-6)) - math.log(max(one.l0, 1e-6))
    return (math.log(wanted) - math.log(max(one.l0, 1e-6))) / way if way else 0.0


def _between(low: Score, high: Score, wanted: float) -> Score:
    share = _share(low, high, wanted)
    return Score(
        low.variance + share * (high.variance - low.variance), wanted, low.mmcs + share * (high.mmcs - low.mmcs)
    )
