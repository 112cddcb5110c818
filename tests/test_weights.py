"""sae_widget.activations.weights: damaged weight files are told from their header, in a moment."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from sae_widget.activations.base import DamagedModelError, ModelLoadError
from sae_widget.activations.families import check_config
from sae_widget.activations.weights import check_weights, shard_names, weight_files

SIZES = check_config({"model_type": "gpt2", "n_embd": 24, "n_layer": 1, "n_head": 2, "vocab_size": 30}, "x")[1]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    save_file({"wte.weight": torch.zeros(30, 24), "rest": torch.zeros(6912, dtype=torch.float16)}, path)
    return path


def test_whole_files_pass(file: Path) -> None:
    assert weight_files(file.parent, "x") == [file]
    check_weights([file], SIZES, "x")


def test_a_config_larger_than_the_weights(file: Path) -> None:
    sizes = check_config({"model_type": "gpt2", "n_embd": 240, "n_layer": 9, "n_head": 2}, "x")[1]
    with pytest.raises(ModelLoadError, match="7,632 are there"):
        check_weights([file], sizes, "x")


def test_every_truncation_and_any_flipped_byte_is_a_sentence_or_harmless(file: Path) -> None:
    whole = file.read_bytes()
    rng = random.Random(0)
    for size in (0, 1, 7, 8, 9, 50, len(whole) - 1):
        file.write_bytes(whole[:size])
        with pytest.raises(DamagedModelError, match="damaged or incomplete"):
            check_weights([file], SIZES, "x")
    for _ in range(300):
        spoiled = bytearray(whole)
        spoiled[rng.randrange(200)] = rng.randrange(256)
        file.write_bytes(spoiled)
        try:
            check_weights([file], SIZES, "x")
        except ModelLoadError as error:
            assert str(error).startswith("x: ")


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]},
        {"dtype": "F99", "shape": [1], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [-1], "data_offsets": [0, -4]},
        {"dtype": "F32", "shape": [10**12], "data_offsets": [0, 4 * 10**12]},
        {"dtype": "F32", "shape": "no", "data_offsets": [0, 4]},
        {"dtype": "F32"},
        [],
    ],
)
def test_headers_that_lie(tmp_path: Path, entry: Any) -> None:
    header = json.dumps({"a": entry}).encode()
    path = tmp_path / "model.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    with pytest.raises(DamagedModelError):
        check_weights([path], SIZES, "x")


def test_shards_stay_in_their_directory(tmp_path: Path) -> None:
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "b.safetensors", "c": "a.safetensors"}}))
    assert shard_names(index, "x") == ["a.safetensors", "b.safetensors"]
    for name in ("../b.safetensors", "/etc/passwd", "b.bin", 3, "sub/b.safetensors"):
        index.write_text(json.dumps({"weight_map": {"a": name}}))
        with pytest.raises(ModelLoadError):
            shard_names(index, "x")
    for text in ("", "[]", "{}", '{"weight_map": 3}', '{"weight_map": {}}'):
        index.write_text(text)
        with pytest.raises(ModelLoadError):
            shard_names(index, "x")
