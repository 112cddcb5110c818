"""Saving and loading a folder: paths that no system has, what is not a number, and which file is read."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from sae_widget.checkpoint import SaeFileError, load_sae, load_stats, load_training_state, save_sae, save_training_state
from sae_widget.checkpoint.base import CONFIG, STATS, TRAINING, WEIGHTS, folder_of
from tests.test_sae import random_sae


@pytest.mark.parametrize(
    ("name", "said"), [("a\0b", "a NUL character"), ("a\ud800b", "half a character"), ("\udfff", "half a character")]
)
def test_a_path_that_no_system_has_is_refused_and_not_looked_for(name: str, said: str, tmp_path: Path) -> None:
    path = f"{tmp_path}/{name}"
    sentence = f"^The path has {said} in it. Nothing was read or written.$"
    for use in (
        lambda: load_sae(path),
        lambda: load_stats(path),
        lambda: load_training_state(path),
        lambda: save_sae(random_sae("topk"), path),
        lambda: save_training_state(path, {}, {}),
        lambda: folder_of(Path(path)),
    ):
        with pytest.raises(SaeFileError, match=sentence):
            use()
    assert not list(tmp_path.iterdir())


def test_a_name_that_is_no_utf8_is_a_folder_as_any_other(tmp_path: Path) -> None:
    folder = os.fsdecode(os.fsencode(tmp_path) + b"/\xff")
    try:
        os.mkdir(folder)  # noqa: PTH102
    except OSError:
        pytest.skip("this system has no such names")
    sae = random_sae("topk")
    save_sae(sae, folder)
    assert torch.equal(load_sae(folder).W_enc, sae.W_enc)
    (Path(folder) / WEIGHTS).unlink()
    with pytest.raises(SaeFileError) as caught:
        load_sae(folder)
    assert str(caught.value).isprintable() and "/?: no such file" in str(caught.value)


@pytest.mark.parametrize(
    "metadata",
    [
        {"context_size": math.nan, "neuronpedia_id": "a/b"},
        {"seqpos_slice": [1, math.inf], "dataset_path": "\ud800"},
        {"training": {"settings": {"learning_rate": -math.inf}}, "layer": 3, "hook_name": "resid_pre"},
    ],
)
def test_metadata_without_a_number_in_json_come_back_without_it(metadata: dict[str, Any], tmp_path: Path) -> None:
    save_sae(random_sae("standard", metadata=metadata), tmp_path)
    told = json.loads((tmp_path / CONFIG).read_text(), parse_constant=pytest.fail)
    assert told["metadata"].get("neuronpedia_id") == metadata.get("neuronpedia_id")

    def finite(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: finite(item) for key, item in value.items()}
        if isinstance(value, list):
            return [finite(item) for item in value]
        return value if not isinstance(value, float) or math.isfinite(value) else None

    assert load_sae(tmp_path).metadata == finite(metadata)


def test_what_json_cannot_say_is_refused_and_nothing_written(tmp_path: Path) -> None:
    for metadata in ({"a": {1, 2}}, {"a": torch.ones(2)}, {(1, 2): "a"}):
        with pytest.raises(SaeFileError, match=r"metadata cannot be saved .*Nothing was written; keep to text"):
            save_sae(random_sae("standard", metadata=metadata), tmp_path / "new")
    assert not (tmp_path / "new").exists() or not any((tmp_path / "new" / name).exists() for name in (CONFIG, WEIGHTS))


def test_statistics_and_training_of_an_earlier_save_go_with_it(tmp_path: Path) -> None:
    sae, stats, training = random_sae("gated"), {"mean": torch.arange(3.0)}, ({"a": torch.ones(2)}, {"step": 4})
    save_sae(sae, tmp_path, stats, training=training)
    assert load_training_state(tmp_path)[1] == {"step": 4}
    found = load_stats(tmp_path)
    assert found is not None and found["mean"].tolist() == [0.0, 1.0, 2.0]
    save_sae(sae, tmp_path, {})
    assert load_stats(tmp_path) == {} and not (tmp_path / TRAINING).exists()
    save_sae(sae, tmp_path)
    assert load_stats(tmp_path) is None and not (tmp_path / STATS).exists()


@pytest.mark.parametrize("dtype", ["float64", "", None, "\ud800"])
def test_another_dtype_is_refused_before_anything_is_written(dtype: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="dtype must be one of float32, float16, bfloat16, got"):
        save_sae(random_sae("topk"), tmp_path / "new", dtype=dtype)
    assert not (tmp_path / "new").exists()


def test_what_was_saved_stays_where_another_cannot_be(tmp_path: Path) -> None:
    good = random_sae("topk")
    save_sae(good, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.suffix in (".json", ".safetensors")}
    for bad in (math.nan, math.inf, -math.inf):
        W_dec = good.W_dec.clone()
        W_dec[3, 1] = bad
        with pytest.raises(SaeFileError, match=r"W_dec has numbers that are not finite in float32\. Nothing"):
            save_sae(random_sae("topk", W_dec=W_dec), tmp_path)
    with pytest.raises(SaeFileError, match="W_dec has numbers that are not finite in float16"):
        save_sae(random_sae("topk", W_dec=good.W_dec * 1e6), tmp_path, dtype="float16")  # float32 holds them
    assert {name: (tmp_path / name).read_bytes() for name in before} == before


def test_a_folder_of_two_kinds_is_read_as_ours(tmp_path: Path) -> None:
    sae = random_sae("topk")
    save_sae(sae, tmp_path)
    (tmp_path / "ae.pt").write_bytes(b"nothing")
    (tmp_path / "sae.safetensors").write_bytes(b"nothing")
    assert torch.equal(load_sae(tmp_path).W_dec, sae.W_dec)
    (tmp_path / WEIGHTS).unlink()
    with pytest.raises(SaeFileError, match=r"config\.json|ae\.pt"):
        load_sae(tmp_path)


def test_the_width_is_told_before_the_weights_are_read(tmp_path: Path) -> None:
    save_sae(random_sae("topk"), tmp_path)
    (tmp_path / WEIGHTS).write_bytes(b"")
    with pytest.raises(SaeFileError, match="W_enc is 6x10, this model needs 8xN"):
        load_sae(tmp_path, d_in=8)
