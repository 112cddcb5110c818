"""sae_widget.cells: what is made again takes the place of what was there; nothing is kept alive for it."""

from __future__ import annotations

import gc
import weakref

import pytest

from sae_widget import cells


class Made:
    closed = 0

    def close(self):
        self.closed += 1


@pytest.fixture(autouse=True)
def nothing_made(monkeypatch):
    monkeypatch.setattr(cells, "_EXPLORERS", {})


def make(name=None):
    made = Made()
    cells.replace_predecessor(made, name)
    return made


def test_outside_a_kernel_nothing_is_replaced():
    assert cells.cell_and_run() == ("", "")
    one, two = make(), make()
    assert (one.closed, two.closed) == (0, 0)


def test_a_cell_that_runs_again_closes_what_it_made(monkeypatch):
    monkeypatch.setattr(cells, "cell_and_run", lambda: ("cell:a", "run 1"))
    one, two = make(), make()
    monkeypatch.setattr(cells, "cell_and_run", lambda: ("cell:b", "run 2"))
    other = make()
    assert (one.closed, two.closed, other.closed) == (0, 0, 0)
    monkeypatch.setattr(cells, "cell_and_run", lambda: ("cell:a", "run 3"))
    three = make()
    assert (one.closed, two.closed, other.closed, three.closed) == (1, 1, 0, 0)


def test_a_name_stands_for_the_cell():
    one, other, two = make("a"), make("b"), make("a")
    assert (one.closed, other.closed, two.closed) == (1, 0, 0)


def test_what_was_made_can_go():
    made = weakref.ref(make("a"))
    gc.collect()
    assert made() is None
    assert make("a").closed == 0
