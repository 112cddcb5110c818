"""Presets set everything in one go, and are recognised again."""

from __future__ import annotations

import pytest

from sae_widget.config import TrainConfig
from sae_widget.state import ExplorerState
from sae_widget.views.presets import PRESETS, SENTENCES
from tests.hand_made import language_model


@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.label)
def test_a_preset_is_recognised_after_it_was_set_and_no_other_is(preset):
    state = ExplorerState(language_model=language_model(n_layer=6))
    preset.apply(state)
    assert [other.label for other in PRESETS if other.fits(state)] == [preset.label]
    state.settings = state.settings.changed(seed=5)
    assert not preset.fits(state)


def test_the_tutorial_is_the_tutorial():
    state = ExplorerState(language_model=language_model(n_layer=6), refused={"k": "no"})
    PRESETS[0].apply(state)
    assert state.settings == TrainConfig.original_tutorial()
    assert (state.hook_name, state.layer, state.corpus, state.prepend_bos) == ("final_norm", 5, "text", False)
    assert state.text == SENTENCES["best of times"] == "It was the best of times, it was the worst of times."
    assert state.refused == {}


def test_observers_see_no_half_set_preset():
    state = ExplorerState(language_model=language_model())
    seen = []
    state.observe(lambda _: seen.append((state.corpus, state.hook_name, state.settings.d_sae)))
    PRESETS[0].apply(state)
    assert set(seen) == {("text", "final_norm", 16)}


def test_without_a_model_the_layer_is_left():
    state = ExplorerState(layer=3)
    PRESETS[0].apply(state)
    assert state.layer == 3 and PRESETS[0].fits(state)
