"""The health row: what it is made from, when the training speaks and when the SAE that is shown."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest

from sae_widget.config import TrainConfig
from sae_widget.features import FeatureStats
from sae_widget.fidelity import Fidelity
from sae_widget.sae import StandardSAE, TopKSAE
from sae_widget.state import Status
from sae_widget.training import History
from sae_widget.views import health
from sae_widget.views.health import (
    NOTHING_YET,
    HealthRow,
    aimed_at,
    current_numbers,
    first_token_share,
    held_out,
)
from tests.hand_made import activations, features, history, step

FIDELITY = Fidelity(
    ce_clean=3.2, ce_sae=3.29, ce_zero=7.7, ce_mean=6.9, recovered_zero=0.98, recovered_mean=0.9757, kl=0.0123,
    n_tokens=4096,
)  # fmt: skip


def test_the_first_tokens_share():
    assert first_token_share(activations()) == pytest.approx(0.8)
    assert math.isnan(first_token_share(None))


def test_shown_sae_and_running_training_take_turns(state):
    row = HealthRow(state)
    assert row.row.empty == NOTHING_YET and row.row.cards == []
    state.features = features()
    assert [card["number"] for card in row.row.cards] == ["15.8", "0.75", "0.99", "10"]
    assert row.head.note == "by hand, on 30,000 tokens"
    state.settings = state.settings.changed(d_sae=64)
    state.history = history(3)
    state.status = Status("training", "Training", 3, 10)
    assert [card["number"] for card in row.row.cards] == ["16.0", "0.50", "0.90", "4"]
    assert row.head.note == "on the latest batch"
    state.status = Status("ready", "Ready")
    assert row.row.cards[1]["number"] == "0.75"
    row.close()


def test_a_running_training_is_measured_by_its_own_settings(state):
    state.history = History(config=TrainConfig(architecture="standard", d_sae=64, target_l0=24.0))
    state.history.append(step(1))
    state.status = Status("training", "Training", 1, 10)
    state.settings = TrainConfig(architecture="topk", d_sae=256)  # what the form says by now is for the next one
    found = current_numbers(state)
    assert found is not None and (found.d_sae, found.target_l0) == (64, 24.0)


def test_without_statistics_the_history_speaks(state):
    state.features, state.history = features(stats=False), history(2)
    found = current_numbers(state)
    assert found is not None and found.l0 == 16.0
    state.history = None
    assert current_numbers(state) is None


def test_a_history_speaks_for_no_other_sae(state, monkeypatch):
    monkeypatch.setattr(health, "HELD_OUT", "explained_variance")
    state.features, state.history, state.history_of = features(), history(2), "another"
    assert math.isnan(current_numbers(state).validation)
    state.history_of = state.features.key
    assert current_numbers(state).validation == 0.5
    state.features, state.history_of = features(stats=False), "another"
    assert current_numbers(state) is None
    state.features = None
    assert current_numbers(state) is None
    state.status = Status("training", "Training", 2, 10)
    assert current_numbers(state).validation == 0.5


def test_a_training_with_a_target_says_it(state):
    state.settings = state.settings.changed(architecture="gated", target_l0=20.0)
    state.history, state.status = history(2), Status("training", "")
    found = current_numbers(state)
    assert found is not None and found.target_l0 == 20.0
    state.settings = state.settings.changed(architecture="topk")  # its k is exact
    assert current_numbers(state).target_l0 == 0.0


@pytest.mark.parametrize(
    ("noted", "target"),
    [
        ({"training": {"settings": {"target_l0": 12}}}, 12.0),
        ({"training": {"settings": {"target_l0": 0.0}}}, 0.0),
        ({"training": {"settings": {"target_l0": float("nan")}}}, 0.0),
        ({"training": {"settings": {"target_l0": "12"}}}, 0.0),
        ({"training": {"settings": ["target_l0"]}}, 0.0),
        ({"training": 5}, 0.0),
        ({}, 0.0),
    ],
)
def test_the_target_of_the_sae_that_is_shown(noted, target):
    sae = replace(features().sae, metadata=noted)
    assert isinstance(sae, StandardSAE) and aimed_at(sae) == target
    parts = {name: getattr(sae, name) for name in ("W_enc", "b_enc", "W_dec", "b_dec")}
    assert aimed_at(TopKSAE(**parts, k=2, metadata=noted)) == 0.0


def test_what_the_model_loses_is_of_the_sae_that_is_shown(state):
    row = HealthRow(state)
    state.features, state.fidelity = features(), FIDELITY
    assert [fact[:2] for fact in row.row.facts] == [("CE recovered", "98.0%"), ("KL", "0.012")]
    state.history, state.status = history(3), Status("training", "")
    assert row.row.facts == []
    state.status = Status("ready", "Ready")
    assert len(row.row.facts) == 2
    state.fidelity = None
    assert row.row.facts == []
    state.unmeasured = "the text is too short"
    assert row.row.facts[0][:2] == ("CE recovered and KL are not measured: the text is too short.", "")
    state.status = Status("training", "")
    assert row.row.facts == []
    row.close()


@dataclass(frozen=True, eq=False)
class StatsWithBias(FeatureStats):
    relative_reconstruction_bias: float = 0.93


def test_a_measured_shrinkage_is_shown(state):
    shown = features()
    known = {name: getattr(shown.stats, name) for name in FeatureStats.__dataclass_fields__}
    state.features = replace(shown, stats=StatsWithBias(**known))
    row = HealthRow(state)
    assert [fact[:2] for fact in row.row.facts] == [("size kept (1 − shrinkage)", "93%")]
    row.close()


def test_the_last_measured_number_on_held_out_text(monkeypatch):
    assert math.isnan(held_out(None)) and math.isnan(held_out(history(0)))
    monkeypatch.setattr(health, "HELD_OUT", "explained_variance")  # any column of the history
    made = history(3, explained_variance=0.25)
    assert held_out(made) == 0.25
    for _ in range(5):
        made.append(history(1, explained_variance=math.nan).last)
    assert len(made) == 8 and held_out(made) == 0.25
    monkeypatch.setattr(health, "HELD_OUT", "not a column")
    assert math.isnan(held_out(made))


def test_the_frequencies_of_the_shown_sae_are_drawn(state):
    row = HealthRow(state)
    assert row.row.bars == []
    state.features = features()  # 140 fire on 0.4% of the tokens, 10 never
    assert row.row.bars[0] == ["never", 10]
    assert [bar for bar in row.row.bars[1:] if bar[1]] == [["on 0.32% to 1% of tokens", 140]]
    assert np.sum([bar[1] for bar in row.row.bars]) == 150
    row.close()
