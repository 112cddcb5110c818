"""Settings are refused by name, with the allowed range."""

import inspect
import math
from dataclasses import fields

import pytest
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from sae_widget import SuperpositionExplorer
from sae_widget.config import ALIASES, TrainConfig, refuse_unknown


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("d_sae", 0),
        ("d_sae", -5),
        ("d_sae", 200_000),
        ("k", 0),
        ("steps", 0),
        ("steps", 10**9),
        ("batch_size", -1),
        ("seed", -1),
        ("seed", 2**40),
        ("learning_rate", math.nan),
        ("learning_rate", math.inf),
        ("learning_rate", 0.0),
        ("learning_rate", -1e-3),
        ("learning_rate", 1e30),
        ("l1_coefficient", math.nan),
        ("l1_coefficient", -0.1),
        ("l1_warmup", 1.5),
        ("architecture", "gpt"),
        ("loss_reduction", "max"),
        ("lr_schedule", "cosine"),
    ],
)
def test_out_of_range_names_the_field(field, value):
    with pytest.raises(ValueError, match=f"{field} must be"):
        TrainConfig(**{field: value})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("d_sae", 16.0),
        ("d_sae", True),
        ("d_sae", "6144"),
        ("steps", None),
        ("learning_rate", "fast"),
        ("learning_rate", True),
        ("center", 1),
        ("seed", 1.5),
    ],
)
def test_wrong_type_names_the_field(field, value):
    with pytest.raises(TypeError, match=f"{field} must be"):
        TrainConfig(**{field: value})


def test_k_cannot_exceed_the_width():
    with pytest.raises(ValueError, match=r"k must be between 1 and d_sae \(8\), got 9"):
        TrainConfig(d_sae=8, k=9)
    assert TrainConfig(architecture="standard", d_sae=8, k=9).d_sae == 8


ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=10),
    st.binary(max_size=3),
    st.lists(st.integers(), max_size=2),
    st.sampled_from([10**400, -(10**5000), 2**63, math.inf, -0.0, 1e-320]),
)


@hypothesis_settings(max_examples=600)
@example(field="seed", value=10**5000)
@example(field="learning_rate", value=10**400)
@given(field=st.sampled_from([f.name for f in fields(TrainConfig)]), value=ANYTHING)
def test_any_value_of_any_setting_is_taken_or_refused_by_name(field, value):
    """F12, F14, F17"""
    try:
        taken = getattr(TrainConfig(d_sae=131_072).changed(**{field: value}), field)
    except (ValueError, TypeError) as fault:
        said = str(fault)
        assert said.startswith(f"{field} must be") or (field == "d_sae" and said.startswith("k must be")), said
        assert len(said) < 300
    else:
        assert taken == value and type(taken) is type(value)
        assert not isinstance(value, float) or math.isfinite(value)


@pytest.mark.parametrize("device", ["cuda", "mps", "gpu", "cpu"])
def test_a_device_is_refused_with_what_there_is(device):
    with pytest.raises(TypeError, match="no setting 'device': everything runs on the CPU in float32; leave it out"):
        TrainConfig().changed(device=device)


def test_unknown_settings_are_refused_with_the_nearest_name():
    with pytest.raises(TypeError, match="'learning_rat'; did you mean 'learning_rate'"):
        TrainConfig().changed(learning_rat=1.0)
    with pytest.raises(TypeError, match="known: a, b"):
        refuse_unknown({"zzz": 1}, ["b", "a"])


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("l1", "l1_coefficient"),
        ("lambda", "l1_coefficient"),
        ("lr", "learning_rate"),
        ("epochs", "steps"),
        ("hidden_dim", "d_sae"),
        ("dict_size", "d_sae"),
        ("n_features", "d_sae"),
    ],
)
def test_the_names_of_others_lead_to_ours(name, ours):
    with pytest.raises(TypeError, match=f"unknown setting {name!r}; did you mean {ours!r}"):
        TrainConfig().changed(**{name: 1})


def test_every_name_of_others_is_none_of_ours_and_leads_to_one():
    known = {*inspect.signature(SuperpositionExplorer).parameters}
    assert set(ALIASES.values()) <= known and not ALIASES.keys() & known
    with pytest.raises(TypeError, match="unknown setting 'hook'; known: "):
        TrainConfig().changed(hook=1)  # hook_name is none of its fields


def test_changing_makes_a_checked_copy():
    config = TrainConfig()
    assert config.changed(d_sae=32).d_sae == 32
    assert config.d_sae == TrainConfig().d_sae
    with pytest.raises(ValueError, match="d_sae"):
        config.changed(d_sae=-1)


def test_the_original_tutorial_is_the_published_recipe():
    original = TrainConfig.original_tutorial()
    assert (original.d_sae, original.steps, original.learning_rate, original.l1_coefficient) == (16, 500, 1e-3, 0.01)
    assert (original.architecture, original.batch_size, original.lr_schedule) == ("standard", 0, "halving")
    assert original.loss_reduction == "mean"
    assert not any((original.skip_first, original.normalize, original.center, original.unit_norm_decoder))
    assert TrainConfig.original_tutorial(seed=3).seed == 3
