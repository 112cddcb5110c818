"""By which of two ways to the same result a TopK step goes: over the pairs that fire, or over whole matrices."""

from __future__ import annotations

LEAST = 12_000_000  # multiplications that have to be saved in a step: what the calls of a step over pairs cost
SORTED = 2048  # features, up to which more of them make the sorting of rows slower


def saved_by_pairs(n: int, d_in: int, d_sae: int, k: int) -> float:
    """How many multiplications of a product a step over pairs saves, about; negative where it costs more.

    Fitted to the times of both ways in float32 at 728 sizes, d_in 16 to 768, d_sae and n 64 to 16,384: by it
    a step takes 0.6 % longer than by the faster way. Whole matrices cost their products and the sorting of rows, a pair
    the sums over its rows and its own place in the order.

    Args:
        n: rows of a batch.
        d_in: width of the activations.
        d_sae: number of features.
        k: features that fire on a row.
    """
    return n * ((d_in + min(d_sae, SORTED) / 32) * d_sae - 7 * k * (d_in + 128))


def over_pairs(n: int, d_in: int, d_sae: int, k: int) -> bool:
    """Whether a step of this size takes the pairs; the arguments are those of ``saved_by_pairs``."""
    return saved_by_pairs(n, d_in, d_sae, k) >= LEAST
