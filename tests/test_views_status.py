"""The status line: words, progress, offers, the heartbeat."""

from __future__ import annotations

import time

import pytest

from sae_widget.state import OFFERS, PHASES, Status
from sae_widget.views.status import (
    PHASE_WORDS,
    StatusLine,
)
from sae_widget.views.words import OFFER_WORDS


@pytest.fixture
def line(state):
    made = StatusLine(state)
    yield made
    made.close()


def test_every_phase_and_offer_has_words():
    assert set(PHASE_WORDS) == set(PHASES) and set(OFFER_WORDS) == set(OFFERS)


def test_the_message_goes_out_as_it_is_and_as_text(line, state):
    state.status = Status("failed", "<img src=x onerror=alert(1)> The last SAE stays.", trouble=True)
    assert line.text.message == "<img src=x onerror=alert(1)> The last SAE stays."
    assert (line.text.phase, line.text.words, line.text.trouble) == ("failed", "Failed", True)
    code = line.text._esm
    assert "innerHTML" not in code and "insertAdjacentHTML" not in code and "outerHTML" not in code


def test_failed_is_trouble_even_when_not_said(line, state):
    state.status = Status("failed", "No.")
    assert line.text.trouble


def test_offers_are_buttons_that_ask_the_runner(line, state):
    assert all(button.layout.display == "none" for button in line.buttons.values())
    state.offers = ("retry", "restore")
    shown = [name for name, button in line.buttons.items() if button.layout.display == ""]
    assert shown == ["retry", "restore"]
    line.buttons["retry"].click()
    assert state.command == {"do": "retry", "n": 1}
    line.buttons["restore"].click()
    assert state.command == {"do": "restore", "n": 2}


def test_each_beat_reaches_the_page(line, state):
    state.beat = 5
    assert line.text.beat == 5


def test_progress_can_wait_but_a_phase_cannot(line, state):
    state.status = Status("training", "Training", 1, 1000)
    draws = line.draws
    for step in range(2, 200):
        state.status = Status("training", "Training", step, 1000)
    assert line.draws <= draws + 2
    state.status = Status("ready", "Trained.")
    assert line.text.phase == "ready" and line.text.message == "Trained."
    state.status = Status("training", "Training", 1, 1000)
    state.status = Status("training", "Training", 500, 1000)
    deadline = time.monotonic() + 5
    while line.text.share != 0.5 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert line.text.share == 0.5


def test_the_browser_can_set_nothing(line, state):
    line.text.set_state({"message": "hacked", "gone_after": 1e9, "beat": 99})
    assert line.text.message == state.status.message and line.text.beat == 0 and line.text.gone_after == 7.0
