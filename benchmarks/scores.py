"""How good a dictionary is on tokens that it was not trained on, with one measure for everybody."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch.nn.functional import normalize

from sae_widget.metrics import explained_variance

if TYPE_CHECKING:
    from benchmarks.contestants import Trained


class Score(NamedTuple):
    """Explained variance, features on a token, and mean best cosine with the true directions (nan: not known)."""

    variance: float
    l0: float
    mmcs: float


@torch.no_grad()
def score(trained: Trained, held: torch.Tensor, true: torch.Tensor | None) -> Score:
    """Scores on ``held [n, d_in]``, in the units that the dictionary was trained in."""
    acts = trained.encode(held)  # [n, d_sae]
    mmcs = math.nan
    if true is not None:
        mmcs = float((true @ normalize(trained.directions, dim=1).T).max(dim=1).values.mean())
    return Score(explained_variance(held, trained.decode(acts)), float((acts != 0).sum()) / len(held), mmcs)


def at_l0(scores: list[Score], l0: float) -> Score:
    """Between the two scores of a sweep whose L0 lie around ``l0`` (or next to it), linear in log L0."""
    if len(scores) == 1:
        return scores[0]
    ordered = sorted(scores, key=lambda one: one.l0)
    at = next((i for i, one in enumerate(ordered[1:-1], 1) if one.l0 >= l0), len(ordered) - 1)
    low, high = ordered[at - 1], ordered[at]
    share = (math.log(l0) - math.log(low.l0)) / max(1e-9, math.log(high.l0) - math.log(low.l0))
    between = [a + share * (b - a) for a, b in zip(low, high, strict=True)]
    return Score(between[0], l0, between[2])
