"""``cfg.json`` of before SAELens 6 said anew, by hand; and what such a file may have in place of a value."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sae_widget.checkpoint import SaeFileError
from sae_widget.checkpoint.config import parse_config
from sae_widget.checkpoint.old import is_old, modern

SIZES = {"d_in": 3, "d_sae": 5}


@pytest.mark.parametrize(
    ("told", "old"),
    [
        ({}, True),
        ({"sae_lens_version": "5.10.7"}, True),
        ({"sae_lens_version": "6.0.0"}, False),
        ({"sae_lens_version": "10.1"}, False),
        ({"sae_lens_version": "6"}, False),
        ({"sae_lens_version": "newest"}, True),
        ({"sae_lens_version": 6}, True),
        ({"sae_lens_version": None, "metadata": {"sae_lens_version": "6.1"}}, False),
        ({"metadata": {"sae_lens_version": "5.9"}}, True),
        ({"metadata": {"sae_widget": {}}}, False),
        ({"metadata": {"sae_widget": {}, "sae_lens_version": "3.1"}}, True),
        ({"metadata": {}}, True),
        ({"metadata": None}, True),
        ({"metadata": "6.0"}, True),
        ({"sae_lens_version": "9" * 5000}, False),
    ],
)
def test_which_files_are_old(told: dict[str, Any], old: bool) -> None:
    assert is_old(told) is old


@pytest.mark.parametrize(
    ("told", "wanted"),
    [
        ({}, {"architecture": "standard", "metadata": {}}),
        ({"hook_point": "a", "other": 1}, {"architecture": "standard", "metadata": {"hook_name": "a"}}),
        (
            {"metadata": {"hook_point": "a"}},
            {"architecture": "standard", "metadata": {}},
        ),  # only the outer names change
        (
            {"metadata": {"model_name": "a", "context_size": 8}, "model_name": "b"},
            {"architecture": "standard", "metadata": {"model_name": "b", "context_size": 8}},
        ),
        (
            {"activation_fn": "topk", "activation_fn_kwargs": {"k": 2}},
            {"architecture": "topk", "activation_fn_str": "topk", "k": 2, "metadata": {}},
        ),
        (
            {"activation_fn_str": "topk", "activation_fn_kwargs": {}},
            {"architecture": "standard", "activation_fn_str": "topk", "metadata": {}},
        ),
        (
            {"architecture": "topk", "k": 4, "activation_fn_kwargs": {"k": 2}},
            {"architecture": "topk", "k": 2, "metadata": {}},
        ),
        (
            {"architecture": "gated", "k": None, "activation_fn_kwargs": [2]},
            {"architecture": "gated", "metadata": {}},
        ),
        (
            {"normalize_activations": True},
            {"architecture": "standard", "normalize_activations": "expected_average_only_in", "metadata": {}},
        ),
        (
            {"normalize_activations": False},
            {"architecture": "standard", "normalize_activations": "none", "metadata": {}},
        ),
        (
            {"normalize_activations": "layer_norm", "metadata": 7},
            {"architecture": "standard", "normalize_activations": "layer_norm", "metadata": {}},
        ),
    ],
)
def test_settings_said_anew(told: dict[str, Any], wanted: dict[str, Any]) -> None:
    before = json.dumps(told)
    assert modern(told) == wanted
    assert json.dumps(told) == before


STRANGE = [None, True, 3, -1, 2.5, "\ud800", "x" * 70_000, [], [[1]], {}, {"k": {"k": 1}}]


@pytest.mark.parametrize("value", STRANGE, ids=lambda value: repr(value)[:12])
@pytest.mark.parametrize(
    "field",
    [
        "architecture", "dtype", "activation_fn", "activation_fn_kwargs", "normalize_activations", "hook_point", "k",
        "hook_point_head_index", "metadata", "model_from_pretrained_kwargs", "sae_lens_version", "apply_b_dec_to_input",
        "finetuning_scaling_factor", "reshape_activations", "rescale_acts_by_decoder_norm", "seqpos_slice",
    ],
)  # fmt: skip
def test_a_strange_value_is_refused_in_a_sentence_or_harmless(field: str, value: Any) -> None:
    content = json.dumps(SIZES | {field: value}).encode()
    try:
        config = parse_config(content)
    except SaeFileError as fault:
        words = str(fault)
        assert words.startswith("cfg.json: ") and words.endswith("Nothing was loaded, and what you have is unchanged.")
        assert words.isprintable() and len(words) < 400
    else:
        assert (config.architecture, config.d_in, config.d_sae) == ("standard", 3, 5)
        assert isinstance(config.sae_metadata(), dict) and config.normalization in ("none", "layer_norm")
