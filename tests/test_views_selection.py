"""One selection an explorer, the same on both sides, and deaf to what a browser should not send."""

from __future__ import annotations

import gc
import threading
import weakref
from types import SimpleNamespace

import anywidget
import pytest
from ipywidgets.widgets.widget import _instances
from traitlets import Instance, Int

from sae_widget.state import ExplorerState
from sae_widget.views import selection as module
from sae_widget.views.selection import GuardedWidget, PaneWidget, pane_code, selection_for


class State(ExplorerState):
    """A state whose features can be of any kind."""

    features = Instance(SimpleNamespace, allow_none=True)


def sized(d_sae, n_tokens=4):
    prompt = SimpleNamespace(activations=SimpleNamespace(n_tokens=n_tokens))
    return SimpleNamespace(sae=SimpleNamespace(d_sae=d_sae), prompt=prompt)


@pytest.fixture
def state():
    made = State()
    yield made
    selection_for(made).close()


@pytest.fixture
def sent(monkeypatch):
    """Names of the traits whose state was sent to the browser by hand."""
    found = []
    monkeypatch.setattr(anywidget.AnyWidget, "send_state", lambda self, key=None: found.append(key))
    return found


def test_one_selection_an_explorer(state):
    other = State()
    assert selection_for(state) is selection_for(state)
    assert selection_for(other) is not selection_for(state)
    selection_for(other).close()


def test_a_selection_made_late_shows_what_was_selected_before():
    state = State(selected=7, token=2)
    shared = selection_for(state)
    assert (shared.selected, shared.token) == (7, 2)
    shared.close()


def test_both_sides_follow_each_other(state):
    shared = selection_for(state)
    state.selected = 5
    assert shared.selected == 5
    shared.set_state({"selected": 9})
    assert state.selected == 9
    state.selected = None
    assert shared.selected is None


def test_a_token_and_its_feature_arrive_together(state):
    shared = selection_for(state)
    for feature, token in ((3, 1), (8, 2)):
        shared.set_state({"token": token, "selected": feature})
        assert (state.selected, state.token) == (feature, token)
        assert (shared.selected, shared.token) == (feature, token)


def test_hovering_stays_in_the_browser(state):
    shared = selection_for(state)
    seen = []
    shared.observe(seen.append)
    shared.set_state({"hovered": 3, "at": 12.5})
    assert not shared.has_trait("hovered") and not seen


@pytest.mark.parametrize(
    "bad", ["7", -1, 12, 10**30, 1.0, 1.5, True, [1], {"a": 1}, float("nan"), float("inf"), "<img>"]
)
def test_what_does_not_fit_is_refused_and_the_old_value_sent_back(state, sent, bad):
    state.features = sized(12)
    state.selected = 4
    shared = selection_for(state)
    sent.clear()
    shared.set_state({"selected": bad, "token": 3})
    assert (state.selected, shared.selected) == (4, 4)
    assert state.token == 3  # what came with it and fits is taken
    assert ["selected"] in sent
    assert shared.refused == 1


def test_a_token_beyond_the_text_is_refused(state):
    state.features = sized(12, n_tokens=3)
    selection_for(state).set_state({"token": 3})
    assert state.token is None


def test_the_code_and_the_counters_cannot_be_set_by_the_browser(state):
    shared = selection_for(state)
    before = shared._esm
    shared.set_state({"_esm": "export default 1", "refused": -5, "_view_name": "x", "layout": "IPY_MODEL_x"})
    assert shared._esm == before and shared.refused == 1


def test_a_narrower_sae_frees_a_feature_that_is_gone(state):
    shared = selection_for(state)
    state.features = sized(100, n_tokens=9)
    state.selected, state.token = 60, 8
    state.features = sized(60, n_tokens=9)
    assert state.selected is None and shared.selected is None and state.token == 8
    state.features = sized(60, n_tokens=8)
    assert state.token is None


def test_two_threads_that_select_end_with_the_same_on_both_sides(state):
    shared = selection_for(state)

    def from_code():
        for i in range(300):
            state.selected = i

    def from_browser():
        for i in range(300):
            shared.set_state({"selected": 1000 + i})

    threads = [threading.Thread(target=target) for target in (from_code, from_browser)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert shared.selected == state.selected


def test_closing_leaves_nothing_behind():
    before = len(_instances)
    state = State()
    observed = state.trait_names()
    for _ in range(20):
        selection_for(state).close()
    assert len(_instances) == before
    assert not any(state._trait_notifiers.get(name, {}).get("change") for name in observed)
    state.selected = 3
    gone = weakref.ref(state)
    del state
    gc.collect()
    assert gone() is None


def test_asked_is_called_for_the_browser_alone():
    class Knob(GuardedWidget):
        _esm = "export default {};"
        from_browser = ("turn",)
        turn = Int(0, max=9).tag(sync=True)

    asked = []
    knob = Knob(asked=lambda name, value: asked.append((name, value)))
    knob.turn = 3
    knob.set_state({"turn": 4})
    knob.set_state({"turn": 10})
    assert asked == [("turn", 4)] and knob.turn == 4
    knob.close()


def test_the_browsers_code_is_one_string_without_html_or_eval():
    for names in (
        ("heatmap_draw.js", "heatmap_parts.js", "heatmap.js"),
        ("tokens_data.js", "tokens_parts.js", "tokens.js"),
    ):
        code = pane_code(*names)
        assert code.startswith("const PALETTE") and code.count("export default") == 1
        for risky in (
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "eval(",
            "new Function",
            "http://",
            "https://",
            "import(",
        ):
            assert risky not in code
    assert isinstance(PaneWidget._css, str) and "http" not in PaneWidget._css
    assert module.Selection._esm == "export default {};"
