"""The box for the name under which what is shown is kept: what is sent, and what is said below it."""

from __future__ import annotations

import pytest

from sae_widget.state import PHASES, SaveAnswer, Status
from sae_widget.views.save_controls import MAX_NAME, NOTHING_YET
from tests.hand_made import features


@pytest.fixture
def box(form):
    return form.saving.box


def test_a_name_is_taken_when_the_page_says_so(box, ready_state):
    box.set_state({"draft": "mine"})
    assert ready_state.save_as == "" and ready_state.command == {}
    box.set_state({"asks": box.asks + 1})
    assert ready_state.save_as == "mine" and ready_state.command == {"do": "save", "n": 1}
    assert box.text == "mine"


def test_the_next_waits_for_the_answer(box, ready_state):
    box.set_state({"draft": "mine", "asks": 1})
    assert box.busy
    box.set_state({"draft": "other", "asks": 2})
    assert ready_state.save_as == "mine" and ready_state.command == {"do": "save", "n": 1}
    for n, answer in enumerate(
        (SaveAnswer(trouble="No room."), SaveAnswer(trouble="No room."), SaveAnswer("saes/x")), 1
    ):
        ready_state.save_answer = answer  # once more: there may be room now
        assert not box.busy
        box.set_state({"asks": 10 + n})
        assert box.busy and ready_state.command == {"do": "save", "n": 1 + n}


def test_what_no_field_sends_is_refused(box, ready_state):
    for draft in ("a" * (MAX_NAME + 1), 3, None, "half \ud83d"):
        box.set_state({"draft": draft})
    box.set_state({"told": "Saved in <b>", "trouble": "<b>", "locked": ""})
    assert (box.draft, box.told, box.trouble) == ("", "", "")
    assert box.refused == 5
    box.set_state({"draft": "a" * MAX_NAME})
    assert box.draft == "a" * MAX_NAME


def test_where_it_is_and_why_it_is_not_stand_below(box, ready_state):
    ready_state.features = features()
    assert (box.told, box.trouble) == ("", "")
    ready_state.save_answer = SaveAnswer(saved="saes/mine: your SAE\ud83d")
    assert (box.told, box.trouble) == ("Saved in saes/mine: your SAE\ufffd", "")
    ready_state.save_answer = SaveAnswer(trouble="There is something named saes/mine already.")
    assert (box.told, box.trouble) == ("", "There is something named saes/mine already.")


@pytest.mark.parametrize("phase", PHASES)
def test_what_is_shown_can_be_kept_at_any_time(box, ready_state, phase):
    ready_state.status = Status(phase, "")
    assert box.locked == NOTHING_YET
    ready_state.features = features()
    assert box.locked == ""
