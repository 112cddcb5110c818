"""sae_widget.activations.families: hostile configs are refused before anything is built (F49, F52)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sae_widget.activations.base import DamagedModelError, ModelLoadError
from sae_widget.activations.families import FAMILIES, check_config, read_config

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
FIELDS = sorted({name for f in FAMILIES.values() for name in (f.d_in, f.n_layer, f.n_head, f.n_positions, f.d_mlp)})


def test_gpt2s_own_sizes() -> None:
    family, sizes = check_config({"model_type": "gpt2"}, "gpt2")
    assert family.class_name == "GPT2LMHeadModel"
    assert (sizes.d_in, sizes.n_layer, sizes.n_head, sizes.n_positions, sizes.d_mlp) == (
        768,
        12,
        12,
        1024,
        3072,
    )
    assert sizes.parameters == pytest.approx(124_439_808, rel=0.02)


def test_both_spellings_of_gpt2s_sizes() -> None:
    _, sizes = check_config({"model_type": "gpt2", "hidden_size": 48, "num_hidden_layers": 2}, "x")
    assert (sizes.d_in, sizes.n_layer) == (48, 2)


@pytest.mark.parametrize(
    "change",
    [
        {"n_embd": 10**9},
        {"n_embd": 0},
        {"n_embd": -768},
        {"n_embd": 768.0},
        {"n_embd": "768"},
        {"n_embd": True},
        {"n_embd": None},
        {"n_layer": -1},
        {"n_layer": 0},
        {"n_layer": 10**6},
        {"n_head": 0},
        {"n_head": 5},
        {"n_positions": 0},
        {"n_positions": 10**12},
        {"n_inner": 10**9},
        {"vocab_size": 10**10},
        {"vocab_size": [1, 2]},
        {"hidden_size": 10**9},
        {"add_cross_attention": True},
        {"auto_map": {"AutoConfig": "evil.Config"}},
        {"model_type": ["gpt2"]},
        {"model_type": None},
        {"model_type": "no_family"},
    ],
)
def test_hostile_configs(change: dict[str, Any]) -> None:
    with pytest.raises(ModelLoadError) as caught:
        check_config({"model_type": "gpt2"} | change, "evil/model")
    assert str(caught.value).startswith("evil/model")


@given(
    st.dictionaries(st.sampled_from([*FIELDS, "vocab_size", "auto_map"]), JSON),
    st.sampled_from(sorted(FAMILIES)),
)
def test_any_config_gives_sound_sizes_or_a_sentence(config: dict[str, Any], model_type: str) -> None:
    try:
        _, sizes = check_config(config | {"model_type": model_type}, "x")
    except ModelLoadError:
        return
    assert sizes.d_in % sizes.n_head == 0 and 1 <= sizes.n_layer <= 200


@pytest.mark.parametrize(
    "text",
    ["", "{", "[" * 200_000, '{"a": ' + "9" * 5000 + "}", "\xff", "[]", "3", "x" * 1_000_001],
    ids=["empty", "open", "deep", "long number", "latin", "list", "number", "large"],
)
def test_files_that_are_no_config(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ModelLoadError):
        read_config(path, "x")


def test_missing_and_readable_configs(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="not a model directory"):
        read_config(tmp_path / "config.json", "x")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    assert read_config(tmp_path / "config.json", "x") == {"model_type": "gpt2"}
    with pytest.raises(DamagedModelError):
        read_config(tmp_path, "x")
