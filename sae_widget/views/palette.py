"""The colours of every pane, for the light and the dark theme: one table for Python and for the browser.

Weights have a sign, so their scale diverges from a zero in the middle: orange below, blue above, which stay
apart for people with a colour vision deficiency; both arms change evenly in lightness, so that size survives
in grey. Activations have none, so theirs runs from the page's background in one hue. Nothing is told by
colour alone.
"""

from __future__ import annotations

import json

import numpy as np

THEMES = ("light", "dark")

DIVERGING = {
    "light": ("#7a3300", "#b85c0a", "#e9a25c", "#f7f7f7", "#82b4dd", "#2f72b3", "#0c3b6e"),
    "dark": ("#ffe0b8", "#f5a450", "#a85c14", "#1d1f23", "#2b6cab", "#6fb0ea", "#cfe7ff"),
}
"""Control points at equal steps from -1 to 1."""
SEQUENTIAL = {
    "light": ("#ffffff", "#d3ebe3", "#8fcdbd", "#3f9f8d", "#14705f", "#06463b"),
    "dark": ("#1d1f23", "#163f3a", "#1a6b5f", "#2f9c89", "#74cdb9", "#d2f5ea"),
}
"""Control points at equal steps from 0 to 1."""
SERIES = {
    "light": {
        "loss": "#3b3b3b",
        "reconstruction": "#0072b2",
        "sparsity": "#c04e00",
        "control": "#999999",
        "other": "#8a5a9e",
    },
    "dark": {
        "loss": "#e6e6e6",
        "reconstruction": "#56b4e9",
        "sparsity": "#f08c3a",
        "control": "#7d7d7d",
        "other": "#e3b9e6",
    },
}
"""Colours of named series: the losses, a control run (grey), anything else."""
CATEGORIES = {
    "light": ("#0072b2", "#c04e00", "#007a5a", "#8a5a9e", "#3b3b3b", "#a67c00"),
    "dark": ("#56b4e9", "#f08c3a", "#3fc79a", "#e3b9e6", "#e6e6e6", "#e8c547"),
}
"""Colours of things that have no order."""
BAR = {"light": "#14705f", "dark": "#2f9c89"}
"""Bars of feature activations: the hue of the sequential scale."""
MISSING = {"light": "#c9c2d1", "dark": "#554d5e"}
"""A value that is not a number."""


def diverging_rgb(values: np.ndarray, theme: str = "light") -> np.ndarray:
    """Colours of signed values.

    Args:
        values: any shape; -1 to 1, what lies beyond gets the colour of the end, nan that of ``MISSING``.
        theme: one of ``THEMES``.

    Returns:
        ``[..., 3]`` uint8.
    """
    return _interpolate((np.asarray(values, dtype=np.float64) + 1) / 2, DIVERGING[theme], theme)


def sequential_rgb(values: np.ndarray, theme: str = "light") -> np.ndarray:
    """Colours of values from 0 to 1; as ``diverging_rgb`` otherwise."""
    return _interpolate(np.asarray(values, dtype=np.float64), SEQUENTIAL[theme], theme)


def hex_rgb(colour: str) -> np.ndarray:
    """``"#rrggbb"`` as ``[3]`` uint8."""
    return np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)], dtype=np.uint8)


def as_javascript() -> str:
    """One ``const`` with every table above, to stand before the browser's code."""
    tables = {
        "diverging": DIVERGING,
        "sequential": SEQUENTIAL,
        "series": SERIES,
        "categories": CATEGORIES,
        "bar": BAR,
        "missing": MISSING,
    }
    return f"const PALETTE = {json.dumps(tables)};"


def _interpolate(places: np.ndarray, points: tuple[str, ...], theme: str) -> np.ndarray:
    stops = np.linspace(0, 1, len(points))
    channels = np.stack([hex_rgb(point) for point in points]).astype(np.float64)  # [points, 3]
    known = np.nan_to_num(places, nan=0.0, posinf=1.0, neginf=0.0)
    mixed = np.stack([np.interp(known, stops, channels[:, c]) for c in range(3)], axis=-1)
    return np.where(np.isnan(places)[..., None], hex_rgb(MISSING[theme]), np.rint(mixed)).astype(np.uint8)
