"""All widgets of a pane: found wherever they are held, closed together, answered where the page asks."""

from __future__ import annotations

import ipywidgets as W
import pytest
from comm import DummyComm
from ipywidgets.widgets.widget import _instances

from sae_widget import SuperpositionExplorer
from sae_widget.views.tree import answer_the_page, close_everything, every_widget
from tests.hand_made import open_widgets


def test_each_widget_is_found_once_in_whatever_holds_it():
    held = W.Label("held twice")
    roots = W.HBox([W.VBox([held]), held]), W.Tab([held], titles=["one"])
    found = list(every_widget(*roots, keep=[roots[0].layout]))
    assert sum(widget is held for widget in found) == 1
    assert held.layout in found and held.style in found
    assert roots[0].layout not in found
    assert len({id(widget) for widget in found}) == len(found)
    close_everything(*roots)


def test_close_everything_reaches_what_is_held_in_any_trait_but_keeps_what_is_shared(state):
    before = open_widgets(state)
    kept = W.Button()
    others = len([kept, kept.layout, kept.style])
    box = W.VBox([W.HBox([W.Text(), kept]), W.Label("x")])
    close_everything(box, keep=[kept])
    assert kept.comm is not None
    assert open_widgets(state) == before + others
    close_everything(kept)
    assert open_widgets(state) == before


@pytest.mark.parametrize("poll", ["0", "1"])
def test_every_widget_of_an_explorer_answers_the_page(monkeypatch, poll):
    monkeypatch.setattr(DummyComm, "_reply_subshell_for", lambda *_: "gone", raising=False)  # as ipykernel 7.4 has it
    monkeypatch.setenv("SAE_WIDGET_POLL", poll)
    before = set(_instances)
    explorer = SuperpositionExplorer("the cat sat", model="bundled", layer=1)
    explorer.wait(60)
    explorer.selected_feature = int(explorer.features.prompt.strongest[0])
    explorer.wait(60)
    own = [widget for key, widget in _instances.items() if key not in before]
    assert len(own) > 300
    assert [widget for widget in own if widget.comm._reply_subshell_for is not None] == []
    explorer.close()


def test_kernels_that_do_not_choose_are_left_alone():
    box = W.VBox([W.Label("x")])
    answer_the_page(box)
    assert not hasattr(box.comm, "_reply_subshell_for")
    close_everything(box)


def test_what_a_page_says_is_taken_under_the_lock_of_the_state(sae_widget_home):
    explorer = SuperpositionExplorer(model="bundled")
    told = [widget for widget in every_widget(*explorer.children) if getattr(widget, "from_browser", ())]
    unguarded = {type(widget).__name__ for widget in told if widget._guard is not explorer.state.lock}
    explorer.close()
    assert len(told) > 5 and not unguarded
