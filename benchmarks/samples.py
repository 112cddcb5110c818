"""What the benchmarks train on: activations made of known directions, and those of the bundled model."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch.nn.functional import embedding_bag, normalize

PER_TOKEN = 20  # directions that make up one token of ``sparse_combinations``


class Sample(NamedTuple):
    """Activations ``[n, d_in]``, the place ``[n]`` of each row in its window, the true directions where they are known."""

    values: torch.Tensor
    position: torch.Tensor
    true: torch.Tensor | None = None

    def without_first(self) -> torch.Tensor:
        """The rows behind position 0: what every contestant is given. ``[n_kept, d_in]``."""
        return self.values[self.position != 0]


def sparse_combinations(n: int, d_in: int, n_true: int = 2048, seed: int = 0) -> Sample:
    """Non-negative combinations of random directions, a few to a token; the mean norm is sqrt(d_in).

    The data of the measured speeds in the design notes. Windows have 128 tokens, none of them an outlier.
    """
    g = torch.Generator().manual_seed(seed)
    true = normalize(torch.randn(n_true, d_in, generator=g), dim=1)
    which = torch.randint(n_true, (n, PER_TOKEN), generator=g)
    strength = torch.rand(n, PER_TOKEN, generator=g)
    values = embedding_bag(which, true, per_sample_weights=strength, mode="sum")
    values *= math.sqrt(d_in) / float(values[:4096].norm(dim=1).mean())
    return Sample(values, torch.arange(n) % 128, true)


def planted(n: int = 20_000, n_true: int = 64, d_in: int = 32, share: float = 0.05) -> Sample:
    """Unit directions, each on with probability ``share`` and strength U(0, 1), no window's first token apart."""
    g = torch.Generator().manual_seed(11)
    true = normalize(torch.randn(n_true, d_in, generator=g), dim=1)
    strength = torch.rand(n, n_true, generator=g) * (torch.rand(n, n_true, generator=g) < share)
    return Sample(strength @ true, 1 + torch.arange(n) % 127, true)


def ladder(n: int, seed: int = 12) -> Sample:
    """The repair ladder's data: 128 directions in 64 dimensions, 2 % on, a common mean, an outlier in front."""
    g = torch.Generator().manual_seed(seed)
    n_true, d_in = 128, 64
    true = normalize(torch.randn(n_true, d_in, generator=g), dim=1)
    strength = (1 + 3 * torch.rand(n, n_true, generator=g)) * (torch.rand(n, n_true, generator=g) < 0.02)
    mean, first = normalize(torch.randn(2, d_in, generator=g), dim=1)
    values, position = strength @ true + 6 * mean, torch.arange(n) % 14
    values[position == 0] = 233 * first
    return Sample(values, position, true)


def bundled_activations(n: int, layer: int = 4) -> Sample:
    """Activations of the bundled model in front of a block, on the documentation that comes with Python."""
    from sae_widget.activations import corpus_texts, load_model
    from sae_widget.data import concatenate, pieces, read_corpus

    texts = pieces(corpus_texts("documentation"))
    parts = read_corpus(load_model("bundled"), texts, layer, "resid_pre", prepend_bos=True, max_tokens=n)
    found = concatenate(list(parts))
    return Sample(found.values, found.position)
