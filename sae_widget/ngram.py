"""An interpolated Kneser-Ney trigram: the baseline that the bundled language model has to beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, eq=False)
class KneserNeyTrigram:
    """Interpolated Kneser-Ney trigram over token ids (Kneser & Ney 1995; Chen & Goodman 1999, eq. 21).

    One discount per order, ``D = n1 / (n1 + 2 n2)``, with ``n1`` and ``n2`` the numbers of n-grams
    seen once and twice. Lower orders use continuation counts (in how many contexts a token was seen).

    Args:
        vocab_size: number of token ids; the lowest order is interpolated with the uniform distribution.
        unigram: ``[vocab_size]`` probabilities of the lowest order.
        bigram / trigram: sorted n-gram keys with their discounted probabilities, and sorted context
            keys with the mass each leaves to the order below.
    """

    vocab_size: int
    unigram: np.ndarray
    bigram: _Order
    trigram: _Order

    @classmethod
    def fit(cls, ids: np.ndarray, vocab_size: int) -> KneserNeyTrigram:
        """Count and discount.

        Args:
            ids: ``[n_tokens]`` integer token ids of the training text, at least three.
            vocab_size: number of token ids, above every id in ``ids``.
        """
        import numpy as np

        ids = np.asarray(ids, dtype=np.int64)
        if ids.ndim != 1 or len(ids) < 3:
            raise ValueError(f"ids must be a vector of at least 3 tokens, got shape {ids.shape}")
        if ids.min() < 0 or ids.max() >= vocab_size:
            raise ValueError(f"ids must lie in [0, {vocab_size}), got {ids.min()} to {ids.max()}")
        v = vocab_size
        trigram_keys, trigram_counts = np.unique((ids[:-2] * v + ids[1:-1]) * v + ids[2:], return_counts=True)
        bigrams = np.unique(ids[:-1] * v + ids[1:])
        # A continuation count is the number of distinct tokens seen in front of an n-gram.
        tail_keys, tail_counts = np.unique(trigram_keys % (v * v), return_counts=True)
        last, last_counts = np.unique(bigrams % v, return_counts=True)
        continuation = np.zeros(v)
        continuation[last] = last_counts
        discount = _discount(last_counts)
        kept = np.maximum(continuation - discount, 0.0)
        total = continuation.sum()
        unigram = kept / total + (1.0 - kept.sum() / total) / v
        return cls(
            vocab_size=v,
            unigram=unigram,
            bigram=_Order.fit(tail_keys, tail_counts, v),
            trigram=_Order.fit(trigram_keys, trigram_counts, v),
        )

    def prob(self, ids: np.ndarray) -> np.ndarray:
        """Probability of each token after its two predecessors.

        Args:
            ids: ``[n_tokens]`` integer token ids.

        Returns:
            ``[n_tokens - 2]`` probabilities of ``ids[2:]``.
        """
        import numpy as np

        ids = np.asarray(ids, dtype=np.int64)
        v = self.vocab_size
        first, second, third = ids[:-2], ids[1:-1], ids[2:]
        lower = self.bigram.mix(second * v + third, second, self.unigram[third])
        return self.trigram.mix((first * v + second) * v + third, first * v + second, lower)

    def perplexity(self, ids: np.ndarray) -> float:
        """``exp`` of the mean negative log-probability of ``ids[2:]``."""
        import numpy as np

        return float(np.exp(-np.log(self.prob(ids)).mean()))


@dataclass(frozen=True, eq=False)
class _Order:
    keys: np.ndarray  # [n_grams], sorted
    probs: np.ndarray  # [n_grams], (count - D) / count of the context
    contexts: np.ndarray  # [n_contexts], sorted
    backoff: np.ndarray  # [n_contexts], the mass left to the order below

    @classmethod
    def fit(cls, keys: np.ndarray, counts: np.ndarray, v: int) -> _Order:
        import numpy as np

        discount = _discount(counts)
        contexts, start, kinds = np.unique(keys // v, return_index=True, return_counts=True)
        totals = np.add.reduceat(counts.astype(np.float64), start)
        probs = np.maximum(counts - discount, 0.0) / np.repeat(totals, kinds)
        return cls(keys, probs, contexts, discount * kinds / totals)

    def mix(self, keys: np.ndarray, contexts: np.ndarray, lower: np.ndarray) -> np.ndarray:
        """Discounted probability plus the mass left over times the lower order's probability."""
        found, here = _look_up(self.keys, keys)
        seen, there = _look_up(self.contexts, contexts)
        return self.probs[here] * found + (self.backoff[there] * seen + ~seen) * lower


def _look_up(table: np.ndarray, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    import numpy as np

    at = np.minimum(np.searchsorted(table, keys), len(table) - 1)
    return table[at] == keys, at


def _discount(counts: np.ndarray) -> float:
    once, twice = int((counts == 1).sum()), int((counts == 2).sum())
    return once / (once + 2 * twice) if once else 0.5
