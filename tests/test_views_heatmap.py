"""The heatmap's buffers, checked by hand; its pages, its pace while training, and its deafness."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ipywidgets.widgets.widget import _instances

from sae_widget.activations.base import Activations
from sae_widget.features import Features, FeatureStats, PromptFeatures
from sae_widget.sae import StandardSAE
from sae_widget.state import ExplorerState, Status
from sae_widget.views import heatmap
from sae_widget.views.heatmap import (
    DEAD,
    QUIET,
    WeightHeatmap,
    colour_limit,
    row_flags,
    row_hints,
    weight_rows,
)
from sae_widget.views.selection import selection_for

D_IN, D_SAE = 3, 40


def prompt_features(mean, *, labels=("<|endoftext|>", "·a", "·b")):
    """A text of three tokens, the first left out; feature 5 fires on all, feature 2 on the last."""
    n = len(labels)
    activations = Activations(
        values=torch.zeros(n, D_IN),
        token_ids=torch.arange(n),
        position=torch.arange(n),
        text_index=torch.zeros(n, dtype=torch.long),
        spans=torch.tensor([[0, 0], [0, 2], [2, 4]]),
        labels=labels,
        texts=(" a b",),
        notes=(),
        model_name="hand",
        layer=0,
        hook_name="resid_pre",
    )
    return PromptFeatures(
        activations=activations,
        indptr=np.array([0, 1, 2, 4], np.uint32),
        ids=np.array([5, 5, 2, 5], np.uint32),
        acts=np.array([90.0, 4.0, 3.0, 2.0], np.float32),
        mean=mean,
        max=mean * 2,
        strongest=np.array([5, 5, 2], np.int32),
        counted=np.array([False, True, True]),
    )


def make_features(d_sae=D_SAE, *, stats=True, prompt=True, version=1):
    """Decoder row i is [i/8, -i/8, 0]; encoder column i is [0, 1, i/4]."""
    number = torch.arange(d_sae, dtype=torch.float32)
    W_dec = torch.stack([number / 8, -number / 8, torch.zeros(d_sae)], dim=1)
    W_enc = torch.stack([torch.zeros(d_sae), torch.ones(d_sae), number / 4])
    sae = StandardSAE(W_enc=W_enc, b_enc=torch.zeros(d_sae), W_dec=W_dec, b_dec=torch.zeros(D_IN))
    frequency = np.linspace(0.5, 0.0, d_sae, dtype=np.float32)
    record = FeatureStats(frequency, frequency, frequency * 8, frequency == 0, 1000, 3.0, 0.8, 0.9)
    mean = np.zeros(d_sae, np.float32)
    mean[[2, 5]] = [1.5, 3.0]
    text = prompt_features(mean) if prompt else None
    return Features(sae, record if stats else None, text, "by hand", version)


@pytest.fixture
def state():
    made = ExplorerState(rows=16, status=Status("ready", "Ready"))
    yield made
    selection_for(made).close()


@pytest.fixture
def view(state):
    made = WeightHeatmap(state)
    yield made
    made.close()


def ids(view):
    return np.frombuffer(view.widget.ids, np.uint32).tolist()


def strips(view):
    return np.frombuffer(view.widget.data, np.float16).reshape(-1, D_IN)


def test_without_features_a_sentence(view, state):
    assert view.widget.data == b"" and "no features" in view.widget.empty
    state.status = Status("loading", "Loading")
    assert "as soon as" in view.widget.empty
    state.features = make_features()
    assert view.widget.empty == ""


def test_a_page_is_sent_exactly(view, state):
    state.sort = "number"
    state.page = 1
    state.features = make_features()
    assert ids(view) == list(range(16, 32))
    assert strips(view).shape == (16, D_IN)
    assert strips(view)[3].tolist() == [19 / 8, -19 / 8, 0.0]
    facts = view.widget.facts
    assert (facts["page"], facts["pages"], facts["d_in"], facts["d_sae"]) == (1, 3, D_IN, D_SAE)
    assert np.frombuffer(view.widget.scores, np.float32)[0] == np.float32(0.5 - 0.5 * 16 / 39)
    state.weights = "encoder"
    assert strips(view)[3].tolist() == [0.0, 1.0, 19 / 4]


def test_the_last_page_is_short_and_the_grid_has_sixteen(view, state):
    state.set_trait("features", make_features())
    state.sort, state.page = "number", 2
    assert ids(view) == list(range(32, 40))
    state.rows, state.page = 64, 0
    assert ids(view) == list(range(40)) and view.widget.facts["pages"] == 1
    state.layout = "grid"
    assert len(ids(view)) == 16 and view.widget.facts["pages"] == 3


def test_sorting(view, state):
    state.features = make_features()
    assert ids(view)[:4] == [5, 2, 0, 1]  # by the mean, then by frequency
    assert np.frombuffer(view.widget.scores, np.float32)[:3].tolist() == [3.0, 1.5, 0.0]
    assert view.widget.facts["score"] == "mean here"
    state.measure, state.token = "token", 2
    assert ids(view)[:3] == [2, 5, 0]
    state.sort = "frequency"
    assert ids(view)[:3] == [0, 1, 2] and view.widget.facts["score"] == "of tokens"


def test_dead_is_not_quiet():
    features = make_features()
    assert row_flags(features, np.array([39, 5, 7, 2])).tolist() == [DEAD, 0, QUIET, 0]
    assert row_flags(make_features(stats=False), np.array([39, 5])).tolist() == [QUIET, 0]
    assert row_flags(make_features(prompt=False), np.array([39, 7])).tolist() == [DEAD, 0]


def test_the_hint_is_the_strongest_token_that_counts():
    assert row_hints(make_features(), np.array([5, 2, 7])) == ["·a", "·b", ""]
    assert row_hints(make_features(prompt=False), np.array([5])) == []


def test_the_limit_is_shared_rounded_up_and_never_zero():
    features = make_features()
    sizes = np.abs(features.sae.W_dec.numpy())
    limit = colour_limit(features, "decoder")
    exact = np.percentile(sizes, heatmap.INSIDE)
    assert exact <= limit <= exact * 1.1 and limit == pytest.approx(round(limit, 1))
    zero = Features(
        StandardSAE(torch.zeros(D_IN, 4), torch.zeros(4), torch.zeros(4, D_IN), torch.zeros(D_IN)),
        None,
        None,
        "",
        1,
    )
    assert colour_limit(zero, "decoder") == 1.0
    zero.sae.W_dec[2, 1] = 0.25
    zero.sae.W_dec[0, 0] = float("nan")
    assert colour_limit(zero, "decoder") == pytest.approx(0.25, rel=0.1)


def test_what_half_precision_cannot_hold_is_cut_and_nan_stays():
    features = make_features(8)
    features.sae.W_dec[1] = torch.tensor([1e9, -1e9, float("nan")])
    row = weight_rows(features, np.array([1]), "decoder")[0]
    assert row[:2].tolist() == [65504.0, -65504.0] and np.isnan(row[2])


def test_a_view_made_late_shows_what_one_made_early_shows(view, state):
    state.sort, state.page, state.feature_names, state.selected = "number", 1, {17: "x" * 99}, 39
    state.features = make_features()
    late = WeightHeatmap(state)
    for name in (
        "data",
        "ids",
        "flags",
        "scores",
        "names",
        "hints",
        "facts",
        "place",
        "page",
        "rows",
        "sort",
    ):
        assert getattr(late.widget, name) == getattr(view.widget, name), name
    assert late.widget.names[1] == "x" * 60 and late.widget.place == [39, 2]
    late.close()


def test_a_name_given_later_is_sent_alone(view, state):
    state.features = make_features()
    data = view.widget.data
    state.feature_names = {5: "<b>a</b>"}
    assert view.widget.names[0] == "<b>a</b>" and view.widget.data is data


def test_the_browser_pages_and_the_state_follows(view, state):
    state.features = make_features()
    view.widget.set_state({"page": 2})
    assert state.page == 2 and view.widget.facts["page"] == 2
    view.widget.set_state({"page": 900})
    assert (state.page, view.widget.page, view.widget.facts["page"]) == (2, 2, 2)
    view.widget.set_state({"sort": "number"})
    assert (state.sort, state.page) == ("number", 0)


@pytest.fixture
def with_dense():
    """A hundred features, of which 0, 7 and 99 fire on a third of all tokens."""
    made = make_features(100)
    made.stats.frequency[:] = 0.01
    made.stats.frequency[[0, 7, 99]] = 0.3
    return made


def test_dense_features_are_hidden_as_in_the_bars(view, state, with_dense):
    state.sort, state.page, state.features = "number", 99, with_dense
    facts = view.widget.facts
    assert (facts["page"], facts["pages"], facts["n_shown"], facts["n_hidden"]) == (6, 7, 97, 3)
    assert ids(view) == [98] and view.widget.hide_dense
    state.hide_dense = False
    facts = view.widget.facts
    assert ids(view) == list(range(96, 100)) and not view.widget.hide_dense
    assert (facts["n_shown"], facts["n_hidden"]) == (100, 0)


def test_a_hidden_feature_that_is_selected_is_shown_on_demand(view, state, with_dense):
    state.sort, state.features, state.selected = "number", with_dense, 99
    assert view.widget.place == [99, -1]
    view.widget.set_state({"hide_dense": False})
    assert not state.hide_dense and state.page == 6
    assert view.widget.place == [99, 6] and ids(view)[-1] == 99


def test_the_first_feature_stays_when_the_page_changes_its_size(view, state):
    state.rows = 64
    state.features = make_features(400)
    view.widget.set_state({"page": 3})
    first = ids(view)[0]
    for change in ({"arrangement": "grid"}, {"arrangement": "strips"}, {"rows": 16}, {"rows": 64}):
        view.widget.set_state(change)
        assert ids(view)[0] == first


HOSTILE = [
    {"page": -1},
    {"page": "1"},
    {"page": 2.0},
    {"page": 10**9},
    {"rows": 17},
    {"rows": "64"},
    {"sort": "<img>"},
    {"weights": None},
    {"arrangement": ["grid"]},
    {"hide_dense": 1},
    {"data": "x"},
    {"ids": b"1234"},
    {"facts": {}},
    {"fault": "boo"},
    {"place": [1, 1]},
]


@pytest.mark.parametrize("bad", HOSTILE, ids=str)
def test_hostile_values_change_nothing(view, state, bad):
    state.features = make_features()
    before = {
        name: getattr(view.widget, name)
        for name in ("page", "rows", "sort", "weights", "data", "ids", "facts", "fault")
    }
    view.widget.set_state(bad)
    assert {name: getattr(view.widget, name) for name in before} == before
    assert (state.page, state.rows, state.sort, view.widget.refused) == (0, 16, "activation", 1)


def test_while_training_at_most_one_push_in_the_wait_and_the_last_always(view, state):
    now = [100.0]
    view._clock = lambda: now[0]
    state.sort = "number"
    state.status = Status("training", "Training")
    state.features = make_features()
    pushes = 0
    sent = view.widget.facts, view.widget.data
    for step in range(1, 101):  # ten seconds, ten records a second
        now[0] += 0.1
        changed = make_features(version=step)
        changed.sae.W_dec[0, 2] = step
        state.features = changed
        if view.widget.data != sent[1]:
            pushes, sent = pushes + 1, (view.widget.facts, view.widget.data)
    assert 20 <= pushes <= 25
    last = make_features()
    last.sae.W_dec[0, 2] = 777
    state.features = last
    assert strips(view)[0, 2] != 777  # just now one was sent
    state.status = Status("ready", "Done")
    assert strips(view)[0, 2] == 777


def test_a_wide_page_is_sent_less_often_while_training(view, state):
    now = [100.0]
    view._clock = lambda: now[0]
    state.sort = "number"
    state.status = Status("training", "Training")
    state.features = make_features()
    view._bytes = 3_000_000
    now[0] += 29.0
    changed = make_features()
    changed.sae.W_dec[0, 2] = 5
    state.features = changed
    assert strips(view)[0, 2] == 0
    now[0] += 2.0
    state.status = Status("training", "Training", step=2)
    assert strips(view)[0, 2] == 5


def test_rows_keep_their_places_for_a_while_during_training_and_are_sorted_at_its_end(view, state):
    now = [100.0]
    view._clock = lambda: now[0]
    state.status = Status("training", "Training")
    state.features = make_features()
    assert ids(view)[:2] == [5, 2]
    now[0] += 1.0
    other = make_features()
    other.prompt.mean[9] = 50.0
    state.features = other
    assert ids(view)[:2] == [5, 2]
    state.status = Status("ready", "Done")
    assert ids(view)[:2] == [9, 5]


def test_paging_answers_at_once_during_training(view, state):
    state.status = Status("training", "Training")
    state.features = make_features()
    state.page = 2
    assert view.widget.facts["page"] == 2


def test_24576_features_page_with_small_messages(view, state):
    state.features = make_features(24_576)
    state.rows = 64
    assert view.widget.facts["pages"] == 384
    state.page = 383
    sizes = [len(getattr(view.widget, name)) for name in ("data", "ids", "flags", "scores")]
    assert sizes == [64 * D_IN * 2, 64 * 4, 64, 64 * 4]
    state.selected = 24_575
    assert view.widget.place == [24_575, 383]


def test_a_fault_is_shown_and_goes_away(view, state):
    state.faults = {"heatmap": "It broke. The rest goes on."}
    assert view.widget.fault == "It broke. The rest goes on."
    state.faults = {}
    assert view.widget.fault == ""


def test_closing_leaves_no_observer_and_no_widget(state):
    shared = selection_for(state)
    before = set(_instances)
    notifiers = {name: list(kinds.get("change", [])) for name, kinds in state._trait_notifiers.items()}
    made = WeightHeatmap(state)
    made.close()
    assert set(_instances) == before and shared.comm is not None
    after = {name: list(kinds.get("change", [])) for name, kinds in state._trait_notifiers.items()}
    assert {k: v for k, v in after.items() if v} == {k: v for k, v in notifiers.items() if v}
