"""Ways are measured in turns, each by its best round."""

from __future__ import annotations

import pytest

from sae_widget.training import faster
from sae_widget.training.faster import ROUNDS, seconds_of


def test_they_take_turns_and_the_best_round_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    now, turns = 0.0, []
    takes = {"a": [5.0, 3.0, 4.0] + [9.0] * ROUNDS, "b": [2.0, 7.0] + [8.0] * ROUNDS}

    def way(name: str) -> None:
        nonlocal now
        turns.append(name)
        now += takes[name][turns.count(name) - 1]

    monkeypatch.setattr(faster.time, "perf_counter", lambda: now)
    assert seconds_of(lambda: way("a"), lambda: way("b")) == [3.0, 2.0]
    assert turns == ["a", "b"] * ROUNDS


def test_no_way_at_all() -> None:
    assert seconds_of() == []
