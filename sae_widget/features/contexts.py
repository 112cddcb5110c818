"""What is known of one feature: where it fires most, and which others point the same way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from sae_widget.features.base import chunks

if TYPE_CHECKING:
    from sae_widget.activations.base import Activations
    from sae_widget.sae.base import SAE


@dataclass(frozen=True)
class Context:
    """Some tokens around a firing of a feature."""

    labels: tuple[str, ...]
    acts: tuple[float, ...]
    centre: int  # index of the token in question


@dataclass(frozen=True)
class FeatureCardData:
    """What is known of one feature beyond the statistics."""

    feature: int
    contexts: tuple[Context, ...] | None  # the texts on which it fires most; None: there was none to look in
    neighbours: tuple[tuple[int, float], ...]  # (feature, cosine of decoder directions), nearest first
    version: int  # of the Features it was made from
    key: str = ""  # and their SAE's


def top_contexts(
    sae: SAE, activations: Activations, feature: int, *, n_contexts: int = 8, before: int = 8, after: int = 4
) -> tuple[Context, ...]:
    """The places of a corpus where a feature fires most, at most one per stretch of text.

    Args:
        sae: the SAE.
        activations: of the corpus.
        feature: its number.
        n_contexts: how many places.
        before: tokens shown in front of the place.
        after: tokens shown behind it.

    Returns:
        The places, the strongest first; fewer than ``n_contexts`` where it fires at fewer, none for a dead feature.

    Raises:
        TypeError: ``feature`` is not a whole number.
        ValueError: the SAE has no such feature, or the activations have another width.
    """
    sae.check_feature(feature)
    sae.check_input(activations.values)
    values, width = activations.values, 64 if sae.elementwise else sae.d_sae
    with torch.no_grad():
        acts = torch.cat([sae.encode_one(values[rows], feature) for rows in chunks(len(values), width)])
    acts = torch.where(activations.position > 0, acts, torch.zeros_like(acts))
    group = activations.text_index * 10**7 + torch.cumsum((activations.position == 0).long(), 0)
    visible = activations.spans[:, 1] > activations.spans[:, 0]
    places = ((acts > 0) & visible).nonzero()[:, 0]
    shown: list[Context] = []
    taken: list[int] = []
    for at in places[acts[places].argsort(descending=True, stable=True)].tolist():
        if len(shown) >= n_contexts:
            break
        if any(abs(at - other) <= max(before, after) and group[at] == group[other] for other in taken):
            continue
        low, high = max(0, at - before), min(len(acts), at + after + 1)
        inside = [i for i in range(low, high) if group[i] == group[at] and visible[i]]
        labels = tuple(activations.labels[i] for i in inside)
        shown.append(Context(labels, tuple(round(float(acts[i]), 4) for i in inside), inside.index(at)))
        taken.append(at)
    return tuple(shown)


def neighbours(sae: SAE, feature: int, n_neighbours: int = 5) -> tuple[tuple[int, float], ...]:
    """The features whose decoder directions are nearest to one's, by cosine, itself left out."""
    sae.check_feature(feature)
    rows = sae.W_dec.to(torch.promote_types(torch.float32, sae.W_dec.dtype))
    rows = rows / rows.norm(dim=1, keepdim=True).clamp_min(1e-12)  # [d_sae, d_in]
    cosine = rows @ rows[feature]
    cosine[feature] = -2.0
    top = cosine.topk(min(n_neighbours, sae.d_sae - 1))
    return tuple((int(i), float(c)) for i, c in zip(top.indices, top.values, strict=True))
