"""The pairs (token, feature) that fire, and what is computed over them instead of over whole matrices."""

from __future__ import annotations

import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch

from sae_widget.training.largest import chunks
from sae_widget.training.products import BITS

GATHERED = 4096  # pairs at a time, where there is no sampled product


class Pairs(NamedTuple):
    """Which features fire on which tokens, sorted by token."""

    starts: torch.Tensor  # [n + 1] int64, where each token's begin
    feature: torch.Tensor  # [n_pairs] int64
    value: torch.Tensor  # [n_pairs] float32, at least 0


class ByFeature(NamedTuple):
    """The same pairs sorted by feature."""

    order: torch.Tensor  # [n_pairs] int64, into ``Pairs``
    token: torch.Tensor  # [n_pairs] int64
    starts: torch.Tensor  # [d_sae + 1] int64, where each feature's begin


def pairs_where(true: torch.Tensor, values: torch.Tensor) -> Pairs:
    """The pairs that are chosen, each with its value.

    Args:
        true: ``[n, d_sae]`` bool, contiguous, on the CPU.
        values: ``[n, d_sae]`` float32 or bfloat16, likewise.
    """
    n, d_sae = true.shape
    chosen, bits, parts = true.numpy(), values.view(BITS[values.dtype]).numpy(), chunks(n, d_sae)

    def look(part: slice) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        first_of = np.arange(part.stop - part.start + 1) * d_sae
        found = np.flatnonzero(chosen[part])
        counts = np.diff(np.searchsorted(found, first_of))
        value = bits[part].reshape(-1)[found]
        found -= np.repeat(first_of[:-1], counts)
        return counts, found, value

    with ThreadPoolExecutor(min(torch.get_num_threads(), len(parts))) as helpers:  # numpy lets them work side by side
        counts, feature, value = (np.concatenate(found) for found in zip(*helpers.map(look, parts), strict=True))
    starts = torch.zeros(n + 1, dtype=torch.int64)
    torch.cumsum(torch.from_numpy(counts), 0, out=starts[1:])
    return Pairs(starts, torch.from_numpy(feature), torch.from_numpy(value).view(values.dtype).float())


def token_of(pairs: Pairs) -> torch.Tensor:
    """The token of each pair. ``[n_pairs]``."""
    counts = pairs.starts[1:] - pairs.starts[:-1]
    return torch.repeat_interleave(
        torch.arange(len(counts), device=counts.device), counts, output_size=len(pairs.feature)
    )


def by_feature(pairs: Pairs, token: torch.Tensor, d_sae: int) -> ByFeature:
    """Sort by feature; tokens stay in order within one."""
    small = pairs.feature.to(torch.int16) if d_sae <= 2**15 else pairs.feature.to(torch.int32)
    order = torch.sort(small, stable=True).indices
    starts = order.new_zeros(d_sae + 1)
    torch.cumsum(torch.bincount(pairs.feature, minlength=d_sae), 0, out=starts[1:])
    return ByFeature(order, token.index_select(0, order), starts)


def sampled(pairs: Pairs, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """``left[token] . right[feature]`` of every pair. ``[n_pairs]``."""
    if not samples():
        token = token_of(pairs).split(GATHERED)
        parts = zip(token, pairs.feature.split(GATHERED), strict=True)
        return torch.cat([(left[t] * right[f]).sum(1) for t, f in parts])
    return _sampled(pairs, left, right)


def _sampled(pairs: Pairs, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    shape = (len(left), len(right))
    zeros = torch.zeros_like(pairs.value)
    at = torch.sparse_csr_tensor(pairs.starts, pairs.feature, zeros, shape, check_invariants=False)
    return torch.sparse.sampled_addmm(at, left, right.t(), beta=0.0).values()


@lru_cache(maxsize=1)
def samples() -> bool:
    """Whether this build of torch has the sampled product, tried on a small case once."""
    left, right = torch.arange(6.0).view(2, 3), torch.arange(12.0).view(4, 3)
    pairs = Pairs(torch.tensor([0, 1, 3]), torch.tensor([2, 0, 3]), torch.ones(3))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch says once that these are in beta
            found = _sampled(pairs, left, right)
    except RuntimeError:  # a build without it
        return False
    return found.tolist() == [23.0, 14.0, 122.0]
