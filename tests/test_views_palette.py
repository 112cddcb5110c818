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


def rgb(colour):
    """``"#rrggbb"`` as ``[3]`` uint8."""
    return np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)], dtype=np.uint8)


def ramp(places, points):
    """Colours at places from 0 to 1 of a scale, ``[n, 3]`` uint8, mixed as the browser does it."""
    channels = np.stack([rgb(point) for point in points]).astype(np.float64)  # [points, 3]
    stops = np.linspace(0, 1, len(points))
    return np.rint(np.stack([np.interp(places, stops, c) for c in channels.T], axis=-1)).astype(np.uint8)


def diverging(values, theme):
    """Colours of signed values from -1 to 1."""
    return ramp((values + 1) / 2, palette.DIVERGING[theme])


def linear(colours):
    """sRGB uint8 to linear light, 0 to 1."""
    part = np.asarray(colours, dtype=np.float64) / 255
    return np.where(part <= 0.04045, part / 12.92, ((part + 0.055) / 1.055) ** 2.4)


def lightness(colours):
    """CIE L*, 0 to 100: what is left in greyscale."""
    y = linear(colours) @ np.array([0.2126, 0.7152, 0.0722])
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
    ya, yb = (linear(rgb(c)) @ np.array([0.2126, 0.7152, 0.0722]) for c in (a, b))
    return (max(ya, yb) + 0.05) / (min(ya, yb) + 0.05)


def test_halfway_between_two_points_is_their_mean():
    assert ramp(np.array([0.0, 0.25, 1.0]), ("#000000", "#ffffff")).tolist() == [[0] * 3, [64] * 3, [255] * 3]


@pytest.mark.parametrize("theme", palette.THEMES)
def test_a_value_that_is_not_a_number_has_a_colour_of_its_own(theme):
    missing = rgb(palette.MISSING[theme])
    for points in (palette.DIVERGING[theme], palette.SEQUENTIAL[theme]):
        assert not (ramp(np.linspace(0, 1, 101), points) == missing).all(-1).any()


@pytest.mark.parametrize("theme", palette.THEMES)
def test_greyscale_keeps_the_order_of_the_scales(theme):
    sign = -1 if theme == "light" else 1  # further from zero is darker on a light page, lighter on a dark one
    places = np.linspace(0, 1, 65)
    for scale in (
        ramp(places, palette.SEQUENTIAL[theme]),
        diverging(places, theme),
        diverging(-places, theme),
    ):
        steps = np.diff(lightness(scale)) * sign
        assert (steps > 0).all()
        assert abs(lightness(scale[-1]) - lightness(scale[0])) > 60


@pytest.mark.parametrize("theme", palette.THEMES)
def test_the_two_signs_are_equally_strong_in_grey(theme):
    places = np.linspace(0, 1, 65)
    up, down = diverging(places, theme), diverging(-places, theme)
    assert np.abs(lightness(up) - lightness(down)).max() < 9


@pytest.mark.parametrize("theme", palette.THEMES)
@pytest.mark.parametrize("deficiency", [DEUTERANOPIA, PROTANOPIA], ids=["deuteranopia", "protanopia"])
def test_the_two_signs_stay_apart_without_red_or_green_cones(theme, deficiency):
    places = np.array([0.25, 0.4, 0.6, 0.8, 1.0])
    seen = [lab(linear(diverging(sign * places, theme)) @ deficiency.T) for sign in (1, -1)]
    assert (np.linalg.norm(seen[0] - seen[1], axis=-1) > 30).all()
    # The side is told by the hue alone: blue lies below zero on Lab's b axis, orange above.
    assert (seen[0][:, 2] < -8).all() and (seen[1][:, 2] > 8).all()


@pytest.mark.parametrize("theme", palette.THEMES)
def test_series_can_be_told_apart_and_read(theme):
    page = palette.SEQUENTIAL[theme][0]
    losses = [palette.SERIES[theme][name] for name in ("loss", "reconstruction", "sparsity")]
    for colours in (losses, palette.CATEGORIES[theme][:4]):
        assert all(contrast(colour, page) >= 3 for colour in colours)
        seen = lab(np.stack([linear(rgb(c)) for c in colours]) @ DEUTERANOPIA.T)
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
