"""Quick trainings for the tests of the runner, and ways to wait for them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

from sae_widget.config import TrainConfig

QUICK = TrainConfig(architecture="topk", d_sae=48, k=4, steps=60, batch_size=64, seed=1)
ENDLESS = QUICK.changed(steps=100_000)
TEXT = "It was the best of times, it was the worst of times."


def until(condition: Callable[[], Any], seconds: float = 20.0) -> None:
    """Wait for a condition, not for ever."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


def weights(sae: Any) -> torch.Tensor:
    """All weights of an SAE in one vector."""
    return torch.cat([sae.W_enc.flatten(), sae.b_enc, sae.W_dec.flatten(), sae.b_dec])


def train(runner: Any) -> None:
    """Train to the end."""
    runner.command("train")
    assert runner.wait(60)


def begin(state: Any, runner: Any, step: int = 5) -> None:
    """Start a training and wait until it is on its way."""
    runner.command("train")
    until(lambda: state.status.phase == "training" and state.status.step > step)
