"""Round numbers for the axes of the bqplot figures."""

from __future__ import annotations

from typing import Any

import numpy as np


def span(values: np.ndarray) -> tuple[float, float]:
    """The least and the largest finite value of an array of any shape; zeros when there is none."""
    known = values[np.isfinite(values)]
    return (float(known.min()), float(known.max())) if known.size else (0.0, 0.0)


def roomy(low: float, high: float, *, log_scale: bool) -> tuple[float, float]:
    """A range around the values that holds still while they grow a little: its ends are round.

    On a logarithmic scale they are tenths of a power of ten, on a linear one tenths of the height.
    """
    if log_scale:
        return float(10 ** (np.floor(10 * np.log10(low)) / 10)), float(10 ** (np.ceil(10 * np.log10(high)) / 10))
    step = 10.0 ** np.floor(np.log10(high - low))
    step *= next(share for share in (0.1, 0.2, 0.5, 1.0) if (high - low) / (share * step) <= 12)
    return float(np.floor(low / step) * step), float(np.ceil(high / step) * step)


def nice_ticks(low: float, high: float, most: int = 7) -> np.ndarray:
    """Multiples of 1, 2 or 5 times a power of ten from ``low`` to ``high``, at most ``most`` of them."""
    if not (np.isfinite([low, high]).all() and high > low):
        return np.zeros(0)
    power = 10.0 ** np.floor(np.log10((high - low) / most))
    for step in (power * digit for digit in (1, 2, 5, 10, 20)):
        first, last = np.ceil(low / step - 1e-9), np.floor(high / step + 1e-9)
        if last - first < most:
            break
    return np.arange(first, last + 1) * step


def log_ticks(low: float, high: float, most: int = 7) -> np.ndarray:
    """Round places of a logarithmic axis: 1, 2, 5 of each power of ten where they fit, otherwise fewer."""
    if not (0 < low < high and np.isfinite(high)):
        return np.zeros(0)
    powers = 10.0 ** np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
    for digits in ((1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9), (1, 2, 3, 5, 7), (1, 2, 5), (1, 3), (1,)):
        ticks = np.sort(np.outer(powers, digits).ravel())
        ticks = ticks[(ticks >= low) & (ticks <= high)]
        if len(ticks) <= most:
            return ticks if len(ticks) > 1 else nice_ticks(low, high, most)
    return ticks[:: -(-len(ticks) // most)]


def set_ticks(axis: Any, ticks: np.ndarray) -> None:
    """Give a bqplot axis its ticks; nothing is sent when it has them already."""
    if not np.array_equal(axis.tick_values, ticks):
        axis.tick_values = ticks
