"""The matrix products of a training step, in float32 or, where it was measured to be faster, in bfloat16.

In bfloat16 the weights stay float32 (``Flat``); what goes into a product is rounded, sums inside a product are
float32, and its result is rounded once. Explained variance and L0 at the end are those of float32 to the third
digit (``benchmarks/bench_quality.py``).
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch

from sae_widget.training.base import first
from sae_widget.training.faster import seconds_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from sae_widget.config import TrainConfig
    from sae_widget.training.base import Flat

FASTER = 1.5  # times as fast as float32: below that the roundings are not worth it
SMALLEST = 2**24  # multiplications of a product: smaller ones lose to the conversions
COUNTED = 2**18  # numbers of which those above zero are counted by their bits; fewer are by torch
COUNTED_ROWS = 128  # at a time: what is counted on them fits into a byte
BITS = {torch.bfloat16: torch.int16, torch.float32: torch.int32}
"""Positive floating-point numbers are in the order of their bits as integers, and all others are below 0 or NaN."""


@lru_cache(maxsize=4)
def bfloat16_is_fast(device: str = "cpu") -> bool:
    """Whether this processor multiplies bfloat16 matrices much faster than float32 ones, measured once (20 ms)."""

    def product(dtype: torch.dtype) -> Callable[[], object]:
        a, b, out = (torch.ones(*shape, dtype=dtype, device=device) for shape in ((256, 512), (1024, 512), (256, 1024)))
        return lambda: torch.mm(a, b.t(), out=out)[0, 0].item()  # a GPU's product has been done only then

    in_float32, in_bfloat16 = seconds_of(product(torch.float32), product(torch.bfloat16))
    return in_float32 > FASTER * in_bfloat16


def rows_above_zero(acts: torch.Tensor) -> torch.Tensor:
    """On how many rows each column of ``[n, d_sae]`` is above zero, float32 ``[d_sae]``; on the CPU."""
    bits, total = acts.view(BITS[acts.dtype]).numpy(), np.zeros(acts.shape[1], np.int64)
    above, some = np.empty((COUNTED_ROWS, acts.shape[1]), bool), np.empty(acts.shape[1], np.uint8)
    for start in range(0, len(bits), COUNTED_ROWS):
        part = bits[start : start + COUNTED_ROWS]
        fires = np.greater(part, 0, out=above[: len(part)]).view(np.uint8)
        total += np.add.reduce(fires, axis=0, dtype=np.uint8, out=some)
    return torch.from_numpy(total).float()


def wants_bfloat16(config: TrainConfig, d_in: int, batch_size: int, device: str = "cpu") -> bool:
    """Whether a run of this size takes bfloat16 products."""
    if config.precision != "auto":
        return config.precision == "bfloat16"
    return batch_size * d_in * config.d_sae >= SMALLEST and bfloat16_is_fast(device)


class Float32:
    """The products over a ``Flat``'s matrices as they are.

    Args:
        params: the weights.
        batch_size: most rows of an input.
    """

    dtype = torch.float32

    def __init__(self, params: Flat, batch_size: int) -> None:
        self.p = params
        self._encoder, self._decoder = params.W_enc.t(), params.W_dec.t()
        self._ones = params.vector.new_ones(batch_size)

    def rounded(self, rows: torch.Tensor) -> torch.Tensor:
        """These ``[n, d_in]`` as the products take them; good until the next call."""
        return rows

    def encode(self, u: torch.Tensor, out: torch.Tensor) -> None:
        """``u @ W_enc + b_enc`` of ``rounded`` rows ``[n, d_in]``, into ``[n, d_sae]``."""
        torch.addmm(self.p.b_enc, u, self._encoder, out=out)

    def decode(self, acts: torch.Tensor, target: torch.Tensor, out: torch.Tensor) -> None:
        """``acts @ W_dec - target``, into float32 ``[n, d_in]``."""
        torch.addmm(target, acts, self.p.W_dec, beta=-1, out=out)

    def back(self, grad_out: torch.Tensor, out: torch.Tensor) -> None:
        """``grad_out @ W_dec.T`` of ``rounded`` rows with the weights of the last ``decode``, into ``[n, d_sae]``."""
        torch.mm(grad_out, self._decoder, out=out)

    def outer(self, left: torch.Tensor, right: torch.Tensor, out: torch.Tensor) -> None:
        """``left.T @ right`` of ``[n, d_sae]`` and ``rounded`` ``[n, d_in]``, into float32 ``[d_sae, d_in]``."""
        torch.mm(left.t(), right, out=out)

    def count(self, acts: torch.Tensor, scratch: torch.Tensor) -> torch.Tensor:
        """On how many rows each column is above zero, float32 ``[d_sae]``, exactly; ``acts`` has none below."""
        if acts.device.type == "cpu" and acts.numel() >= COUNTED:
            return rows_above_zero(acts)
        return torch.mv(torch.sign(acts, out=scratch).t(), first(self._ones, acts.shape[0]))

    def columns(self, wide: torch.Tensor, out: torch.Tensor) -> None:
        """The sums over the rows of ``[n, d_sae]``, into float32 ``[d_sae]``."""
        torch.sum(wide, 0, out=out)

    def total(self, acts: torch.Tensor) -> float:
        """The sum of all numbers."""
        return float(acts.sum())


class BFloat16(Float32):
    """The same products in bfloat16; the buffers of ``[n, d_sae]`` are bfloat16 as well."""

    dtype = torch.bfloat16
    _exact = 256  # whole numbers up to this are exact in bfloat16

    def __init__(self, params: Flat, batch_size: int) -> None:
        super().__init__(params, batch_size)
        self._W_enc, self._W_dec = (torch.empty_like(params.W_dec, dtype=self.dtype) for _ in range(2))
        self._b_enc = torch.empty_like(params.b_enc, dtype=self.dtype)
        d_in = params.W_dec.shape[1]
        self._inputs = [self._W_enc.new_empty(batch_size, d_in) for _ in range(2)]
        self._out = self._W_enc.new_empty(batch_size, d_in)
        self._row_of_ones = self._W_enc.new_ones(1, batch_size)
        self._weights: torch.Tensor | None = None  # [d_sae, d_in], made when a dense gradient is wanted

    def rounded(self, rows: torch.Tensor) -> torch.Tensor:
        """A bfloat16 copy."""
        self._inputs.reverse()  # the one before is still in use: encoder's input, gradient of the output
        return self._inputs[0][: len(rows)].copy_(rows)

    def encode(self, u: torch.Tensor, out: torch.Tensor) -> None:
        """``u @ W_enc + b_enc``."""
        torch.addmm(self._b_enc.copy_(self.p.b_enc), u, self._W_enc.copy_(self.p.W_enc).t(), out=out)

    def decode(self, acts: torch.Tensor, target: torch.Tensor, out: torch.Tensor) -> None:
        """``acts @ W_dec - target``."""
        torch.mm(acts, self._W_dec.copy_(self.p.W_dec), out=self._out[: len(acts)])
        torch.sub(self._out[: len(acts)], target, out=out)

    def back(self, grad_out: torch.Tensor, out: torch.Tensor) -> None:
        """``grad_out @ W_dec.T``."""
        torch.mm(grad_out, self._W_dec.t(), out=out)

    def outer(self, left: torch.Tensor, right: torch.Tensor, out: torch.Tensor) -> None:
        """``left.T @ right``."""
        if self._weights is None:
            self._weights = torch.empty_like(self._W_enc)
        out.copy_(torch.mm(left.t(), right, out=self._weights))

    def count(self, acts: torch.Tensor, scratch: torch.Tensor) -> torch.Tensor:
        """On how many rows each column is above zero, from sums of at most 256 ones."""
        if acts.device.type == "cpu" and acts.numel() >= COUNTED:
            return rows_above_zero(acts)
        signs, whole = torch.sign(acts, out=scratch), len(acts) // self._exact
        parts = signs[: whole * self._exact].view(whole, self._exact, acts.shape[1])  # [whole, 256, d_sae]
        ones = acts.new_ones(whole, 1, self._exact)
        counted = torch.bmm(ones, parts).float().sum((0, 1)) if whole else self.p.vector.new_zeros(acts.shape[1])
        rest = signs[whole * self._exact :]
        return counted + (acts.new_ones(1, len(rest)) @ rest)[0] if len(rest) else counted

    def columns(self, wide: torch.Tensor, out: torch.Tensor) -> None:
        """The sums over the rows; as a product, which is the fastest way through them."""
        out.copy_(self._sums(wide))

    def total(self, acts: torch.Tensor) -> float:
        """The sum of all numbers, one rounding a column."""
        return float(self._sums(acts).sum(dtype=torch.float32))  # the roundings average out

    def _sums(self, wide: torch.Tensor) -> torch.Tensor:
        return torch.mm(self._row_of_ones[:, : len(wide)], wide)[0]
