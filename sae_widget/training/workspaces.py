"""Which training rule belongs to which architecture."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sae_widget.training.batchtopk import BatchTopKWorkspace, MatryoshkaWorkspace
from sae_widget.training.gated import GatedWorkspace
from sae_widget.training.jumprelu import JumpReLUWorkspace
from sae_widget.training.products import wants_bfloat16
from sae_widget.training.small import SmallReLUWorkspace, SmallTopKWorkspace, SmallWorkspace

if TYPE_CHECKING:
    from sae_widget.config import TrainConfig
    from sae_widget.training.gradients import Workspace

RULES: dict[str, type[Workspace]] = {
    "standard": SmallReLUWorkspace,
    "topk": SmallTopKWorkspace,
    "batchtopk": BatchTopKWorkspace,
    "matryoshka_batchtopk": MatryoshkaWorkspace,
    "jumprelu": JumpReLUWorkspace,
    "gated": GatedWorkspace,
}
"""Architectures with a rule of their own; any other is trained by its ``fire``."""


def workspace(d_in: int, batch_size: int, config: TrainConfig, center_input: bool, device: str = "cpu") -> Workspace:
    """Parameters and buffers for these settings.

    Args:
        d_in: width of the activations.
        batch_size: rows in a step.
        config: the settings.
        center_input: encode ``x - b_dec``.
        device: where everything is.

    Raises:
        ValueError: an architecture that cannot be trained.
    """
    rule = RULES.get(config.architecture, SmallWorkspace)
    bfloat16 = wants_bfloat16(config, d_in, batch_size, device)
    return rule(d_in, config.d_sae, batch_size, config, center_input, bfloat16=bfloat16, device=device)
