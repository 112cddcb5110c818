"""How many torch threads a step takes: by measurement, since small products are tens of times slower with two."""

from __future__ import annotations

from functools import lru_cache

import torch

from sae_widget.threads import using
from sae_widget.training.faster import seconds_of

SMALL = 2**22  # multiplications of a product: below, threads wait for each other longer than they compute
LARGEST = 2**27  # what is measured; larger ones gain as much
FASTER = 1.15  # so much faster several threads must be; at the largest size, where they share more than products, 1


def threads_for(batch_size: int, d_in: int, d_sae: int) -> int:
    """Threads for products of this size: the calling thread's number, or one where that was measured to be faster.

    Args:
        batch_size: rows of a step.
        d_in: width of the activations.
        d_sae: number of features.
    """
    most, size = torch.get_num_threads(), batch_size * d_in * d_sae
    if most == 1 or size < SMALL:
        return 1
    return most if _several_are_faster(most, min(size, LARGEST).bit_length()) else 1


@lru_cache(maxsize=64)
def _several_are_faster(count: int, bits: int) -> bool:
    """Whether ``count`` threads multiply ``2^(bits - 1)`` pairs of numbers faster than one."""
    rows = max(16, 2 ** (bits - 1) // (256 * 512))
    shapes = (rows, 256), (256, 512), (rows, 512)
    left, right, out = (torch.ones(shape, dtype=torch.float32) for shape in shapes)

    def product(threads: int) -> None:
        with using(threads):
            torch.mm(left, right, out=out)

    one, several = seconds_of(lambda: product(1), lambda: product(count))
    return one > (FASTER if bits < LARGEST.bit_length() else 1.0) * several
