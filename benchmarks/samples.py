"""What the benchmarks train on: activations made of known directions, and those of the bundled model."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch.nn.functional import embedding_bag, normalize

from sae_widget.toy import ToyConfig, toy_data

PER_TOKEN = 20  # directions that make up one token of ``sparse_combinations``


class Sample(NamedTuple):
    """Activations ``[n, d_in]``, the place ``[n]`` of each row in its window, the true directions if they are known."""

    values: torch.Tensor
    position: torch.Tensor
    true: torch.Tensor | None = None

    def without_first(self) -> torch.Tensor:
        """The rows behind position 0: what every contestant is given. ``[n_kept, d_in]``."""
        return self.values[self.position != 0]


def sparse_combinations(n: int, d_in: int, n_true: int = 2048, seed: int = 0) -> Sample:
    """Non-negative combinations of random directions, a few to a token; the mean norm is sqrt(d_in).

    The data of the measured speeds in the design notes. Windows have 128 tokens, none of them an outlier. The seed is
    of the tokens; the directions are always the same.
    """
    true = normalize(torch.randn(n_true, d_in, generator=torch.Generator().manual_seed(0)), dim=1)
    g = torch.Generator().manual_seed(1_000_003 + seed)
    which = torch.randint(n_true, (n, PER_TOKEN), generator=g)
    strength = torch.rand(n, PER_TOKEN, generator=g)
    values = embedding_bag(which, true, per_sample_weights=strength, mode="sum")
    values *= math.sqrt(d_in) / float(values[:4096].norm(dim=1).mean())
    return Sample(values, torch.arange(n) % 128, true)


def planted(n: int = 20_000) -> Sample:
    """The data of the widget's first toy: 64 directions in 32 dimensions, each on 5 % of the time."""
    return _known(ToyConfig(), n)


def ladder(n: int) -> Sample:
    """The repair ladder's: 128 directions in 64 dimensions, 2 % on, a common mean, an outlier in front of a window."""
    return _known(ToyConfig.ladder(), n)


def _known(config: ToyConfig, n: int) -> Sample:
    made = toy_data(config, n)
    return Sample(made.values, made.position, made.directions)


def bundled_activations(n: int, layer: int = 4) -> Sample:
    """Activations of the bundled model in front of a block, on the documentation that comes with Python."""
    from sae_widget.activations import corpus_texts, load_model
    from sae_widget.data import concatenate, pieces, read_corpus

    texts = pieces(corpus_texts("documentation"))
    parts = read_corpus(load_model("bundled"), texts, layer, "resid_pre", prepend_bos=True, max_tokens=n)
    found = concatenate(list(parts))
    return Sample(found.values, found.position)
