"""sae_widget.layers: a layer is what was asked for, or the nearest with a word about it."""

from __future__ import annotations

from sae_widget.layers import LayerKeeper
from sae_widget.state import ExplorerState
from tests.hand_made import language_model


def test_without_a_wish_each_model_has_its_own_layer():
    state = ExplorerState(layer=9)
    LayerKeeper(state, None, lambda n_layer: n_layer - 1)
    for n_layer in (6, 3, 12, 1):
        state.language_model = language_model(n_layer=n_layer)
        assert state.layer == n_layer - 1 and state.refused == {}
    state.language_model = None
    assert state.layer == 0


def test_a_wish_waits_for_a_model_that_has_it():
    state = ExplorerState(layer=11, refused={"text": "too long"})
    LayerKeeper(state, 11, lambda n_layer: 0)
    state.language_model = language_model(n_layer=6)
    words = "This model has layers 0 to 5: layer 5 is shown instead of 11."
    assert state.layer == 5 and state.refused == {"text": "too long", "layer": words}
    state.language_model = language_model(n_layer=12)
    assert state.layer == 11 and state.refused == {"text": "too long"}


def test_another_choice_is_the_new_wish():
    state = ExplorerState(layer=2)
    LayerKeeper(state, 2, lambda n_layer: 0)
    state.language_model = language_model(n_layer=1)
    assert state.refused == {"layer": "This model has only layer 0: layer 0 is shown instead of 2."}
    state.language_model = language_model(n_layer=6)
    state.layer = 4
    state.language_model = language_model(n_layer=3)
    assert state.layer == 2 and state.refused["layer"].endswith("instead of 4.")
    state.layer = 1
    assert state.refused == {}
