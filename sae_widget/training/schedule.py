"""How the learning rate and the L1 weight change over a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sae_widget.config import ARCHITECTURES

if TYPE_CHECKING:
    from sae_widget.config import TrainConfig

DECAY_SHARE = 0.2  # of the run in which a linear schedule falls to zero
HALVING_STEPS = 100
MOST_HALVINGS = 1000  # a rate halved more often would be 0 to Python


def learning_rate(config: TrainConfig, step: int) -> float:
    """Adam's step size at ``step`` (counted from 1); never zero within the planned steps."""
    rate = config.learning_rate
    if config.lr_schedule == "halving":
        rate *= 0.5 ** min(MOST_HALVINGS, (step - 1) // HALVING_STEPS)
    elif config.lr_schedule == "linear":
        left = config.steps - step + 1
        rate *= max(0.0, min(1.0, left / max(1.0, DECAY_SHARE * config.steps)))
    return rate * _rise(step, config.lr_warmup * config.steps)


def penalty(config: TrainConfig, step: int) -> float:
    """The weight of the sparsity penalty at ``step`` (counted from 1); zero where the architecture has none."""
    own = ARCHITECTURES[config.architecture]
    for name in ("l1_coefficient", "l0_coefficient"):
        if name in own:
            return float(getattr(config, name)) * _rise(step, config.l1_warmup * config.steps)
    return 0.0


def _rise(step: int, steps: float) -> float:
    return min(1.0, step / steps) if steps > 0 else 1.0
