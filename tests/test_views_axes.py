"""Round numbers for axes."""

from __future__ import annotations

import numpy as np
import pytest

from sae_widget.views.axes import log_ticks, nice_ticks, roomy, set_ticks, span


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0.0, 0.31, [0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3]),
        (1.0, 620.0, [100, 200, 300, 400, 500, 600]),
        (-3.0, 3.0, [-3, -2, -1, 0, 1, 2, 3]),
        (5.0, 5.0, []),
        (0.0, float("nan"), []),
    ],
)
def test_nice_ticks(low, high, ticks):
    np.testing.assert_allclose(nice_ticks(low, high), ticks, atol=1e-12)


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (1.8, 210.0, [2, 5, 10, 20, 50, 100, 200]),
        (1e-6, 1e2, [1e-6, 1e-4, 1e-2, 1e0, 1e2]),
        (10.2, 10.4, [10.2, 10.25, 10.3, 10.35, 10.4]),
        (0.0, 10.0, []),
        (-1.0, 10.0, []),
        (3.0, 3.0, []),
    ],
)
def test_log_ticks(low, high, ticks):
    np.testing.assert_allclose(log_ticks(low, high), ticks, rtol=1e-9)


def test_never_more_than_asked_for_and_always_inside():
    for low in (0.003, 0.9, 1.1, 47.0):
        for factor in (1.01, 1.5, 4.0, 30.0, 1e4, 1e9):
            for ticks in (nice_ticks(low, low * factor), log_ticks(low, low * factor)):
                assert 1 <= len(ticks) <= 7
                assert ticks.min() >= low * (1 - 1e-9) and ticks.max() <= low * factor * (1 + 1e-9)


def test_span_leaves_out_what_is_not_finite():
    assert span(np.array([[np.nan, 2.0], [np.inf, -1.0]])) == (-1.0, 2.0)
    assert span(np.array([np.nan])) == (0.0, 0.0)


def test_ticks_that_are_there_are_not_sent_again():
    import bqplot as bq

    axis = bq.Axis(scale=bq.LinearScale())
    changes: list[object] = []
    axis.observe(changes.append, names=["tick_values"])
    set_ticks(axis, np.array([1.0, 2.0]))
    set_ticks(axis, np.array([1.0, 2.0]))
    assert len(changes) == 1
    axis.scale.close()
    axis.layout.close() if hasattr(axis, "layout") else None
    axis.close()


@pytest.mark.parametrize(
    ("low", "high", "log_scale", "ends"),
    [
        (10.0, 100.0, True, (10.0, 100.0)),
        (9.9, 101.0, True, (7.943282, 125.8925)),
        (0.0123, 0.5, True, (0.01, 0.501187)),
        (0.0, 100.0, False, (0.0, 100.0)),
        (3.1, 96.2, False, (0.0, 100.0)),
        (-0.31, 0.42, False, (-0.4, 0.5)),
    ],
)
def test_a_roomy_range_has_round_ends_outside_the_values(low, high, log_scale, ends):
    assert roomy(low, high, log_scale=log_scale) == pytest.approx(ends, rel=1e-5)
