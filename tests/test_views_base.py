"""What every view is: draws now and later by one call, keeps its faults to itself, lets go when closed."""

import ipywidgets
import pytest

from sae_widget.state import ExplorerState
from sae_widget.views.base import View, read_static


class Counter(View):
    name = "counter"
    reads = ("page", "faults")

    def build(self):
        self.widget, self.drawn, self.said = ipywidgets.VBox(), [], []

    def draw(self):
        if self.state.page == 13:
            raise RuntimeError("unlucky")
        self.drawn.append(self.state.page)

    def show_fault(self, message):
        self.said.append(message)


def test_the_first_drawing_and_every_later_one_are_the_same_call():
    state = ExplorerState(page=4)
    view = Counter(state)
    state.page = 5
    state.bar_page = 9  # it does not read this one
    assert view.drawn == [4, 5]


def test_a_fault_stays_in_the_view_and_other_observers_go_on():
    state, others = ExplorerState(), []
    view = Counter(state)
    state.observe(lambda change: others.append(change["new"]), names=["page"])
    state.page = 13
    assert "unlucky" in view.said[-1]
    assert others == [13]
    state.page = 14
    assert view.said[-1] == ""


def test_the_runners_sentence_for_the_pane_is_shown():
    state = ExplorerState()
    view = Counter(state)
    state.faults = {"counter": "no tokens", "other": "not mine"}
    assert view.said[-1] == "no tokens"


def test_a_closed_view_no_longer_looks():
    state = ExplorerState()
    view = Counter(state)
    view.close()
    state.page = 7
    assert view.drawn == [0]


def test_front_end_files_are_strings_in_the_order_asked_for():
    text = read_static("dom.js", "head.js")
    assert text.index(read_static("dom.js")) < text.index(read_static("head.js"))
    with pytest.raises(FileNotFoundError):
        read_static("nothing.js")
