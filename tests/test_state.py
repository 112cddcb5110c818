"""The state refuses what it cannot hold and tells its observers under one lock."""

import threading

import pytest
from traitlets import TraitError

from sae_widget.config import TrainConfig
from sae_widget.state import ExplorerState, Status


@pytest.mark.parametrize(
    ("trait", "value"),
    [
        ("hook_name", "blocks.0"),
        ("sort", "beauty"),
        ("rows", 17),
        ("page", -1),
        ("layer", "3"),
        ("selected", "3"),
        ("selected", -1),
        ("token", -1),
        ("settings", {"d_sae": 3}),
        ("text", 3),
        ("measure", 3),
    ],
)
def test_a_wrong_value_is_refused_and_the_old_one_kept(trait, value):
    state = ExplorerState()
    before = getattr(state, trait)
    with pytest.raises(TraitError):
        setattr(state, trait, value)
    assert getattr(state, trait) == before


def test_inputs_can_be_given_at_the_start():
    state = ExplorerState(text="hello", layer=3, settings=TrainConfig(d_sae=64))
    assert (state.text, state.layer, state.settings.d_sae) == ("hello", 3, 64)
    assert state.status == Status()


def test_two_threads_never_run_observers_at_once():
    state, inside, overlaps = ExplorerState(), [], []

    def slow(_change):
        inside.append(1)
        if len(inside) > 1:
            overlaps.append(1)
        threading.Event().wait(0.002)
        inside.pop()

    state.observe(slow, names=["page", "bar_page"])

    def turn(trait):
        for i in range(1, 30):
            setattr(state, trait, i)

    threads = [threading.Thread(target=turn, args=(name,)) for name in ("page", "bar_page")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (state.page, state.bar_page) == (29, 29)
    assert not overlaps
