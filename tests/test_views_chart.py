"""The loss chart: what is drawn, in which scale, how often, and what is said."""

from __future__ import annotations

import time

import numpy as np
import pytest

from sae_widget.config import TrainConfig
from sae_widget.training import History
from sae_widget.views.chart import (
    MAX_POINTS,
    NOTHING_YET,
    LossChart,
    epoch_words,
    gap_steps,
    gap_words,
    loss_lines,
    summary,
)
from tests.hand_made import history, step


@pytest.fixture
def chart(state):
    made = LossChart(state)
    yield made
    made.close()


def test_exact_lines_of_three_steps(chart, state):
    state.log_loss = False
    state.history = history(3)
    np.testing.assert_array_equal(chart.lines.x, [1, 2, 3])
    np.testing.assert_allclose(chart.lines.y, [[100, 50, 100 / 3], [90, 45, 30], [10, 5, 10 / 3]])
    assert chart.lines.labels == ["total", "reconstruction", "sparsity"]
    assert chart.figure.marks == [chart.lines] and chart.readout.empty == ""
    assert [words for words, _, _ in chart.readout.series] == ["total", "reconstruction", "sparsity"]
    assert chart.figure.axes[1].scale is chart.y_scales[False]
    assert (chart.y_scales[False].min, chart.y_scales[False].max) == (0, 100)


def test_an_empty_chart_says_so(chart, state):
    assert chart.figure.marks == [] and chart.readout.empty == NOTHING_YET
    state.history = history(2)
    assert chart.figure.marks == [chart.lines] and chart.readout.empty == ""
    state.history = History()
    assert chart.figure.marks == [] and chart.readout.empty == NOTHING_YET and chart.readout.series == []


def test_the_scale_follows_the_state_and_the_button_sets_it(chart, state):
    state.history = history(5)
    assert chart.figure.axes[1].scale is chart.y_scales[True]
    chart.scale_toggle.value = False
    assert state.log_loss is False and chart.figure.axes[1].scale is chart.y_scales[False]
    assert chart.lines.scales["y"] is chart.y_scales[False]
    state.log_loss = True
    assert chart.scale_toggle.value is True and chart.lines.scales["y"] is chart.y_scales[True]


def test_topk_has_no_sparsity_line():
    for log_scale in (True, False):
        steps, losses = loss_lines(history(3, sparsity=0.0), log_scale)
        assert list(losses) == ["loss", "reconstruction"] and len(steps) == 3


def test_what_cannot_be_drawn_is_a_gap():
    made = history(3)
    made.append(step(4, loss=float("nan"), reconstruction=float("inf"), sparsity=-1.0))
    made.append(step(5))
    _, log_losses = loss_lines(made, True)
    _, losses = loss_lines(made, False)
    assert [np.isnan(log_losses[name][3]) for name in log_losses] == [True, True, True]
    assert [np.isnan(losses[name][3]) for name in losses] == [True, True, False]
    assert np.isfinite(log_losses["loss"][[0, 1, 2, 4]]).all()


def test_a_gap_is_marked_and_told(chart, state):
    """F18"""
    state.history = history(3)
    assert chart.readout.gaps == [] and chart.readout.note == ""
    made = history(3)
    made.append(step(4, loss=np.nan))
    made.append(step(5))
    state.history = made
    assert chart.readout.gaps == [4] and chart.readout.note == "The loss was no number at step 4 (dashed)."
    assert gap_words([4, 9, 12]) == "The loss was no number at step 4 and 2 more (dashed)."
    assert gap_steps(None) == gap_steps(History()) == []


def test_a_run_of_nothing_but_nan_is_an_empty_chart(chart, state):
    state.history = history(2, loss=np.nan, reconstruction=np.nan, sparsity=np.nan)
    assert chart.figure.marks == [] and chart.head.fault == ""


def test_a_long_run_stays_light_and_keeps_its_spike(chart, state):
    made = History()
    for number in range(1, 50_001):
        made.append(step(number, loss=777.0 if number == 31_234 else 1.0))
    state.history = made
    assert chart.lines.x.shape[0] <= MAX_POINTS and chart.lines.y.shape == (3, chart.lines.x.shape[0])
    assert chart.lines.x[0] == 1 and chart.lines.x[-1] == 50_000
    assert chart.lines.y[0].max() == 777.0


def test_x_and_y_go_to_the_page_in_one_message(chart, state):
    state.history = made = history(3)
    sent: list[set[str]] = []
    chart.lines.send_state = lambda key=None: sent.append(set(key or ()))  # type: ignore[method-assign]
    made.append(step(4))
    time.sleep(0.2)
    state.history_tick += 1
    assert sent == [{"x", "y"}]


def test_at_most_ten_draws_a_second_and_the_last_one_always(chart, state):
    state.history = made = History()
    began, draws = time.monotonic(), chart.draws
    number = 0
    while time.monotonic() - began < 1.0:
        number += 1
        made.append(step(number))
        state.history_tick += 1
        time.sleep(0.002)
    assert chart.draws - draws <= 10 * (time.monotonic() - began) + 1
    deadline = time.monotonic() + 5
    while (not len(chart.lines.x) or chart.lines.x[-1] != number) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert chart.lines.x[-1] == number


def test_the_tutorials_losses_in_words(chart, state):
    made = History(config=TrainConfig.original_tutorial())
    assert epoch_words(made) == ""
    for number in range(1, 251):
        made.append(step(number, loss=10.9564 if number == 100 else 2.0957 if number == 200 else 3.0))
        if number == 99:
            assert epoch_words(made) == ""
    assert epoch_words(made) == "Loss at epoch 100: 10.9564, 200: 2.0957"
    state.history = made
    state.settings = TrainConfig(d_sae=64)  # of the next run
    assert chart.readout.note == "Loss at epoch 100: 10.9564, 200: 2.0957"


def test_the_chart_in_a_sentence(chart, state):
    assert summary(None) == "Loss chart: nothing trained yet."
    state.history = history(4)
    assert chart.head.summary == (
        "Loss chart, 4 steps: total loss from 100 to 25; at the end reconstruction 22.5, sparsity 2.5."
    )


def test_a_line_that_ends_in_a_gap_still_has_a_last_point():
    """bqplot puts a label there, and ``translate(x, undefined)`` into the page when it has no place."""
    run = History()
    for number, sparsity in enumerate([0.5, 0.25, 0.0, 0.0], 1):
        run.append(step(number, sparsity=sparsity))
    _, losses = loss_lines(run, True)
    assert losses["sparsity"][:2].tolist() == [0.5, 0.25]
    assert np.isnan(losses["sparsity"][2])
    assert losses["sparsity"][3] == 0.25
