"""Dead features that start again from the tokens that are reconstructed worst."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from sae_widget.training.base import Moments
    from sae_widget.training.gradients import Workspace

ENCODER_SHARE = 0.2  # of the mean norm of the live features' encoder rows


def resample(work: Workspace, moments: Moments, dead: torch.Tensor, seed: int) -> None:
    """Give each dead feature the direction of a token, drawn with probability in proportion to its squared loss.

    Its decoder row becomes that ``x - b_dec`` at norm 1, its encoder row the same at 0.2 times the mean norm of the
    live ones, its bias 0, what else its kind has as in a new SAE, and its
    Adam moments 0 (Bricken et al. 2023, appendix "neuron resampling",
    https://transformer-circuits.pub/2023/monosemantic-features).

    Args:
        work: of the last step, with its ``target`` and ``error``, of which only the proportions count.
        moments: Adam's.
        dead: ``[n_dead]`` numbers of features.
        seed: of the draw.
    """
    chance = work.error.square().sum(1).double().square_()  # [batch], whose squares float32 may not hold
    if not len(dead) or not float(chance.sum()) > 0:
        return
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.multinomial(chance.cpu(), len(dead), replacement=True, generator=generator).to(chance.device)
    rows = work.target[chosen]  # [n_dead, d_in]
    rows = rows / torch.linalg.vector_norm(rows, dim=1, keepdim=True).clamp_min(1e-12)
    alive = torch.ones(work.d_sae, dtype=torch.bool, device=dead.device)
    alive[dead] = False
    norms = torch.linalg.vector_norm(work.params.W_enc[alive], dim=1)
    p = work.params
    p.W_dec[dead] = rows
    p.W_enc[dead] = rows * (ENCODER_SHARE * float(norms.mean()) if len(norms) else 1.0)
    p.b_enc[dead] = 0.0
    for name, vector in p.extra.items():
        vector[dead] = work.starts_at.get(name, 0.0)
    for moment in moments:
        for tensor in (moment.W_dec, moment.W_enc, moment.b_enc, *moment.extra.values()):
            tensor[dead] = 0.0
