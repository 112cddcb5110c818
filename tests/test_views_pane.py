"""What holds for every pane that is built from ready-made widgets: one drawing, faults, pace, and its end."""

from __future__ import annotations

import threading
import time

import pytest

from sae_widget.state import Status
from sae_widget.views.bars import ActivationBars
from sae_widget.views.card import FeatureCard
from sae_widget.views.chart import LossChart
from sae_widget.views.controls import Controls
from sae_widget.views.health import HealthRow
from sae_widget.views.pane import Pane, theme_css
from sae_widget.views.selection import selection_for
from sae_widget.views.status import StatusLine
from tests.hand_made import features, fill, history, looks, open_widgets

PANES = (LossChart, ActivationBars, HealthRow, StatusLine, Controls, FeatureCard)


@pytest.mark.parametrize("kind", PANES)
def test_a_pane_made_after_shows_what_one_made_before_shows(kind, state, monkeypatch):
    monkeypatch.setattr(kind, "pace", {})
    before = kind(state)
    fill(state)
    after = kind(state)
    assert before.head.fault == ""
    assert looks(before.widget) == looks(after.widget)
    before.close()
    after.close()


@pytest.mark.parametrize("kind", PANES)
def test_drawing_twice_changes_nothing(kind, state):
    fill(state)
    pane = kind(state)
    first = looks(pane.widget)
    pane.redraw()
    assert looks(pane.widget) == first
    pane.close()


@pytest.mark.parametrize("kind", PANES)
def test_a_fault_is_shown_in_the_pane_and_not_raised(kind, state, monkeypatch):
    pane = kind(state)

    def fail() -> None:
        raise KeyError("broken <b>")

    monkeypatch.setattr(pane, "draw_content", fail)
    state.features = features()
    state.status = Status("ready", "Ready")
    state.text = "another"
    state.history = history()
    assert "could not be drawn (KeyError: 'broken <b>')" in pane.head.fault
    monkeypatch.undo()
    pane.redraw()
    assert pane.head.fault == ""
    pane.close()


@pytest.mark.parametrize("kind", PANES)
def test_the_states_own_fault_is_shown_in_its_pane_alone(kind, state):
    pane = kind(state)
    state.faults = {"somewhere else": "no", kind.name: "The text is too long. The last one stays."}
    assert pane.head.fault == "The text is too long. The last one stays."
    state.faults = {}
    assert pane.head.fault == ""
    pane.close()


@pytest.mark.parametrize("kind", PANES)
def test_close_leaves_no_widget_no_observer_and_no_thread(kind, state):
    selection = selection_for(state)
    before, threads = open_widgets(state), threading.active_count()
    observers = {name: len(found.get("change", [])) for name, found in state._trait_notifiers.items()}
    pane = kind(state)
    fill(state)
    for _ in range(3):
        state.history_tick += 1
        state.status = Status("training", "Training", 1, 10)
    pane.close()
    assert open_widgets(state) == before
    now = {name: len(found.get("change", [])) for name, found in state._trait_notifiers.items()}
    assert {name: count for name, count in now.items() if count} == {n: c for n, c in observers.items() if c}
    assert selection.comm is not None  # other panes still use it
    deadline = time.monotonic() + 2
    while threading.active_count() > threads and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= threads
    state.history_tick += 1  # nobody draws any more
    draws = pane.draws
    state.features = None
    assert pane.draws == draws


@pytest.mark.parametrize("kind", PANES)
def test_every_pane_names_itself_for_the_page(kind, state):
    pane = kind(state)
    assert pane.head.pane == kind.name != ""
    assert "sae-pane" in pane.widget._dom_classes
    assert set(kind.pace) <= set(kind.reads) <= set(state.trait_names())
    pane.close()


class Paced(StatusLine):
    """A pane that draws on ``history_tick`` at most ten times a second."""

    reads = ("history_tick", "status", "faults")
    pace = {"history_tick": 0.1}  # noqa: RUF012


def test_a_paced_trait_is_drawn_at_its_pace_and_the_last_change_always(state):
    pane = Paced(state)
    began, seen = time.monotonic(), pane.draws
    while time.monotonic() - began < 0.5:
        state.history_tick += 1
        time.sleep(0.001)
    took = time.monotonic() - began
    assert 2 <= pane.draws - seen <= took / 0.1 + 1
    drawn, deadline = pane.draws, time.monotonic() + 5
    state.history_tick += 1
    while pane.draws == drawn and time.monotonic() < deadline:
        time.sleep(0.005)
    assert pane.draws == drawn + 1
    state.status = Status("ready", "a phase is drawn at once")
    assert pane.draws == drawn + 2
    pane.close()


def test_a_fault_in_a_button_is_told_in_the_pane(state):
    import ipywidgets as W

    pane = StatusLine(state)
    button = W.Button()

    def fail() -> None:
        raise RuntimeError("no")

    pane.on_press(button, fail)
    button.click()
    assert pane.head.fault == "That did not work (RuntimeError: no). Nothing else was changed."
    button.close()
    pane.close()


def test_each_theme_has_every_colour():
    light, *dark = theme_css().split("--sae-loss:")
    assert len(dark) == 3  # light, the system's dark, the notebook's dark
    names = [{part.split(":")[0].strip() for part in block.split(";") if "--sae-" in part} for block in dark]
    assert len({frozenset(n) for n in names}) == 1
    assert Pane.question == "" and "prefers-color-scheme" in theme_css() and light == ".sae-pane { "
