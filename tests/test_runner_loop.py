"""The worker thread by itself: what comes first, what waits, what a fault does."""

import threading
import time

import pytest

from sae_widget.runner import loop
from sae_widget.runner.loop import Loop
from sae_widget.state import ExplorerState
from tests.running import until


class Recorder(Loop):
    """Notes what it is asked to do."""

    def __init__(self, state):
        self.did, self.gate = [], threading.Event()
        self.gate.set()
        super().__init__(state)

    def _turn(self, what):
        self.gate.wait(20)
        self.did.append(what)
        if what == "reset":
            raise RuntimeError("no reset today")


@pytest.fixture
def recorder():
    made = Recorder(ExplorerState())
    made.start()
    assert made.wait(20)
    assert made.did == ["model"]
    made.did.clear()
    yield made
    made.gate.set()
    made.close()


def test_unknown_commands_are_refused(recorder):
    with pytest.raises(ValueError, match="command must be one of train, pause"):
        recorder.command("dance")


def test_buttons_come_through_the_state_and_nonsense_is_ignored(recorder):
    recorder.state.command = {"do": "stop", "n": 1}
    recorder.state.command = {"do": "__init__", "n": 2}
    recorder.state.command = {"n": 3}
    assert recorder.wait(20)
    assert recorder.did == ["stop"]


@pytest.mark.parametrize("trains", [True, False])
def test_training_waits_for_the_text_that_was_set_before_it_and_a_pause_for_what_it_pauses(recorder, trains):
    recorder.gate.clear()
    recorder.command("read")  # holds the worker
    time.sleep(0.05)
    recorder._job, recorder._paused = (iter(()) if trains else None), True
    recorder.state.text = "new"
    recorder.command("train")
    recorder.command("pause")
    recorder.gate.set()
    until(lambda: {"train", "pause"} <= set(recorder.did))
    recorder._job = None
    assert recorder.wait(20)
    first, then = ("pause", "train") if trains else ("train", "pause")
    assert recorder.did.index(first) < recorder.did.index(then)
    assert recorder.did.count("read") == 2


def test_what_is_stopped_before_it_began_does_not_begin(recorder):
    recorder.gate.clear()
    recorder.command("read")  # holds the worker
    time.sleep(0.05)
    for name in ("train", "resume", "stop", "train"):
        recorder.command(name)
    recorder.gate.set()
    assert recorder.wait(20)
    assert recorder.did == ["read", "stop", "train"]


def test_an_input_rests_before_it_is_acted_on(recorder):
    began = time.monotonic()
    recorder.state.layer = 3
    assert recorder.wait(20)
    assert recorder.did == ["read"]
    assert time.monotonic() - began >= loop.DEBOUNCE


def test_a_fault_is_a_sentence_and_the_worker_lives(recorder):
    recorder.command("reset")
    recorder.command("stop")
    assert recorder.wait(20)
    assert recorder.did == ["reset", "stop"]
    status = recorder.state.status
    assert status.phase == "failed"
    assert status.trouble
    assert status.message == (
        "RuntimeError: no reset today. What was shown before is kept; change the setting and try again."
    )


def test_waiting_gives_up_in_time(recorder):
    recorder.gate.clear()
    recorder.command("read")
    assert not recorder.wait(0.2)


def test_closing_twice_is_closing_once(recorder):
    recorder.close()
    recorder.close()
    assert recorder.state.status.phase == "closed"
    recorder.state.text = "nobody listens"
    assert "read" not in recorder.did
