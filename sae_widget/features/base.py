"""What the features of an SAE do: statistics over many tokens, and activations on one text."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch

from sae_widget.metrics import spread, variance_share

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sae_widget.activations.base import Activations
    from sae_widget.sae.base import SAE

MAX_PER_TOKEN = 512
"""Strongest features kept for one token of the text; an untrained ReLU SAE fires thousands."""
DENSE = 0.1
"""Share of tokens above which a feature tells nothing of a text; 1 to 4 per cent of the bundled features are above."""
ENOUGH_TOKENS = 1_000
"""With fewer tokens a share says nothing: in one sentence every feature that fires is dense."""
FEW_FEATURES = 64
"""So many are seen at one glance: none of them needs to be hidden."""
CHUNK = 4_000_000
"""Feature activations computed at a time (16 MB of float32)."""


@dataclass(frozen=True, eq=False)
class FeatureStats:
    """What each feature did over many tokens (position 0 left out where it was left out of training).

    ``frequency`` is the share of tokens on which a feature fires, ``mean`` and ``max`` are of its activation;
    a feature is ``dead`` when it never fired on the ``n_tokens``. ``l0`` is the mean number of features that
    fire on a token. ``explained_variance`` leaves position 0 out, ``explained_variance_with_first`` does not.
    """

    frequency: np.ndarray  # [d_sae] float32, 0 to 1
    mean: np.ndarray  # [d_sae] float32
    max: np.ndarray  # [d_sae] float32
    dead: np.ndarray  # [d_sae] bool
    n_tokens: int
    l0: float
    explained_variance: float
    explained_variance_with_first: float

    def tensors(self) -> dict[str, torch.Tensor]:
        """All fields as tensors, to be stored beside the SAE."""
        return {
            "frequency": torch.from_numpy(self.frequency),
            "mean": torch.from_numpy(self.mean),
            "max": torch.from_numpy(self.max),
            "numbers": torch.tensor(
                [self.n_tokens, self.l0, self.explained_variance, self.explained_variance_with_first],
                dtype=torch.float32,
            ),
        }

    @classmethod
    def from_tensors(cls, tensors: dict[str, torch.Tensor]) -> FeatureStats:
        """The inverse of ``tensors``."""
        frequency, mean, largest = (tensors[k].float().numpy() for k in ("frequency", "mean", "max"))
        n_tokens, l0, ev, ev_first = (float(v) for v in tensors["numbers"])
        return cls(frequency, mean, largest, frequency == 0, int(n_tokens), l0, ev, ev_first)

    def __repr__(self) -> str:
        shares = f"explained variance {self.explained_variance:.3f}, l0 {self.l0:.1f}, {int(self.dead.sum()):,} dead"
        return f"FeatureStats({len(self.dead):,} features on {self.n_tokens:,} tokens: {shares})"


@dataclass(frozen=True, eq=False)
class PromptFeatures:
    """Which features fire on each token of one text, sparse, one row a token, the strongest first.

    Row ``i`` is ``ids[indptr[i]:indptr[i + 1]]`` with ``acts`` alike. ``mean`` and ``max`` are over the tokens
    that count (``counted``): the start token and a left-out position 0 do not.
    """

    activations: Activations
    indptr: np.ndarray  # [n_tokens + 1] uint32
    ids: np.ndarray  # [n_firings] uint32
    acts: np.ndarray  # [n_firings] float32
    mean: np.ndarray  # [d_sae] float32
    max: np.ndarray  # [d_sae] float32
    strongest: np.ndarray  # [n_tokens] int32, -1 where nothing fires
    counted: np.ndarray  # [n_tokens] bool

    def of_token(self, token: int) -> tuple[np.ndarray, np.ndarray]:
        """Features that fire on one token and their activations, the strongest first."""
        here = slice(int(self.indptr[token]), int(self.indptr[token + 1]))
        return self.ids[here], self.acts[here]

    def of_feature(self, feature: int) -> np.ndarray:
        """Activation of one feature on every token. ``[n_tokens]`` float32."""
        found = np.flatnonzero(self.ids == feature)
        out = np.zeros(len(self.indptr) - 1, dtype=np.float32)
        out[np.searchsorted(self.indptr, found, side="right") - 1] = self.acts[found]
        return out

    def __repr__(self) -> str:
        return f"PromptFeatures({len(self.strongest):,} tokens, {len(self.mean):,} features, {len(self.ids):,} firings)"


@dataclass(frozen=True, eq=False)
class Features:
    """One SAE and what it does, made together, so that no view can see halves that do not fit."""

    sae: SAE
    stats: FeatureStats | None
    prompt: PromptFeatures | None
    source: str  # in words: "the bundled SAE, after block 4", "your SAE, step 500"
    version: int  # rises with every change
    key: str = ""  # which SAE it is: the same through its whole training, another for every other

    @cached_property
    def dense(self) -> np.ndarray:
        """Which features fire on more than ``DENSE`` of all tokens, and so can be hidden. ``[d_sae]`` bool.

        None where that is not known or not the exception: without statistics over ``ENOUGH_TOKENS``, with no
        more than ``FEW_FEATURES``, or when more than half of them would go.
        """
        stats = self.stats
        if stats is None or stats.n_tokens < ENOUGH_TOKENS or self.sae.d_sae <= FEW_FEATURES:
            return np.zeros(self.sae.d_sae, dtype=bool)
        dense = stats.frequency > DENSE
        return dense if dense.mean() <= 0.5 else np.zeros_like(dense)

    def __repr__(self) -> str:
        text = "no text" if self.prompt is None else f"{len(self.prompt.strongest):,} tokens"
        return f"Features({self.sae.d_sae:,} features, {self.source}, {text})"


def feature_stats(sae: SAE, values: torch.Tensor, position: torch.Tensor, *, skip_first: bool = True) -> FeatureStats:
    """Statistics of every feature over many tokens.

    Args:
        sae: the SAE.
        values: activations ``[n_tokens, d_in]``.
        position: place of each token in its window ``[n_tokens]``.
        skip_first: leave position 0 out of everything but ``explained_variance_with_first``.

    Returns:
        Frequency, mean and maximum of each feature, and the SAE's quality on these tokens.

    Raises:
        TypeError: not tensors, or of another dtype than the SAE.
        ValueError: no token, another width than the SAE's, or ``position`` of another length.
    """
    counting = Counting(sae, values, position, skip_first=skip_first)
    for _ in counting.pieces():
        pass
    return counting.stats()


class Counting:
    """The statistics of ``feature_stats``, whose arguments it takes, piece by piece."""

    def __init__(self, sae: SAE, values: torch.Tensor, position: torch.Tensor, *, skip_first: bool = True) -> None:
        sae.check_input(values, position)
        self.sae, self._values = sae, values
        some = skip_first and bool((position > 0).any())
        self._kept = position > 0 if some else torch.ones_like(position, dtype=torch.bool)
        self._left = deque(chunks(len(values), sae.d_sae))
        # whatever the person's default is
        self._fired, self._total, self._largest = (torch.zeros(sae.d_sae, dtype=torch.float32) for _ in range(3))
        self._errors = torch.zeros(len(values), dtype=torch.float32)

    def pieces(self) -> Iterator[int]:
        """Count on from where it was left; yields how many tokens are still to come."""
        while self._left:
            rows = self._left[0]
            with torch.no_grad():
                acts = self.sae.encode(self._values[rows])  # [chunk, d_sae]
                self._errors[rows] = (self._values[rows] - self.sae.decode(acts, self._values[rows])).square().sum(1)
                acts = acts[self._kept[rows]]
                if len(acts):
                    self._fired += (acts > 0).sum(0)
                    self._total += acts.sum(0)
                    self._largest = torch.maximum(self._largest, acts.max(0).values)
            self._left.popleft()
            yield max(0, len(self._values) - rows.stop)

    def stats(self) -> FeatureStats:
        """The statistics, when no piece is left."""
        values, errors, kept = self._values, self._errors, self._kept
        n_kept = int(kept.sum())
        return FeatureStats(
            frequency=(self._fired / n_kept).numpy(),
            mean=(self._total / n_kept).numpy(),
            max=self._largest.numpy(),
            dead=(self._fired == 0).numpy(),
            n_tokens=n_kept,
            l0=float(self._fired.sum() / n_kept),
            explained_variance=variance_share(float(errors[kept].sum()), *spread(values[kept])),
            explained_variance_with_first=variance_share(float(errors.sum()), *spread(values)),
        )


def prompt_features(sae: SAE, activations: Activations, *, skip_first: bool = True) -> PromptFeatures:
    """Which features fire on each token of a text.

    Args:
        sae: the SAE.
        activations: of the text, ``[n_tokens, d_in]`` with their tokens.
        skip_first: leave position 0 of each window out of ``mean`` and ``max``.

    Returns:
        The features that fire on each token, at most ``MAX_PER_TOKEN``, the strongest first.

    Raises:
        ValueError: the activations have another width than the SAE.
    """
    sae.check_input(activations.values)
    ids, acts, lengths = [], [], []
    with torch.no_grad():
        for rows in chunks(activations.n_tokens, sae.d_sae):
            top = sae.encode(activations.values[rows]).topk(min(MAX_PER_TOKEN, sae.d_sae), dim=1)
            firing = top.values > 0
            ids.append(top.indices[firing])
            acts.append(top.values[firing])
            lengths.append(firing.sum(1))
    count = torch.cat(lengths)
    indptr = np.concatenate([[0], count.cumsum(0).numpy()]).astype(np.uint32)
    flat_ids, flat_acts = torch.cat(ids), torch.cat(acts)
    counted = activations.spans[:, 1] > activations.spans[:, 0]
    if skip_first and bool((counted & (activations.position > 0)).any()):
        counted = counted & (activations.position > 0)
    keep = torch.repeat_interleave(counted, count)
    nothing = torch.zeros(sae.d_sae, dtype=torch.float32)
    mean = nothing.index_add(0, flat_ids[keep], flat_acts[keep]) / max(1, int(counted.sum()))
    largest = nothing.scatter_reduce(0, flat_ids[keep], flat_acts[keep], "amax")
    strongest = np.full(len(count), -1, dtype=np.int32)
    some = count.numpy() > 0
    strongest[some] = flat_ids.numpy()[indptr[:-1][some]]
    return PromptFeatures(
        activations=activations,
        indptr=indptr,
        ids=flat_ids.numpy().astype(np.uint32),
        acts=flat_acts.numpy(),
        mean=mean.numpy(),
        max=largest.numpy(),
        strongest=strongest,
        counted=counted.numpy(),
    )


def measured(features: Features, measure: str, token: int | None = None) -> np.ndarray:
    """The height of each feature's bar. ``[d_sae]`` float32.

    Args:
        features: SAE, statistics and text.
        measure: ``mean`` or ``max`` over the text, or ``token``: the activation on one token (the mean
            while no token is chosen). Without a text, the mean or maximum over the corpus.
        token: index of the token for ``token``.
    """
    prompt, stats = features.prompt, features.stats
    if prompt is None:
        if stats is None:
            return np.zeros(features.sae.d_sae, dtype=np.float32)
        return stats.max if measure == "max" else stats.mean
    if measure == "token" and token is not None and 0 <= token < len(prompt.strongest):
        out = np.zeros(features.sae.d_sae, dtype=np.float32)
        ids, acts = prompt.of_token(token)
        out[ids] = acts
        return out
    return prompt.max if measure == "max" else prompt.mean


def order_features(
    features: Features, sort: str, measure: str = "mean", token: int | None = None, *, hide_dense: bool = False
) -> np.ndarray:
    """Feature numbers in the order in which they are shown. ``[d_sae]`` int64, fewer when some are hidden.

    Args:
        features: SAE, statistics and text.
        sort: ``activation`` (the bars' height, then the frequency), ``frequency`` or ``number``; ties go by number.
        measure: as in ``measured``.
        token: as in ``measured``.
        hide_dense: leave out those that are ``features.dense``.
    """
    order = _order_all(features, sort, measure, token)
    return order[~features.dense[order]] if hide_dense else order


def _order_all(features: Features, sort: str, measure: str, token: int | None) -> np.ndarray:
    number = np.arange(features.sae.d_sae)
    if sort == "number":
        return number
    frequency = features.stats.frequency if features.stats is not None else np.zeros(len(number), np.float32)
    if sort == "frequency":
        return np.lexsort((number, -frequency))
    return np.lexsort((number, -frequency, -measured(features, measure, token)))


def chunks(n_rows: int, width: int) -> Iterator[slice]:
    """Slices of ``n_rows`` rows, each of about ``CHUNK`` numbers when a row has ``width`` of them."""
    size = max(1, CHUNK // width)
    for start in range(0, n_rows, size):
        yield slice(start, start + size)
