"""Synthetic activations made of chosen features, so that what an SAE finds can be compared with what is there."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch

CHUNK = 4_000_000  # strengths drawn at a time


@dataclass(frozen=True)
class ToyConfig:
    """How synthetic activations are made: ``sum of strength_i * direction_i + mean + noise``.

    Raises ``ValueError`` or ``TypeError`` with what is allowed when a field is out of range.
    """

    n_features: int = 64
    """True features."""
    d_in: int = 32
    """Width of the activations."""
    probability: float = 0.05
    """With which each feature is on, independent of the others."""
    low: float = 0.0
    """Least strength of a feature that is on."""
    high: float = 1.0
    """Most; strengths are uniform between the two."""
    orthogonal: bool = False
    """Directions at right angles instead of random ones; no more features than dimensions then."""
    mean_norm: float = 0.0
    """Length of a vector that all activations share."""
    outlier_norm: float = 0.0
    """Length of the first token of every window, the same vector each time but for the noise; 0: like the others."""
    window: int = 0
    """Tokens in a window; 0: there are none, and no token is a first one."""
    noise: float = 0.0
    """Standard deviation of Gaussian noise in each dimension."""
    seed: int = 0
    """Of the directions, the mean and the outlier; the samples have a seed of their own."""

    def __post_init__(self) -> None:
        for name, low in (("n_features", 1), ("d_in", 1), ("window", 0), ("seed", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"{name} must be a whole number, got {value!r}")
            if value < low:
                raise ValueError(f"{name} must be at least {low}, got {value}")
        for name in ("probability", "low", "high", "mean_norm", "outlier_norm", "noise"):
            number: Any = getattr(self, name)
            if isinstance(number, bool) or not isinstance(number, (int, float)):
                raise TypeError(f"{name} must be a number, got {number!r}")
            if not 0 <= number < math.inf:
                raise ValueError(f"{name} must be at least 0, got {number:g}")
        if self.probability > 1:
            raise ValueError(f"probability must be between 0 and 1, got {self.probability:g}")
        if self.high <= self.low:
            raise ValueError(f"high must be above low ({self.low:g}), got {self.high:g}")
        if self.orthogonal and self.n_features > self.d_in:
            raise ValueError(f"at most {self.d_in} directions are at right angles, got n_features {self.n_features}")
        if self.outlier_norm and not self.window:
            raise ValueError("outlier_norm needs a window: the outlier is the first token of each")

    @classmethod
    def ladder(cls, seed: int = 0) -> ToyConfig:
        """The data of the repair ladder: a language model's faults in small.

        128 directions in 64 dimensions, each on 2% of the time with strength 1 to 4, a common mean of norm 6, the
        first token of every 14 an outlier of norm 233.
        """
        return cls(
            n_features=128,
            d_in=64,
            probability=0.02,
            low=1.0,
            high=4.0,
            mean_norm=6.0,
            outlier_norm=233.0,
            window=14,
            seed=seed,
        )


@dataclass(frozen=True, eq=False)
class ToyData:
    """Synthetic activations and the truth about them.

    Args:
        config: how they were made.
        values: ``[n_tokens, d_in]`` float32.
        position: ``[n_tokens]`` int64, place in its window; 1 everywhere without windows.
        directions: ``[n_features, d_in]``, of norm 1 unless they were given.
        acts: ``[n_tokens, n_features]`` true strengths, 0 where a feature is off; 0 for an outlier token.
        sample_seed: of the samples.
    """

    config: ToyConfig
    values: torch.Tensor
    position: torch.Tensor
    directions: torch.Tensor
    acts: torch.Tensor
    sample_seed: int

    @property
    def l0(self) -> float:
        """Mean number of true features on a token, outlier tokens left out."""
        kept = self.acts[self.position != 0] if self.config.outlier_norm else self.acts
        return float((kept > 0).sum()) / max(1, len(kept))

    @property
    def training_input(self) -> tuple[torch.Tensor, torch.Tensor]:
        """``values`` and ``position``, as in ``Trainer(*data.training_input, config)``."""
        return self.values, self.position

    def held_out(self, n_tokens: int | None = None) -> ToyData:
        """Other samples of the same directions, mean and outlier.

        Args:
            n_tokens: how many; None: as many as there are here.
        """
        count = len(self.values) if n_tokens is None else n_tokens
        return toy_data(self.config, count, sample_seed=self.sample_seed + 1, directions=self.directions)

    def __repr__(self) -> str:
        n, d_in = self.values.shape
        return f"ToyData({n:,} tokens, d_in={d_in}, {len(self.directions)} true features, {self.l0:.2f} on a token)"


def toy_data(
    config: ToyConfig | None = None,
    n_tokens: int = 20_000,
    *,
    sample_seed: int = 0,
    directions: torch.Tensor | None = None,
) -> ToyData:
    """Make synthetic activations with known features; nothing global is changed.

    Args:
        config: how; None for 64 directions in 32 dimensions, each on 5% of the time with strength U(0, 1).
        n_tokens: number of rows.
        sample_seed: of the samples; the same ``config`` with another one is held-out data.
        directions: ``[n_features, d_in]`` to use instead of unit ones, such as the ``W`` of a toy model.

    Returns:
        Activations, positions and the truth.

    Raises:
        TypeError: ``config`` is no ``ToyConfig``.
        ValueError: no token, or directions of another shape.
    """
    config = config if config is not None else ToyConfig()
    if not isinstance(config, ToyConfig):
        raise TypeError(f"config must be a ToyConfig, got {type(config).__name__}")
    if n_tokens < 1:
        raise ValueError(f"n_tokens must be at least 1, got {n_tokens}")
    shape = (config.n_features, config.d_in)
    if directions is not None and tuple(directions.shape) != shape:
        raise ValueError(f"directions must be {list(shape)} as in the config, got {list(directions.shape)}")
    truth = torch.Generator().manual_seed(config.seed % 2**64)
    drawn = _directions(config, truth)
    mean, outlier = torch.nn.functional.normalize(_normal((2, config.d_in), truth), dim=1)
    directions = drawn if directions is None else directions.detach().to("cpu", torch.float32).clone()
    # Far from the seeds of directions and of starts, so that no two of them are the same numbers.
    seed = ((config.seed + 1) * 1_000_003 + sample_seed) ^ 0x70DA7A
    samples = torch.Generator().manual_seed(seed % 2**64)
    position = torch.arange(n_tokens) % config.window if config.window else torch.ones(n_tokens, dtype=torch.int64)
    fixed = config.mean_norm * mean, config.outlier_norm * outlier
    values, acts = _samples(config, position, directions, fixed, samples)
    return ToyData(config, values, position, directions, acts, sample_seed)


def _samples(
    config: ToyConfig,
    position: torch.Tensor,
    directions: torch.Tensor,
    fixed: tuple[torch.Tensor, torch.Tensor],
    samples: torch.Generator,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Values ``[n_tokens, d_in]`` and strengths ``[n_tokens, n_features]``, some rows at a time.

    ``fixed`` is what all share and what stands at position 0, both ``[d_in]``.
    """
    n_tokens = len(position)
    acts = torch.empty(n_tokens, config.n_features, dtype=torch.float32)
    values = torch.empty(n_tokens, config.d_in, dtype=torch.float32)
    for start in range(0, n_tokens, max(1, CHUNK // config.n_features)):
        rows = slice(start, start + max(1, CHUNK // config.n_features))
        acts[rows] = _strengths(config, len(acts[rows]), samples)
        if config.outlier_norm:
            acts[rows][position[rows] == 0] = 0.0
        values[rows] = acts[rows] @ directions + fixed[0]
        if config.outlier_norm:
            values[rows][position[rows] == 0] = fixed[1]
        if config.noise:
            values[rows] += config.noise * _normal(values[rows].shape, samples)
    return values, acts


def _normal(shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    return torch.empty(shape, dtype=torch.float32).normal_(generator=generator)


def _directions(config: ToyConfig, generator: torch.Generator) -> torch.Tensor:
    """Unit rows ``[n_features, d_in]``."""
    if not config.orthogonal:
        return torch.nn.functional.normalize(_normal((config.n_features, config.d_in), generator), dim=1)
    square = torch.linalg.qr(_normal((config.d_in, config.d_in), generator)).Q
    return square[: config.n_features].contiguous()


def _strengths(config: ToyConfig, n_tokens: int, generator: torch.Generator) -> torch.Tensor:
    """``[n_tokens, n_features]``: on with the probability, then uniform from ``low`` to ``high``."""
    shape = n_tokens, config.n_features
    on = torch.empty(shape, dtype=torch.float32).uniform_(generator=generator) < config.probability
    strength = torch.empty(shape, dtype=torch.float32).uniform_(config.low, config.high, generator=generator)
    return strength.mul_(on)
