"""The state of a training on disk comes back bit for bit, or not at all."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from sae_widget.checkpoint import SaeFileError, load_sae, load_training_state, save_sae, save_training_state
from sae_widget.checkpoint.base import TRAINING, TRAINING_INFO
from tests.sae_folders import an_sae


def a_state() -> dict[str, torch.Tensor]:
    """One tensor of every dtype, views of one storage, and shapes that nothing else has."""
    g = torch.Generator().manual_seed(3)
    flat = torch.randn(24, generator=g)
    return {
        "W_enc": flat[:12].view(3, 4).t(),
        "W_dec": flat[12:].view(4, 3),
        "double": torch.randn(5, generator=g, dtype=torch.float64),
        "half": torch.randn(3, generator=g).to(torch.bfloat16),
        "float16": torch.randn(3, generator=g).to(torch.float16),
        "odd": torch.tensor([math.nan, math.inf, -0.0]),
        "step": torch.tensor(7),
        "seen": torch.tensor([True, False, True]),
        "rng": torch.get_rng_state(),
        "none": torch.zeros(0, 3),
    }


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    bits = [t.contiguous().reshape(-1).view(torch.uint8).tolist() for t in (a, b)]
    return a.dtype == b.dtype and a.shape == b.shape and bits[0] == bits[1]


def test_every_bit_comes_back(tmp_path: Path) -> None:
    info: dict[str, Any] = {"step": 7, "loss": [0.1 + 0.2, 1e-310, math.nan], "rng": "x" * 1000, "deep": {"a": [None]}}
    save_training_state(tmp_path / "run", a_state(), info)
    tensors, told = load_training_state(tmp_path / "run")
    assert tensors.keys() == a_state().keys()
    assert all(same(tensor, tensors[name]) for name, tensor in a_state().items())
    assert repr(told) == repr(info)
    theirs = load_file(tmp_path / "run" / TRAINING)  # the library reads what we write
    assert all(same(tensor, tensors[name]) for name, tensor in theirs.items())


def test_it_is_replaced_whole_and_belongs_to_its_sae(tmp_path: Path) -> None:
    save_sae(an_sae(1), tmp_path, training=(a_state(), {"step": 1}))
    assert load_training_state(tmp_path)[1] == {"step": 1}
    save_training_state(tmp_path, {"a": torch.zeros(2)}, {"step": 2})
    assert load_training_state(tmp_path)[1] == {"step": 2}
    assert torch.equal(load_sae(tmp_path).W_enc, an_sae(1).W_enc)
    save_sae(an_sae(2), tmp_path)
    assert not (tmp_path / TRAINING).exists() and not (tmp_path / TRAINING_INFO).exists()
    with pytest.raises(SaeFileError, match=r"No training can be resumed from .* no such file or directory"):
        load_training_state(tmp_path)


def test_shapes_are_checked(tmp_path: Path) -> None:
    save_training_state(tmp_path, {"a": torch.zeros(2, 3)}, {})
    load_training_state(tmp_path, {"a": (2, 3)})
    for wanted, said in {"b": "a is not known", "a": "a is 2x3, this run needs 3x2"}.items():
        with pytest.raises(SaeFileError, match=said):
            load_training_state(tmp_path, {wanted: (3, 2)})
    with pytest.raises(SaeFileError, match="b is missing"):
        load_training_state(tmp_path, {"a": (2, 3), "b": (1,)})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda told: told | {"format_version": 2, "made_by": "0.9"}, "saved by sae_widget 0.9; please update"),
        (lambda told: told | {"shapes": {"a": [3, 2]}}, "a is 2x3, training_state.json says 3x2"),
        (lambda told: told | {"shapes": 1}, "it is damaged"),
        (lambda told: told | {"info": []}, "it is damaged"),
        (lambda told: [], "it is damaged"),
    ],
)
def test_information_that_is_refused(tmp_path: Path, change: Any, said: str) -> None:
    save_training_state(tmp_path, {"a": torch.zeros(2, 3)}, {})
    told = json.loads((tmp_path / TRAINING_INFO).read_text())
    (tmp_path / TRAINING_INFO).write_text(json.dumps(change(told)))
    with pytest.raises(SaeFileError, match=said):
        load_training_state(tmp_path)


def test_what_cannot_be_saved_leaves_what_was_there(tmp_path: Path) -> None:
    save_training_state(tmp_path, {"a": torch.zeros(2, 3)}, {"step": 1})
    for tensors, info in (({"a": torch.zeros(2, dtype=torch.complex64)}, {}), ({}, {"x": object()})):
        with pytest.raises(SaeFileError, match=r"cannot be saved .*Nothing was written"):
            save_training_state(tmp_path, tensors, info)
    with pytest.raises(SaeFileError, match="513 tensors, at most 512"):
        save_training_state(tmp_path, {str(i): torch.zeros(1) for i in range(513)}, {})
    assert load_training_state(tmp_path)[1] == {"step": 1}
