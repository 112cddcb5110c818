"""Weighted sums of rows: bags of torch's, or products of MKL's with a sparse matrix where that was measured faster.

Both add in the order of the pairs. Which is faster is a matter of the processor: on one kind the bags are three times
faster, on another the products twice.
"""

from __future__ import annotations

import warnings
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING

import torch

from sae_widget.training.faster import seconds_of

if TYPE_CHECKING:
    from collections.abc import Callable

CHUNK_FLOATS = 2**21  # of sums in bags at a time: larger temporaries are mapped anew each time, page by page
FASTER = 1.1  # times: products must be, where both are there
COSTS = 7.0  # times as much as one sum: everything that is done with a pair


def weighted_sums(
    rows: torch.Tensor,
    index: torch.Tensor,
    starts: torch.Tensor,
    weight: torch.Tensor,
    out: torch.Tensor,
    *,
    multiply: bool,
) -> torch.Tensor:
    """``out[i] = sum_j weight[j] * rows[index[j]]`` over the j from ``starts[i]`` to before ``starts[i + 1]``.

    Args:
        rows: ``[n_rows, d]`` float32.
        index: ``[n_pairs]`` int64, into ``rows``.
        starts: ``[n_out + 1]`` int64, rising from 0 to ``n_pairs``.
        weight: ``[n_pairs]`` float32.
        out: ``[n_out, d]`` float32, overwritten and returned.
        multiply: by a product with a sparse matrix; else by bags.
    """
    if multiply:
        matrix = torch.sparse_csr_tensor(starts, index, weight, (len(out), len(rows)), check_invariants=False)
        return torch.addmm(out, matrix, rows, beta=0, out=out)
    some = max(1, CHUNK_FLOATS // rows.shape[1])
    edges = [*starts[:-1:some].tolist(), len(index)]
    for at, (begin, end) in enumerate(pairwise(edges)):
        part = slice(at * some, (at + 1) * some)
        own = starts[:-1][part] - begin
        bags = torch.embedding_bag(rows, index[begin:end], own, False, 0, False, weight[begin:end])
        out[part].copy_(bags[0])
    return out


@lru_cache(maxsize=4)
def multiplying_is_fast(device: str = "cpu") -> bool:
    """Whether products are faster than bags, measured once (20 ms)."""
    if not can_multiply(device):
        return False
    products, bags = seconds_of(_tried(multiply=True)[0], _tried(multiply=False)[0])
    return FASTER * products < bags


def _tried(*, multiply: bool) -> tuple[Callable[[], object], int]:
    """Sums to measure, and of how many pairs."""
    g = torch.Generator().manual_seed(0)
    rows, out = torch.empty(2, 2048, 512, dtype=torch.float32).normal_(generator=g)
    index = torch.randint(2048, (2048 * 16,), generator=g)
    weight = torch.ones_like(index, dtype=torch.float32)
    starts = torch.arange(0, len(index) + 1, 16)
    return lambda: weighted_sums(rows, index, starts, weight, out, multiply=multiply), len(index)


@lru_cache(maxsize=4)
def share_that_pays(dtype: torch.dtype, device: str = "cpu") -> float:
    """Of which share of all pairs (token, feature) their sums cost what whole matrices do, measured once (40 ms).

    A step over pairs has sums in place of four of its five products. With the sampled product, and with finding and
    sorting the pairs, it takes seven times as long as one of these sums.

    Args:
        dtype: of the products.
        device: 0 is returned for any but the CPU.
    """
    if device != "cpu":
        return 0.0
    left, right, out = (torch.ones(*shape, dtype=dtype) for shape in ((512, 512), (512, 1024), (512, 1024)))
    sums, n_pairs = _tried(multiply=multiplying_is_fast())
    product, one = seconds_of(lambda: torch.mm(left, right, out=out), sums)
    return (4 * product / out.numel()) / (COSTS * one / n_pairs)


@lru_cache(maxsize=4)
def can_multiply(device: str = "cpu") -> bool:
    """Whether this build of torch has products, tried once; a run that goes on here may be from one that has them."""
    if device != "cpu":
        return False
    index, weight = torch.arange(2), torch.ones(2, dtype=torch.float32)
    rows, out = torch.eye(2, dtype=torch.float32), torch.empty(2, 2, dtype=torch.float32)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch says once that these are in beta
            weighted_sums(rows, index, torch.arange(3), weight, out, multiply=True)
    except RuntimeError:
        return False
    return torch.equal(out, rows)
