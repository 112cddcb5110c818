"""The colours of every pane, for the light and the dark theme: one table for Python and for the browser.

Weights have a sign, so their scale diverges from a zero in the middle: orange below, blue above, which stay
apart for people with a colour vision deficiency; both arms change evenly in lightness, so that size survives
in grey. Activations have none, so theirs runs from the page's background in one hue. Nothing is told by
colour alone.
"""

from __future__ import annotations

import json

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
