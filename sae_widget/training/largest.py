"""The k largest numbers of each row, through numpy where that was measured to be faster.

torch looks for them row by row with scalar code, and for the places of ``True`` too; numpy sorts and divides with
vector instructions where the processor has them.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import numpy as np
import torch

from sae_widget.training.faster import seconds_of
from sae_widget.training.products import BITS

CHUNK = 2**20  # numbers that are looked at at a time
GROUP = 8  # numbers of which only the largest is looked at first
FEW_GROUPS = 8  # times k: with fewer, all numbers are divided


def chunks(n: int, d_sae: int) -> list[slice]:
    """Rows of ``[n, d_sae]`` that are looked at at a time."""
    rows = max(1, CHUNK // d_sae)
    return [slice(start, min(start + rows, n)) for start in range(0, n, rows)]


def keep_largest(pre: torch.Tensor, k: int, out: torch.Tensor, scratch: torch.Tensor) -> None:
    """The ``k`` largest positive numbers of each row where they stand, 0 elsewhere.

    Args:
        pre: ``[n, d_sae]``.
        k: at most ``d_sae``.
        out: ``[n, d_sae]``, where they are written.
        scratch: ``[n, d_sae]``, overwritten.
    """
    if k == pre.shape[1]:
        torch.clamp_min(pre, 0.0, out=out)
    elif not _by_order(pre, k, out, scratch):
        values, indices = pre.topk(k, dim=-1, sorted=False)
        out.zero_().scatter_(-1, indices, values.clamp_min_(0.0))


def places_of_largest(pre: torch.Tensor, k: int) -> torch.Tensor:
    """Where the ``k`` largest positive numbers of each row are, rising. ``[n_places]`` int64, into the flat ``pre``.

    Of numbers that share the last place, which are many in bfloat16, each row takes others: always the first ones
    would be the same features again and again.

    Args:
        pre: ``[n, d_sae]``, contiguous, bfloat16 or float32 on the CPU.
        k: at most ``d_sae``.
    """
    n, d_sae = pre.shape
    bits, parts = pre.view(BITS[pre.dtype]).numpy(), chunks(n, d_sae)
    threads = min(torch.get_num_threads(), len(parts))
    found: list[np.ndarray] = [np.empty(0, np.int64)] * len(parts)

    def look(first_one: int) -> None:
        divided = Divided(parts[0].stop, d_sae, k, bits.dtype)
        for at in range(first_one, len(parts), threads):
            part = parts[at]
            found[at] = divided.places(bits[part]) + part.start * d_sae

    if threads > 1:  # numpy lets threads work side by side; to start them costs less than a thousandth of a second
        with ThreadPoolExecutor(threads) as helpers:
            list(helpers.map(look, range(threads)))
    else:
        look(0)
    return torch.from_numpy(np.concatenate(found))


def places(true: torch.Tensor) -> torch.Tensor:
    """Where a flat boolean tensor is ``True``, rising. int64."""
    return true.nonzero()[:, 0] if true.is_cuda else torch.from_numpy(np.flatnonzero(true.numpy()))


class Divided:
    """Rows of positive integers divided at their k-th largest, in buffers that are made once.

    In new buffers most of the time would go into memory that is mapped anew, page by page. Of each ``GROUP`` numbers
    of a row the largest is taken, where that leaves enough: the k-th largest of these is no more than the k-th largest
    of all, seldom much less, and found among fewer.

    Args:
        n: most rows.
        d_sae: numbers of a row.
        k: at most ``d_sae``.
        dtype: int16 or int32; what is not above 0 is not looked for.
    """

    def __init__(self, n: int, d_sae: int, k: int, dtype: np.dtype) -> None:
        groups, rest = divmod(d_sae, GROUP)
        self.in_groups = not rest and groups >= FEW_GROUPS * k
        self.k, self.above = k, np.empty((n, d_sae), bool)
        self.some = np.empty((n, groups if self.in_groups else d_sae), dtype)

    def places(self, bits: np.ndarray) -> np.ndarray:
        """Where the k largest of each row are, rising. ``[<= n, d_sae]`` -> flat int64."""
        n, d_sae = bits.shape
        least = self._bound(bits)
        above = np.greater_equal(bits, least[:, None], out=self.above[:n])
        found = np.flatnonzero(above)
        ends = np.searchsorted(found, np.arange(1, n + 1) * d_sae)
        counts = np.diff(ends, prepend=0)
        if not (counts > self.k).any():
            return found
        row, value = np.repeat(np.arange(n), counts), bits.reshape(-1)[found]
        if self.in_groups:
            least = self._exactly(row, value, counts, ends)
        over = value - np.repeat(least, counts)
        keep, last = over >= 0, np.flatnonzero(over == 0)  # the last share the last place of their row
        of, left = row[last], self.k - counts + np.bincount(row[over <= 0], minlength=n)
        sharing = np.bincount(of, minlength=n)
        number = np.arange(len(last)) - (sharing.cumsum() - sharing)[of]  # which of its row's
        keep[last[(number + of) % sharing[of] >= left[of]]] = False
        return found[keep]

    def _bound(self, bits: np.ndarray) -> np.ndarray:
        """The k-th largest of each row or a little less, at least 1."""
        some = self.some[: len(bits)]
        if self.in_groups:  # a group is every so-manieth number: whole vectors are compared
            np.max(bits.reshape(len(bits), GROUP, -1), axis=1, out=some)
        else:
            np.copyto(some, bits)
        at = some.shape[1] - self.k
        some.partition(at, axis=1)
        return np.maximum(some[:, at], 1)

    def _exactly(self, row: np.ndarray, value: np.ndarray, counts: np.ndarray, ends: np.ndarray) -> np.ndarray:
        """The k-th largest of each row from what is not less than its bound; 0 where that is fewer than k numbers."""
        shift = 8 * value.itemsize
        keys = (row << shift) | value
        keys.sort()  # by row, and rising within one
        kth = keys[np.maximum(ends - self.k, 0)] & ((1 << shift) - 1)
        return np.where(counts < self.k, 0, kth).astype(value.dtype)


def _by_order(pre: torch.Tensor, k: int, out: torch.Tensor, scratch: torch.Tensor) -> bool:
    """``keep_largest`` by a sort, unless sorting is not faster or two numbers of a row share the last place."""
    if pre.dtype != torch.float32 or pre.device.type != "cpu" or not sorting_is_fast():
        return False
    scratch.copy_(pre)
    rising = scratch.numpy()
    rising.sort(axis=1)
    least, next_one = rising[:, -k], rising[:, -k - 1]
    bound = np.maximum(next_one, 0.0)
    if not (least > bound).all() and ((least == bound) & (least > 0)).any():
        return False
    above = torch.sub(pre, torch.from_numpy(bound).unsqueeze(1), out=scratch)
    torch.ops.aten.threshold_backward.grad_input(pre, above, 0.0, grad_input=out)
    return True


@lru_cache(maxsize=1)
def sorting_is_fast() -> bool:
    """Whether numpy sorts short rows faster than torch finds their largest, measured once (a millisecond)."""
    rows = torch.randn(128, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float32)
    by_numpy, by_torch = seconds_of(lambda: np.sort(rows.numpy(), axis=1), lambda: rows.topk(4, dim=-1, sorted=False))
    return by_numpy < by_torch


@lru_cache(maxsize=4)
def dividing_is_fast(dtype: torch.dtype, device: str = "cpu") -> bool:
    """Whether numpy divides rows by their k-th largest faster than torch finds these, measured once (10 ms)."""
    if device != "cpu":
        return False
    rows = torch.randn(128, 2048, generator=torch.Generator().manual_seed(0), dtype=torch.float32).to(dtype)
    bits = rows.view(BITS[dtype]).numpy()
    divided = Divided(128, 2048, 32, bits.dtype)
    by_numpy, by_torch = seconds_of(lambda: divided.places(bits), lambda: rows.topk(32, dim=-1, sorted=False))
    return by_numpy < by_torch
