"""The publisher: coalesces, keeps the newest, always delivers the last, at most ten times a second (T9)."""

import time

import pytest

from sae_widget.runner.publisher import Publisher
from sae_widget.state import ExplorerState


@pytest.fixture
def published():
    state = ExplorerState()
    publisher = Publisher(state)
    seen = []
    state.observe(lambda change: seen.append((time.monotonic(), change["new"])), names=["history_tick"])
    publisher.start()
    yield state, publisher, seen
    publisher.close()


def test_a_flood_becomes_a_trickle_and_the_last_value_arrives(published):
    state, publisher, seen = published
    began = time.monotonic()
    n = 0
    while time.monotonic() - began < 1.0:
        n += 1
        publisher.post(history_tick=n)
    publisher.close()
    assert n > 1_000
    assert state.history_tick == n
    took = seen[-1][0] - seen[0][0]
    assert len(seen) <= 10 * took + 3


def test_what_was_posted_before_closing_arrives():
    state = ExplorerState()
    publisher = Publisher(state)
    publisher.start()
    publisher.post(history_tick=7, faults={"tokens": "no"})
    publisher.close()
    assert (state.history_tick, state.faults) == (7, {"tokens": "no"})


def test_polled_leaves_the_traits_to_the_page():
    state = ExplorerState()
    publisher = Publisher(state, polled=True)
    publisher.start()
    publisher.post(history_tick=3)
    time.sleep(0.3)
    assert state.history_tick == 0
    assert not publisher.empty
    publisher.flush()
    assert state.history_tick == 3
    assert publisher.empty


def test_one_observers_fault_keeps_no_other_result_back(published):
    state, publisher, _ = published

    def broken(_change):
        raise RuntimeError("a view broke")

    state.observe(broken, names=["faults"])
    publisher.post(faults={"chart": "x"}, history_tick=5)
    deadline = time.monotonic() + 5
    while state.history_tick != 5 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert state.history_tick == 5


def test_the_beat_goes_on_by_itself(published):
    state, _, _ = published
    deadline = time.monotonic() + 6
    while state.beat < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert state.beat >= 2
