"""How much of the truth an SAE has found, on data whose features are known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from sae_widget import metrics
from sae_widget.sae.normalization import normalized

if TYPE_CHECKING:
    from sae_widget.sae.base import SAE
    from sae_widget.toy.known import ToyData

CHUNK = 4_000_000  # feature activations computed at a time


@dataclass(frozen=True)
class Recovery:
    """All measures of an SAE on data with known features; each is the function of that name in ``metrics``.

    Position 0 is left out of all but ``explained_variance_with_first``. Only features that fire on these tokens
    count as found. ``shrinkage`` compares each true feature with the one nearest to it, in the true strengths' unit.
    """

    mmcs: float
    recovered: int
    n_true: int
    l0: float
    true_l0: float
    explained_variance: float
    explained_variance_with_first: float
    dead: int
    shrinkage: float
    relative_reconstruction_bias: float
    n_tokens: int

    def __str__(self) -> str:
        found = f"{self.recovered} of {self.n_true} found, MMCS {self.mmcs:.3f}"
        return f"{found}, l0 {self.l0:.1f} (true {self.true_l0:.1f}), explained variance {self.explained_variance:.3f}"


def measure_recovery(sae: SAE, data: ToyData) -> Recovery:
    """Compare an SAE with the truth; give held-out data (``data.held_out()``), or it measures memory.

    Args:
        sae: the SAE.
        data: activations with known features, as wide as the SAE, and with at least one token behind position 0.

    Raises:
        ValueError: another width, or only first tokens.
    """
    sae.check_input(data.values, data.position)
    kept = data.position != 0
    if not bool(kept.any()):
        raise ValueError("data must have at least one token behind position 0, got only first ones")
    chunks = torch.arange(len(data.values)).split(max(1, CHUNK // sae.d_sae))
    out, acts = torch.empty_like(data.values), torch.empty_like(data.acts)
    with torch.no_grad():
        counts = [(sae.encode(data.values[rows[kept[rows]]]) > 0).sum(0) for rows in chunks]
        fired = torch.stack(counts).sum(0)  # [d_sae], on how many tokens
        live, n_tokens = fired > 0, int(kept.sum())
        cosine, matched = metrics.best_match(sae.W_dec, data.directions, live)
        true_size = data.directions.norm(dim=1)
        known = (cosine > 0) & (true_size > 0)  # what has no direction, or nobody near it, is not measured
        size = sae.W_dec.norm(dim=1)[matched] / (sae.scale * true_size)  # to the unit of the strengths
        for rows in chunks:
            feature_acts, x = sae.encode(data.values[rows]), data.values[rows]  # [rows, d_sae]
            out[rows] = sae.decode(feature_acts, x)
            acts[rows] = feature_acts[:, matched] * size * normalized(x, sae.normalize_activations)[1].gain
    return Recovery(
        mmcs=metrics.mmcs(sae.W_dec, data.directions, live),
        recovered=metrics.recovered(sae.W_dec, data.directions, live),
        n_true=len(data.directions),
        l0=int(fired.sum()) / n_tokens,
        true_l0=metrics.l0(data.acts[kept]),
        explained_variance=metrics.explained_variance(data.values, out, data.position),
        explained_variance_with_first=metrics.explained_variance(data.values, out),
        dead=int((fired == 0).sum()),
        shrinkage=metrics.shrinkage(data.acts[kept][:, known], acts[kept][:, known]),
        relative_reconstruction_bias=metrics.relative_reconstruction_bias(data.values[kept], out[kept]),
        n_tokens=n_tokens,
    )
