"""The box for the folder of a saved SAE: what is sent, what is said below it, and the question beside it."""

from __future__ import annotations

import pytest

from sae_widget.state import PHASES, Status
from sae_widget.views.fields import MAX_PATH, STOP_FIRST
from tests.hand_made import features


@pytest.fixture
def opening(form):
    return form.opening


def ask(box, draft):
    """What the page sends when a person presses Enter or Show."""
    box.set_state({"draft": draft, "asks": box.asks + 1})


def test_a_folder_is_asked_for_when_the_page_says_so(opening, ready_state):
    opening.box.set_state({"draft": "runs/first"})
    assert ready_state.folder == "" and ready_state.command == {}
    ask(opening.box, "runs/first")
    assert ready_state.folder == "runs/first" and ready_state.command == {"do": "show", "n": 1}
    ask(opening.box, "runs/first")  # once more: it may have been mended
    assert ready_state.command == {"do": "show", "n": 2}
    assert opening.box.text == "runs/first"


def test_a_folder_set_in_python_stands_in_the_box(opening, ready_state):
    ready_state.folder = "elsewhere\ud83d"
    assert opening.box.text == opening.box.draft == "elsewhere\ufffd"
    assert ready_state.command == {}


def test_what_no_field_sends_is_refused(opening, ready_state):
    for draft in ("a" * (MAX_PATH + 1), 3, None, "half \ud83d"):
        opening.box.set_state({"draft": draft})
    opening.box.set_state({"trouble": "<b>", "told": "<b>", "locked": ""})
    assert (opening.box.draft, opening.box.trouble, opening.box.told) == ("", "", "")
    assert opening.box.refused == 5


def test_what_is_shown_and_what_is_wrong_stand_below(opening, ready_state):
    assert opening.box.told == opening.box.trouble == ""
    ready_state.features = features()
    assert opening.box.told == f"Now: {features().source}"
    ready_state.faults = {"folder": "No SAE could be read from <img src=x>."}
    assert opening.box.trouble == "No SAE could be read from <img src=x>."
    assert opening.question.layout.display == "none"  # nothing was asked
    code = opening.box._esm
    assert "innerHTML" not in code and "insertAdjacentHTML" not in code


@pytest.mark.parametrize("phase", PHASES)
def test_nothing_else_is_shown_while_it_trains(opening, ready_state, phase):
    ready_state.features = features()
    ready_state.status = Status(phase, "")
    running = phase in ("training", "paused", "stopping")
    assert opening.box.locked == (STOP_FIRST if running else "")
    assert (opening.box.told == "") == running  # its source has another step each time


def test_the_question_can_be_answered_beside_the_box(opening, ready_state):
    ready_state.offers = ("load_anyway", "keep")
    assert opening.question.layout.display == "none"  # asked from Python: the status line asks
    ready_state.faults = {"folder": "This SAE was trained on gpt2."}
    assert opening.question.layout.display == ""
    assert [button.description for button in opening.answers.values()] == ["Load anyway", "Keep what is here"]
    for number, offer in enumerate(("load_anyway", "keep"), 1):
        opening.answers[offer].click()
        assert ready_state.command == {"do": offer, "n": number}
    ready_state.offers = ("restore",)
    assert opening.question.layout.display == "none"
