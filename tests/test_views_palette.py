"""Scales that keep their order in grey and their sides apart for a colour-blind reader."""

from __future__ import annotations

import json

import numpy as np
import pytest

from sae_widget.views import palette

# Machado, Oliveira and Fernandes (2009), severity 1, on linear RGB.
DEUTERANOPIA = np.array(
    [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
)
PROTANOPIA = np.array(
    [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
)


def linear(rgb):
    """sRGB uint8 to linear light, 0 to 1."""
    part = np.asarray(rgb, dtype=np.float64) / 255
    return np.where(part <= 0.04045, part / 12.92, ((part + 0.055) / 1.055) ** 2.4)


def lightness(rgb):
    """CIE L*, 0 to 100: what is left in greyscale."""
    y = linear(rgb) @ np.array([0.2126, 0.7152, 0.0722])
    return np.where(y > 216 / 24389, 116 * np.cbrt(y) - 16, y * 24389 / 27)


def lab(light):
    """Linear RGB to CIE Lab, D65."""
    xyz = np.clip(light, 0, 1) @ np.array(
        [[0.4124, 0.2126, 0.0193], [0.3576, 0.7152, 0.1192], [0.1805, 0.0722, 0.9505]]
    )
    f = np.cbrt(xyz / np.array([0.95047, 1.0, 1.08883]))
    return np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], -1)


def contrast(a, b):
    """WCAG contrast of two colours."""
    ya, yb = (linear(palette.hex_rgb(c)) @ np.array([0.2126, 0.7152, 0.0722]) for c in (a, b))
    return (max(ya, yb) + 0.05) / (min(ya, yb) + 0.05)


@pytest.mark.parametrize("theme", palette.THEMES)
def test_the_ends_and_the_middle_are_the_control_points(theme):
    points = palette.DIVERGING[theme]
    drawn = palette.diverging_rgb(np.array([[-1.0, 0.0, 1.0], [-9.0, np.inf, -np.inf]]), theme)
    wanted = [[points[0], points[3], points[-1]], [points[0], points[-1], points[0]]]
    assert drawn.shape == (2, 3, 3)
    assert drawn.tolist() == [[palette.hex_rgb(c).tolist() for c in row] for row in wanted]


def test_halfway_between_two_points_is_their_mean():
    black_to_white = palette._interpolate(np.array([0.25]), ("#000000", "#ffffff"), "light")
    assert black_to_white.tolist() == [[64, 64, 64]]


@pytest.mark.parametrize("theme", palette.THEMES)
def test_a_value_that_is_not_a_number_has_a_colour_of_its_own(theme):
    missing = palette.hex_rgb(palette.MISSING[theme])
    assert (palette.diverging_rgb(np.array(np.nan), theme) == missing).all()
    for scale in (
        palette.diverging_rgb(np.linspace(-1, 1, 101), theme),
        palette.sequential_rgb(np.linspace(0, 1, 101), theme),
    ):
        assert not (scale == missing).all(-1).any()


@pytest.mark.parametrize("theme", palette.THEMES)
def test_greyscale_keeps_the_order_of_the_scales(theme):
    sign = -1 if theme == "light" else 1  # further from zero is darker on a light page, lighter on a dark one
    places = np.linspace(0, 1, 65)
    for scale in (
        palette.sequential_rgb(places, theme),
        palette.diverging_rgb(places, theme),
        palette.diverging_rgb(-places, theme),
    ):
        steps = np.diff(lightness(scale)) * sign
        assert (steps > 0).all()
        assert abs(lightness(scale[-1]) - lightness(scale[0])) > 60


@pytest.mark.parametrize("theme", palette.THEMES)
def test_the_two_signs_are_equally_strong_in_grey(theme):
    places = np.linspace(0, 1, 65)
    up, down = palette.diverging_rgb(places, theme), palette.diverging_rgb(-places, theme)
    assert np.abs(lightness(up) - lightness(down)).max() < 9


@pytest.mark.parametrize("theme", palette.THEMES)
@pytest.mark.parametrize("deficiency", [DEUTERANOPIA, PROTANOPIA], ids=["deuteranopia", "protanopia"])
def test_the_two_signs_stay_apart_without_red_or_green_cones(theme, deficiency):
    places = np.array([0.25, 0.4, 0.6, 0.8, 1.0])
    seen = [lab(linear(palette.diverging_rgb(sign * places, theme)) @ deficiency.T) for sign in (1, -1)]
    assert (np.linalg.norm(seen[0] - seen[1], axis=-1) > 30).all()
    # The side is told by the hue alone: blue lies below zero on Lab's b axis, orange above.
    assert (seen[0][:, 2] < -8).all() and (seen[1][:, 2] > 8).all()


@pytest.mark.parametrize("theme", palette.THEMES)
def test_series_can_be_told_apart_and_read(theme):
    page = palette.SEQUENTIAL[theme][0]
    losses = [palette.SERIES[theme][name] for name in ("loss", "reconstruction", "sparsity")]
    for colours in (losses, palette.CATEGORIES[theme][:4]):
        assert all(contrast(colour, page) >= 3 for colour in colours)
        seen = lab(np.stack([linear(palette.hex_rgb(c)) for c in colours]) @ DEUTERANOPIA.T)
        apart = np.linalg.norm(seen[:, None] - seen[None], axis=-1) + 1e3 * np.eye(len(colours))
        assert apart.min() > 15
    assert contrast(palette.BAR[theme], page) >= 3


def test_the_browser_gets_the_same_tables():
    source = palette.as_javascript()
    assert source.startswith("const PALETTE = ") and source.endswith(";")
    tables = json.loads(source.removeprefix("const PALETTE = ").removesuffix(";"))
    assert tables["diverging"]["dark"] == list(palette.DIVERGING["dark"])
    assert tables["series"] == palette.SERIES
    assert set(tables["sequential"]) == set(palette.THEMES)
