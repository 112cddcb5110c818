"""sae_widget.runs.saved: edges of its fields, what is shown against what the form says, and whole files."""

from __future__ import annotations

import json
import os
import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sae_widget.activations.base import Activations
from sae_widget.checkpoint import SaeFileError
from sae_widget.config import MAX_D_SAE, TrainConfig
from sae_widget.runs import (
    EXPLORER,
    MAX_BYTES,
    SavedExplorer,
    describe,
    describe_shown,
    read_explorer,
    write_explorer,
    write_json,
)
from tests.hand_made import activations, features

PLACE: dict[str, Any] = {"model": "gpt2", "layer": 3, "hook_name": "mlp_out", "prepend_bos": False}
FORM: dict[str, Any] = PLACE | {"text": "refused", "corpus": "text", "corpus_tokens": 40, "selected": 7}


def shown(given: Activations | None, form: dict[str, Any] = FORM, *, prompt: bool = False) -> SavedExplorer:
    return describe_shown(features(prompt=prompt), given, TrainConfig(), {2: "half a \ud800"}, form)


def test_the_first_and_the_last_feature_can_have_a_name(tmp_path: Path) -> None:
    names = {0: "", MAX_D_SAE - 1: "x" * 1_000, np.int64(5): "a\0b\n"}
    write_explorer(tmp_path, describe(TrainConfig(), names, **PLACE, selected=MAX_D_SAE - 1, text=""))
    again = read_explorer(tmp_path)
    assert again.names == names and (again.selected, again.text) == (MAX_D_SAE - 1, "")
    assert "selected" not in again.inputs and again.inputs["d_sae"] == TrainConfig().d_sae


@pytest.mark.parametrize("key", [True, -1, 1.0, MAX_D_SAE, "", " 1", "1\n", "1_0"])
def test_what_is_no_feature_has_no_name(key: Any) -> None:
    words = f"This cannot be saved: feature_names: {str(key)!r} is not the number of a feature. Nothing was written."
    with pytest.raises(SaeFileError, match=f"^{re.escape(words)}$"):
        describe(TrainConfig(), {key: "x"}, **PLACE)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model": "a\udcff"}, "model: input should be a valid string"),
        ({"hook_name": "mlp_out\n"}, "hook_name: string should match"),
        ({"layer": np.int64(3)}, "layer: input should be a valid integer"),
        ({"device": "cuda"}, "device: extra inputs are not permitted"),
    ],
)
def test_an_input_that_no_file_can_have_is_named(change: dict[str, Any], words: str) -> None:
    with pytest.raises(SaeFileError, match=rf"^This cannot be saved: {words}.* Nothing was written\.$"):
        describe(TrainConfig(), **PLACE | change)
    with pytest.raises(SaeFileError, match=r"^This cannot be saved: model: field required\."):
        describe(TrainConfig())


@pytest.mark.parametrize("name", ["learning_rate", "l1_coefficient", "d_sae", "k", "seed", "steps", "batch_size"])
@pytest.mark.parametrize("value", [10**400, -(10**400), 1e308, "", True])
def test_a_recipe_with_absurd_numbers_is_refused_in_a_sentence(tmp_path: Path, name: str, value: Any) -> None:
    (tmp_path / EXPLORER).write_text(json.dumps(PLACE | {"settings": {name: value}}))
    with pytest.raises(SaeFileError, match=f"^explorer.json: settings: {name} must be") as caught:
        read_explorer(tmp_path)
    assert len(str(caught.value)) < 300


def test_the_largest_file_is_read(tmp_path: Path) -> None:
    (tmp_path / EXPLORER).write_bytes(json.dumps(PLACE).encode().ljust(MAX_BYTES))
    assert read_explorer(tmp_path).model == "gpt2"


@pytest.mark.parametrize("given", ["a\0b", "\ud800", "x" * 5_000, os.fsdecode(b"a\xff")])
def test_a_folder_that_no_system_has_is_a_sentence(given: str) -> None:
    with pytest.raises(SaeFileError, match=r"^No explorer could be read from .*Nothing was loaded") as caught:
        read_explorer(given)
    assert str(caught.value).isprintable()


def test_where_it_is_shown_counts_and_not_where_the_form_says() -> None:
    read = shown(activations())
    assert (read.model, read.layer, read.hook_name, read.prepend_bos) == ("bundled", 2, "resid_pre", True)
    assert (read.text, read.corpus, read.corpus_tokens, read.selected) == (" a <b> c", "text", 40, 7)
    assert read.names == {2: "half a \ufffd"}
    bare = replace(activations(), spans=torch.tensor([[0, 2], [2, 6], [6, 7], [7, 8]]), texts=("one", "", "two"))
    assert (shown(bare).prepend_bos, shown(bare).text) == (False, "one\n\ntwo")
    assert shown(replace(bare, model_name="another"), prompt=True) == read  # the features know their own text
    assert shown(None).inputs | {"selected": 7} == FORM | asdict(TrainConfig())  # nothing was read: the form counts
    assert shown(None, FORM | {"text": "\ud83d\ude00\udcff"}).text == "😀\ufffd"


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"a\xff.json")
    write_json(path, {"a": "Ä\ud800"})
    write_json(path, {"a": "Ä\ud800"}, indent=1)  # once more is once
    before = path.read_bytes()
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert path.read_bytes() == before == b'{\n "a": "\\u00c4\\ud800"\n}'
    assert [found.name for found in tmp_path.iterdir()] == [path.name]
