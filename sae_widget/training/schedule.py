"""How the learning rate and the L1 weight change over a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sae_widget.config import ARCHITECTURES

if TYPE_CHECKING:
    from sae_widget.config import TrainConfig

DECAY_SHARE = 0.2  # of the run in which a linear schedule falls to zero
HALVING_STEPS = 100


def learning_rate(config: TrainConfig, step: int) -> float:
    """Adam's step size at ``step`` (counted from 1); never zero within the planned steps."""
    rate = config.learning_rate
    if config.lr_schedule == "halving":
        rate *= 0.5 ** ((step - 1) // HALVING_STEPS)
    elif config.lr_schedule == "linear":
        left = config.steps - step + 1
        rate *= max(0.0, min(1.0, left / max(1.0, DECAY_SHARE * config.steps)))
    return rate * _rise(step, config.lr_warmup * config.steps)


def l1_weight(config: TrainConfig, step: int) -> float:
    """The L1 coefficient at ``step`` (counted from 1); zero where the architecture does not read it."""
    if "l1_coefficient" not in ARCHITECTURES[config.architecture]:
        return 0.0
    return config.l1_coefficient * _rise(step, config.l1_warmup * config.steps)


def _rise(step: int, steps: float) -> float:
    return min(1.0, step / steps) if steps > 0 else 1.0
