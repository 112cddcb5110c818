"""Data with known answers, recipes, and ways to compare runs."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
import torch._dynamo  # torch.optim imports it at its first use, and that changes warning filters

from sae_widget import ways
from sae_widget.config import TrainConfig
from sae_widget.training import Trainer, TrainStep, rare

SMALL: dict[str, Any] = {"d_sae": 20, "k": 3, "steps": 400, "batch_size": 16}
RECIPES = {
    "topk": TrainConfig(**SMALL),
    "standard": TrainConfig(architecture="standard", **SMALL),
    "all rows": TrainConfig(architecture="standard", **(SMALL | {"batch_size": 0})),
    "tutorial": TrainConfig.original_tutorial(steps=400, d_sae=20),
}
every_recipe = pytest.mark.parametrize("recipe", sorted(RECIPES))


def over_pairs(monkeypatch: pytest.MonkeyPatch, always: bool = True) -> None:
    """Steps of every size go over the pairs that fire, or none does."""
    monkeypatch.setattr(rare, "SMALLEST", 0 if always else 2**40)
    monkeypatch.setattr(ways, "LEAST", -math.inf if always else math.inf)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def planted(n: int = 20_000, n_true: int = 64, d_in: int = 32, p: float = 0.05) -> tuple[torch.Tensor, torch.Tensor]:
    """Unit directions, each on with probability ``p`` and strength U(0, 1) (FACTS of superposition)."""
    g = generator(11)
    true = torch.nn.functional.normalize(torch.randn(n_true, d_in, generator=g), dim=1)
    strength = torch.rand(n, n_true, generator=g) * (torch.rand(n, n_true, generator=g) < p)
    return strength @ true, true


def ladder(n: int = 20_000, n_true: int = 128, d_in: int = 64) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Known features as in a language model: 2% on with strength 1 to 4, a common mean, an outlier at position 0.

    Returns values ``[n, d_in]``, position ``[n]`` in windows of 14, and the true directions ``[n_true, d_in]``.
    """
    g = generator(12)
    true = torch.nn.functional.normalize(torch.randn(n_true, d_in, generator=g), dim=1)
    strength = (1 + 3 * torch.rand(n, n_true, generator=g)) * (torch.rand(n, n_true, generator=g) < 0.02)
    mean, first = torch.nn.functional.normalize(torch.randn(2, d_in, generator=g), dim=1)
    values, position = strength @ true + 6 * mean, torch.arange(n) % 14
    values[position == 0] = 233 * first
    return values, position, true


def recovery(W_dec: torch.Tensor, true: torch.Tensor) -> tuple[float, int]:
    """Mean over the true directions of the best cosine with a decoder row, and how many are above 0.9."""
    best = (true @ torch.nn.functional.normalize(W_dec, dim=1).T).max(dim=1).values
    return float(best.mean()), int((best > 0.9).sum())


def small_data(n: int = 100, d_in: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    values = torch.randn(n, 5, generator=generator(3)).relu() @ torch.randn(5, d_in, generator=generator(4))
    values = values + 0.1 * torch.randn(n, d_in, generator=generator(5))
    position = torch.arange(n) % 10
    values[position == 0] *= 30
    return values, position


def finish(trainer: Trainer) -> list[TrainStep]:
    return list(trainer.run())


def untimed(records: list[TrainStep]) -> list[str]:
    """Records to compare: ``nan`` equal to itself, the speed left out."""
    return [repr(dataclasses.replace(r, tokens_per_second=0.0)) for r in records]


def same_state(a: Trainer, b: Trainer) -> bool:
    first, second = a.state_dict(), b.state_dict()
    first.pop("with_first"), second.pop("with_first")
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)
