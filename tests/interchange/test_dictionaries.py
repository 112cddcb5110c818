"""Folders of dictionary_learning and sparsify, written by the libraries themselves, give the same outputs here."""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from sae_widget.checkpoint import SaeFileError, load_sae
from sae_widget.checkpoint.dictionaries import CLASSES
from tests.interchange.peers import peer
from tests.interchange.test_sae_lens import random, some_x

pytestmark = pytest.mark.peers
for library in ("dictionary_learning", "sparsify"):
    peer(library)

D_IN, D_SAE = 12, 30
BUILD: dict[str, Any] = {
    "AutoEncoder": ("dictionary_learning.dictionary", {}),
    "AutoEncoderNew": ("dictionary_learning.dictionary", {}),
    "AutoEncoderTopK": ("dictionary_learning.trainers.top_k", {"k": 5}),
    "BatchTopKSAE": ("dictionary_learning.trainers.batch_top_k", {"k": 5}),
    "MatryoshkaBatchTopKSAE": (
        "dictionary_learning.trainers.matryoshka_batch_top_k",
        {"k": 5, "group_sizes": [6, 9, 15]},
    ),
    "JumpReluAutoEncoder": ("dictionary_learning.dictionary", {}),
    "GatedAutoEncoder": ("dictionary_learning.dictionary", {}),
}


def a_dictionary(name: str, threshold: float = 0.7) -> Any:
    import importlib

    module, given = BUILD[name]
    with torch.random.fork_rng():
        made = getattr(importlib.import_module(module), name)(D_IN, D_SAE, **given)
    with torch.no_grad():
        for i, (part, tensor) in enumerate(sorted([*made.named_parameters(), *made.named_buffers()])):
            if part == "threshold":
                tensor.copy_(torch.full(tensor.shape, threshold))
            elif tensor.is_floating_point():
                tensor.copy_(random(*tensor.shape, seed=40 + i) * 0.4)
    return made


def write(folder: Path, made: Any, name: str, **trainer: Any) -> Path:
    folder.mkdir(exist_ok=True)
    torch.save({key: value.cpu() for key, value in made.state_dict().items()}, folder / "ae.pt")
    told = {"dict_class": name, "activation_dim": D_IN, "dict_size": D_SAE, "lr": 1e-3, "device": "cpu"}
    told |= {"layer": 8, "lm_name": "EleutherAI/pythia-70m-deduped", "submodule_name": "resid_post_layer_8"} | trainer
    if "k" in BUILD[name][1]:
        told["k"] = 5
    (folder / "config.json").write_text(json.dumps({"trainer": told, "buffer": {"ctx_len": 128}}))
    return folder


def test_every_class_is_compared() -> None:
    assert set(BUILD) == set(CLASSES)


@pytest.mark.parametrize("threshold", [0.7, -1.0])
@pytest.mark.parametrize("name", sorted(BUILD))
def test_dictionary_learning(name: str, threshold: float, tmp_path: Path) -> None:
    made, x = a_dictionary(name, threshold), some_x()
    loaded = load_sae(write(tmp_path, made, name))
    with torch.no_grad():
        feature_acts = made.encode(x)
        expected = made.decode(feature_acts)
    assert 0.05 < float((feature_acts > 0).float().mean()) < 0.95
    assert torch.allclose(loaded.encode(x), feature_acts, atol=1e-5)
    assert torch.allclose(loaded(x), expected, atol=1e-5)
    assert loaded.architecture == CLASSES[name][0]
    assert (loaded.metadata["layer"], loaded.metadata["hook_name"]) == (8, "resid_post")


def test_a_whole_state_dict_and_their_trainer(tmp_path: Path) -> None:
    """``torch.save(ae.state_dict())`` has the versions of the modules with it; parameters are kept as such."""
    made, x = a_dictionary("AutoEncoder"), some_x()
    write(tmp_path, made, "AutoEncoder")
    for kept in (made.state_dict(), dict(made.named_parameters())):
        torch.save(kept, tmp_path / "ae.pt")
        assert torch.allclose(load_sae(tmp_path)(x), made(x).detach(), atol=1e-5)


def test_their_own_training_loop_writes_what_we_read(tmp_path: Path) -> None:
    from dictionary_learning.trainers.top_k import AutoEncoderTopK, TopKTrainer
    from dictionary_learning.training import trainSAE

    data = random(64, D_IN, seed=6)
    config = {
        "trainer": TopKTrainer,
        "steps": 4,
        "activation_dim": D_IN,
        "dict_size": D_SAE,
        "k": 5,
        "layer": 2,
        "lm_name": "gpt2",
        "device": "cpu",
        "warmup_steps": 1,
        "dict_class": AutoEncoderTopK,
        "seed": 3,
    }
    with torch.random.fork_rng(), contextlib.suppress(StopIteration):
        trainSAE(iter([data] * 6), [config], steps=4, use_wandb=False, save_dir=str(tmp_path), device="cpu")
    (folder,) = [path.parent for path in tmp_path.rglob("ae.pt")]
    with torch.random.fork_rng():
        theirs = AutoEncoderTopK.from_pretrained(str(folder / "ae.pt"), k=5)
    loaded, x = load_sae(folder), some_x()
    assert torch.allclose(loaded(x), theirs(x).detach(), atol=1e-5)
    assert loaded.metadata["model_name"] == "gpt2"


def a_coder(folder: Path, **changes: Any) -> Any:
    from sparsify import SaeConfig, SparseCoder

    with torch.random.fork_rng():
        made = SparseCoder(D_IN, SaeConfig(num_latents=D_SAE, k=5, **changes))
    with torch.no_grad():
        for i, (_, tensor) in enumerate(sorted(made.named_parameters())):
            tensor.copy_(random(*tensor.shape, seed=60 + i) * 0.4)
    made.save_to_disk(folder)
    return made


@pytest.mark.parametrize(
    ("name", "where"),
    [
        ("layers.3", (3, "resid_post")),
        ("h.11.mlp", (11, "mlp_out")),
        ("gpt_neox.layers.2.attention", (2, "attn_out")),
        ("embed_tokens", None),
    ],
)
@pytest.mark.parametrize("changes", [{}, {"normalize_decoder": False}, {"multi_topk": True}])
def test_sparsify(name: str, where: tuple[int, str] | None, changes: dict[str, Any], tmp_path: Path) -> None:
    made, x = a_coder(tmp_path / name, **changes), some_x()
    loaded = load_sae(tmp_path / name)
    with torch.no_grad():  # the forward pass of ``multi_topk`` is for its loss; encode and decode are as without it
        acts, indices, _ = made.encode(x)
        expected = made.decode(acts, indices)
    assert torch.allclose(loaded.encode(x), torch.zeros(len(x), D_SAE).scatter(1, indices, acts), atol=1e-5)
    assert torch.allclose(loaded(x), expected, atol=1e-5)
    assert where is None or (loaded.metadata["layer"], loaded.metadata["hook_name"]) == where


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"transcode": True}, "it is a transcoder, which writes at another place"),
        ({"skip_connection": True}, "it has a skip connection"),
        ({"activation": "groupmax"}, "activation 'groupmax' is not supported, only topk"),
    ],
)
def test_sparsify_that_is_no_sae(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    a_coder(tmp_path / "layers.1", **changes)
    with pytest.raises(SaeFileError, match=re.escape(said)):
        load_sae(tmp_path / "layers.1")
