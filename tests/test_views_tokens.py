"""The token strip's buffers, checked by hand; its marks, its pace while training, and its deafness."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ipywidgets.widgets.widget import _instances

from sae_widget.activations.base import Activations
from sae_widget.features import Features, FeatureStats, PromptFeatures
from sae_widget.sae import StandardSAE
from sae_widget.state import ExplorerState, Status
from sae_widget.views import tokens
from sae_widget.views.selection import selection_for
from sae_widget.views.tokens import LEFT_OUT, LINE_END, NEW_WINDOW, TokenStrip, strongest_firings, token_marks

D_IN, D_SAE = 3, 7


def make_activations(
    text="a\nb", labels=("<|endoftext|>", "a", "↵", "b"), spans=((0, 0), (0, 1), (1, 2), (2, 3)), **more
):
    n = len(labels)
    return Activations(
        values=torch.zeros(n, D_IN),
        token_ids=torch.arange(n),
        position=torch.arange(n),
        text_index=torch.zeros(n, dtype=torch.long),
        spans=torch.tensor(spans).reshape(n, 2),
        labels=tuple(labels),
        texts=(text,),
        notes=more.get("notes", ()),
        model_name="hand",
        layer=0,
        hook_name="resid_pre",
    )


def make_prompt(activations, rows):
    """``rows`` is for each token a list of (feature, activation), the strongest first."""
    flat = [pair for row in rows for pair in row]
    return PromptFeatures(
        activations=activations,
        indptr=np.cumsum([0] + [len(row) for row in rows]).astype(np.uint32),
        ids=np.array([f for f, _ in flat], np.uint32),
        acts=np.array([a for _, a in flat], np.float32),
        mean=np.zeros(D_SAE, np.float32),
        max=np.zeros(D_SAE, np.float32),
        strongest=np.array([row[0][0] if row else -1 for row in rows], np.int32),
        counted=np.array([False] + [True] * (len(rows) - 1)) if len(rows) > 1 else np.array([True]),
    )


def make_features(prompt, *, stats=True, version=1):
    sae = StandardSAE(torch.zeros(D_IN, D_SAE), torch.zeros(D_SAE), torch.zeros(D_SAE, D_IN), torch.zeros(D_IN))
    top = np.arange(D_SAE, dtype=np.float32) * 10
    record = FeatureStats(top, top, top, top == 0, 500, 2.0, 0.8, 0.9) if stats else None
    return Features(sae, record, prompt, "by hand", version)


ROWS = [[(6, 90.0)], [(5, 2.5), (1, 0.5)], [], [(1, 4.0), (5, 0.25)]]


@pytest.fixture
def state():
    made = ExplorerState(text="a\nb", status=Status("ready", "Ready"))
    yield made
    selection_for(made).close()


@pytest.fixture
def view(state):
    made = TokenStrip(state)
    yield made
    made.close()


def array(view, name, dtype):
    return np.frombuffer(getattr(view.widget, name), dtype).tolist()


def test_without_a_text_a_sentence(view, state):
    assert view.widget.labels == [] and "No text has been read" in view.widget.empty
    state.features = make_features(None)
    assert "No text has been read" in view.widget.empty
    state.status = Status("reading", "Reading")
    assert "as soon as" in view.widget.empty


def test_the_buffers_are_exact(view, state):
    state.features = make_features(make_prompt(make_activations(), ROWS))
    widget = view.widget
    assert widget.labels == ["<|endoftext|>", "a", "↵", "b"] and widget.empty == ""
    assert array(view, "indptr", np.uint32) == [0, 1, 3, 3, 5]
    assert array(view, "ids", np.uint32) == [6, 5, 1, 1, 5]
    assert array(view, "acts", np.float32) == [90.0, 2.5, 0.5, 4.0, 0.25]
    assert array(view, "fired", np.uint32) == [1, 5, 6]
    assert array(view, "maxima", np.float32) == [10.0, 50.0, 60.0]
    assert array(view, "marks", np.uint8) == [LEFT_OUT | NEW_WINDOW, 0, LINE_END, 0]
    assert widget.facts == {"d_sae": D_SAE, "n_corpus": 500, "kept": 0}


def test_dense_features_are_named_while_they_are_hidden(view, state):
    made = make_features(make_prompt(make_activations(), ROWS))
    made.__dict__["dense"] = np.arange(D_SAE) == 5
    state.features = made
    assert array(view, "hidden", np.uint32) == [5]
    state.hide_dense = False
    assert array(view, "hidden", np.uint32) == []
    state.hide_dense = True
    assert array(view, "hidden", np.uint32) == [5]
    state.features = None
    assert view.widget.hidden == b""


def test_without_statistics_there_are_no_maxima(view, state):
    state.features = make_features(make_prompt(make_activations(), ROWS), stats=False)
    assert view.widget.maxima == b"" and array(view, "fired", np.uint32) == [1, 5, 6]


def test_one_token_and_nothing_that_fires(view, state):
    activations = make_activations("x", ("x",), ((0, 1),))
    state.features = make_features(make_prompt(activations, [[]]))
    assert view.widget.labels == ["x"] and view.widget.ids == b"" and view.widget.fault == ""
    assert array(view, "indptr", np.uint32) == [0, 0] and array(view, "marks", np.uint8) == [NEW_WINDOW]


def test_a_sign_for_a_newline_that_somebody_typed_ends_no_line():
    activations = make_activations("a↵b", ("<|endoftext|>", "a", "↵", "b"))
    assert not (token_marks(make_prompt(activations, ROWS)) & LINE_END).any()


def test_hostile_tokens_and_names_travel_as_text(view, state):
    evil = '<img src=x onerror="window.PWN=1">'
    state.feature_names = {5: evil}
    state.features = make_features(make_prompt(make_activations(labels=("<s>", evil, "{{x}}", "$x$")), ROWS))
    assert view.widget.labels[1] == evil and view.widget.names == {"5": evil}


def test_long_labels_and_names_are_cut(view, state):
    state.feature_names = dict.fromkeys(range(5000), "n" * 500)
    state.features = make_features(make_prompt(make_activations(labels=("x" * 9_999, "a", "b", "c")), ROWS))
    assert len(view.widget.labels[0]) == 80
    assert len(view.widget.names) == 2_000 and max(map(len, view.widget.names.values())) == 60


def test_a_long_text_keeps_the_strongest_of_each_token(monkeypatch):
    prompt = make_prompt(
        make_activations(), [[(6, 9.0), (5, 8.0), (4, 7.0)], [(5, 2.5)], [], [(1, 4.0), (5, 3.0), (2, 1.0)]]
    )
    monkeypatch.setattr(tokens, "MOST_FIRINGS", 7)
    assert strongest_firings(prompt)[3] == 0
    monkeypatch.setattr(tokens, "MOST_FIRINGS", 6)
    indptr, ids, acts, kept = strongest_firings(prompt)
    assert kept == 1
    assert (indptr.tolist(), ids.tolist(), acts.tolist()) == ([0, 1, 2, 2, 3], [6, 5, 1], [9.0, 2.5, 4.0])


def test_5000_tokens_with_512_firings_each_stay_under_two_megabytes(view, state):
    n, each = 5_000, 512
    activations = make_activations("", ["t"] * n, [[0, 0]] * n)
    prompt = PromptFeatures(
        activations,
        (np.arange(n + 1) * each).astype(np.uint32),
        np.zeros(n * each, np.uint32),
        np.ones(n * each, np.float32),
        np.zeros(D_SAE, np.float32),
        np.zeros(D_SAE, np.float32),
        np.zeros(n, np.int32),
        np.ones(n, bool),
    )
    state.features = make_features(prompt)
    sizes = [len(getattr(view.widget, name)) for name in ("indptr", "ids", "acts", "fired", "maxima", "marks")]
    assert sum(sizes) <= 2_100_000 and view.widget.facts["kept"] == 50


def test_a_view_made_late_shows_what_one_made_early_shows(view, state):
    state.feature_names, state.scale_to_text = {1: "one"}, True
    state.features = make_features(make_prompt(make_activations(notes=("A note.",)), ROWS))
    late = TokenStrip(state)
    for name in (
        "labels",
        "marks",
        "indptr",
        "ids",
        "acts",
        "fired",
        "maxima",
        "names",
        "facts",
        "notes",
        "scale_to_text",
    ):
        assert getattr(late.widget, name) == getattr(view.widget, name), name
    assert late.widget.notes == ["A note."] and late.widget.scale_to_text is True
    late.close()


def test_the_scale_is_chosen_in_the_browser(view, state):
    view.widget.set_state({"scale_to_text": True})
    assert state.scale_to_text is True
    state.scale_to_text = False
    assert view.widget.scale_to_text is False


@pytest.mark.parametrize(
    "bad",
    [{"scale_to_text": 1}, {"scale_to_text": "yes"}, {"labels": ["x"]}, {"acts": b"1234"}, {"empty": "x"}],
    ids=str,
)
def test_hostile_values_change_nothing(view, state, bad):
    state.features = make_features(make_prompt(make_activations(), ROWS))
    before = {name: getattr(view.widget, name) for name in ("labels", "acts", "scale_to_text", "empty")}
    view.widget.set_state(bad)
    assert {name: getattr(view.widget, name) for name in before} == before
    assert state.scale_to_text is False and view.widget.refused == 1


def test_a_text_that_could_not_be_read_leaves_the_old_strip_marked(view, state):
    state.features = make_features(make_prompt(make_activations(), ROWS))
    state.text = "   "
    assert view.widget.stale == ""
    state.status = Status("ready", "Type some text first (it has 0 tokens).", trouble=True)
    assert view.widget.stale == "Type some text first (it has 0 tokens)."
    assert view.widget.labels[1] == "a"
    state.text = "a\nb"
    assert view.widget.stale == ""


def test_a_fault_of_something_else_does_not_make_the_strip_stale(view, state):
    state.features = make_features(make_prompt(make_activations(), ROWS))
    state.status = Status("ready", "GPT-2 could not be had.", trouble=True)
    assert view.widget.stale == ""


def test_while_training_at_most_one_push_in_the_wait_and_the_last_always(view, state):
    now = [100.0]
    view._clock = lambda: now[0]
    activations = make_activations()
    state.status = Status("training", "Training")
    state.features = make_features(make_prompt(activations, ROWS))
    labels, pushes, sent = view.widget.labels, 0, view.widget.acts
    for step in range(1, 101):
        now[0] += 0.1
        state.features = make_features(make_prompt(activations, [[], [(3, float(step))], [], []]), version=step)
        if view.widget.acts != sent:
            pushes, sent = pushes + 1, view.widget.acts
    assert 20 <= pushes <= 25 and view.widget.labels is labels
    state.features = make_features(make_prompt(activations, [[], [(3, 777.0)], [], []]))
    assert array(view, "acts", np.float32) != [777.0]
    state.status = Status("ready", "Done")
    assert array(view, "acts", np.float32) == [777.0]


def test_the_tokens_show_before_there_is_an_sae(view, state):
    state.activations = make_activations(notes=("A note.",))
    widget = view.widget
    assert widget.empty == "" and widget.labels == ["<|endoftext|>", "a", "↵", "b"] and widget.notes == ["A note."]
    assert array(view, "indptr", np.uint32) == [0, 0, 0, 0, 0] and widget.ids == b""
    assert array(view, "marks", np.uint8) == [LEFT_OUT | NEW_WINDOW, 0, LINE_END, 0]
    assert widget.facts == {"d_sae": 0, "n_corpus": 0, "kept": 0}
    state.features = make_features(make_prompt(state.activations, ROWS))
    assert widget.facts["d_sae"] == D_SAE and array(view, "ids", np.uint32) == [6, 5, 1, 1, 5]
    state.features = None
    assert widget.ids == b"" and widget.labels[1] == "a"
    state.activations = None
    assert widget.labels == [] and "No text has been read" in widget.empty


def test_a_new_text_is_shown_at_once_during_training(view, state):
    state.status = Status("training", "Training")
    state.features = make_features(make_prompt(make_activations(), ROWS))
    state.features = make_features(make_prompt(make_activations("zz", ("<s>", "z", "z", "z")), ROWS))
    assert view.widget.labels == ["<s>", "z", "z", "z"]


def test_a_fault_is_shown_and_closing_leaves_nothing(state):
    shared = selection_for(state)
    before = set(_instances)
    observers = len(state._trait_notifiers["text"]["change"]) if "text" in state._trait_notifiers else 0
    made = TokenStrip(state)
    state.faults = {"tokens": "It broke."}
    assert made.widget.fault == "It broke."
    made.close()
    assert set(_instances) == before and shared.comm is not None
    assert len(state._trait_notifiers["text"]["change"]) == observers
