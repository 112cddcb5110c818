"""SAELens itself reads what we write and we read what it writes: the same features and outputs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from sae_widget.checkpoint import load_sae, save_sae
from sae_widget.sae import REGISTRY, SAE
from tests.interchange.peers import peer

pytestmark = pytest.mark.peers
sae_lens = peer("sae_lens")

D_IN, D_SAE = 12, 30
EXTRA: dict[str, dict[str, Any]] = {
    "standard": {},
    "topk": {"k": 5},
    "batchtopk": {"k": 5, "threshold": 0.8},
    "matryoshka_batchtopk": {"k": 5, "threshold": 0.8},
    "jumprelu": {},
    "gated": {},
}
WHERE = {"model_name": "gpt2", "layer": 3, "hook_name": "resid_pre"}
TRAINING = {
    "standard": ("StandardTrainingSAE", {}),
    "topk": ("TopKTrainingSAE", {"k": 5}),
    "batchtopk": ("BatchTopKTrainingSAE", {"k": 5.5}),
    "matryoshka_batchtopk": ("MatryoshkaBatchTopKTrainingSAE", {"k": 5.0, "matryoshka_widths": [6, 15]}),
    "jumprelu": ("JumpReLUTrainingSAE", {}),
    "gated": ("GatedTrainingSAE", {}),
}
INFERENCE = ("StandardSAE", "TopKSAE", "JumpReLUSAE", "GatedSAE")

every_architecture = pytest.mark.parametrize("name", sorted(EXTRA))


def random(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def ours(name: str, **changes: Any) -> SAE:
    kind = REGISTRY[name]
    vectors = {vector: random(D_SAE, seed=9 + i) * 0.3 for i, vector in enumerate(kind.vectors)}
    if "threshold" in vectors:
        vectors["threshold"] = vectors["threshold"].abs() + 0.3
    return kind(
        W_enc=random(D_IN, D_SAE, seed=1) * 0.4,
        b_enc=random(D_SAE, seed=2) * 0.3,
        W_dec=random(D_SAE, D_IN, seed=3) * 0.4,
        b_dec=random(D_IN, seed=4),
        **(EXTRA[name] | vectors | {"metadata": WHERE, "scale": 0.37} | changes),
    )


def read_by_them(folder: Path, **options: Any) -> Any:
    with torch.random.fork_rng():  # they draw weights before they read them
        return sae_lens.SAE.load_from_disk(folder, **options)


def some_x() -> torch.Tensor:
    return random(7, D_IN, seed=5) * 3 + 1


def same(mine: SAE, theirs: Any) -> None:
    """Features and outputs of both, on activations on which some features fire and some do not."""
    x = some_x()
    with torch.no_grad():
        feature_acts, expected = theirs.encode(x), theirs(x)
    assert 0.05 < float((feature_acts > 0).float().mean()) < 0.9
    assert torch.allclose(mine.encode(x), feature_acts, atol=1e-5, rtol=1e-5)
    assert torch.allclose(mine(x), expected, atol=1e-5, rtol=1e-5)


def test_every_architecture_is_compared() -> None:
    assert set(EXTRA) == set(REGISTRY) == set(TRAINING)


@every_architecture
@pytest.mark.parametrize("centred", [True, False])
def test_they_read_ours(name: str, centred: bool, tmp_path: Path) -> None:
    sae = ours(name, apply_b_dec_to_input=centred)
    save_sae(sae, tmp_path)
    theirs = read_by_them(tmp_path)
    same(sae, theirs)
    same(load_sae(tmp_path), theirs)
    assert theirs.cfg.metadata.hook_name == "blocks.3.hook_resid_pre" and theirs.cfg.metadata.model_name == "gpt2"
    assert type(load_sae(tmp_path)) is type(sae)


@every_architecture
@pytest.mark.parametrize("way", ["layer_norm", "constant_norm_rescale"])
def test_they_read_our_normalisations(name: str, way: str, tmp_path: Path) -> None:
    sae = ours(name, normalize_activations=way)
    save_sae(sae, tmp_path)
    same(sae, read_by_them(tmp_path))
    same(load_sae(tmp_path), read_by_them(tmp_path))


@every_architecture
def test_centring_is_left_to_their_caller(name: str, tmp_path: Path) -> None:
    sae, x = ours(name, normalize_activations="center"), some_x()
    save_sae(sae, tmp_path)
    theirs, mean = read_by_them(tmp_path), x.mean(dim=-1, keepdim=True)
    with torch.no_grad():
        assert torch.allclose(sae(x), theirs(x - mean) + mean, atol=1e-5)
    assert theirs.cfg.metadata.model_from_pretrained_kwargs == {"center_writing_weights": True}
    assert load_sae(tmp_path).normalize_activations == "center"
    theirs.save_model(tmp_path)  # without our notes
    assert torch.allclose(load_sae(tmp_path)(x), sae(x), atol=1e-5)


@every_architecture
def test_they_read_halves(name: str, tmp_path: Path) -> None:
    for dtype in ("float16", "bfloat16"):
        save_sae(ours(name), tmp_path, dtype=dtype)
        theirs = read_by_them(tmp_path)
        assert theirs.cfg.dtype == dtype
        same(load_sae(tmp_path), read_by_them(tmp_path, dtype="float32"))


def fill(sae: Any) -> None:
    """Weights in which thresholds matter, decoder rows of many norms."""
    with torch.no_grad():
        for i, (name, tensor) in enumerate(sorted([*sae.named_parameters(), *sae.named_buffers()])):
            if name == "topk_threshold":
                tensor.fill_(0.9)
            elif "threshold" in name:
                tensor.copy_(random(*tensor.shape, seed=20 + i).abs() * 0.5)
            else:
                tensor.copy_(random(*tensor.shape, seed=20 + i) * 0.4)


def theirs_of(name: str, **changes: Any) -> Any:
    config = {"d_in": D_IN, "d_sae": D_SAE, **changes}
    with torch.random.fork_rng():
        sae = getattr(sae_lens, name)(getattr(sae_lens, f"{name}Config")(**config))
    fill(sae)
    sae.cfg.metadata.hook_name, sae.cfg.metadata.model_name = "blocks.11.hook_resid_post", "gpt2-small"
    return sae


@pytest.mark.parametrize("way", ["none", "layer_norm", "constant_norm_rescale", "expected_average_only_in"])
@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("kind", INFERENCE)
def test_we_read_their_saes(kind: str, centred: bool, way: str, tmp_path: Path) -> None:
    changes: dict[str, Any] = {"k": 5} if kind == "TopKSAE" else {}
    sae = theirs_of(kind, apply_b_dec_to_input=centred, normalize_activations=way, **changes)
    sae.save_model(tmp_path)
    loaded = load_sae(tmp_path)
    same(loaded, sae)
    assert {key: loaded.metadata[key] for key in WHERE} == {
        "model_name": "gpt2",
        "layer": 11,
        "hook_name": "resid_post",
    }


@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16"])
def test_we_read_their_dtypes(dtype: str, tmp_path: Path) -> None:
    sae = theirs_of("JumpReLUSAE", dtype=dtype)
    sae.save_model(tmp_path)
    same(load_sae(tmp_path), sae.to(dtype=torch.float32))


def test_we_read_rescaled_topk(tmp_path: Path) -> None:
    sae = theirs_of("TopKSAE", k=5, rescale_acts_by_decoder_norm=True)
    sae.save_model(tmp_path)
    x, loaded = some_x(), load_sae(tmp_path)
    with torch.no_grad():
        assert torch.allclose(loaded(x), sae(x), atol=1e-5)
        assert torch.allclose(loaded.encode(x), sae.encode(x), atol=1e-5)


@every_architecture
def test_we_read_what_their_trainer_keeps(name: str, tmp_path: Path) -> None:
    """A training save, and the finished SAE of the same training."""
    kind, changes = TRAINING[name]
    sae = theirs_of(kind, **changes)
    sae.save_inference_model(tmp_path / "finished")
    finished = read_by_them(tmp_path / "finished")
    same(load_sae(tmp_path / "finished"), finished)
    sae.save_model(tmp_path / "training")
    loaded = load_sae(tmp_path / "training")
    assert type(loaded) is REGISTRY[name]
    same(loaded, finished)


OLD = {
    "model_name": "gpt2-small",
    "hook_point": "blocks.8.hook_resid_pre",
    "hook_point_layer": 8,
    "hook_point_head_index": None,
    "d_in": D_IN,
    "d_sae": D_SAE,
    "dtype": "torch.float32",
    "device": "mps",
    "context_size": 128,
    "prepend_bos": True,
    "expansion_factor": 32,
}


@pytest.mark.parametrize(
    ("changes", "architecture"),
    [
        ({}, "standard"),
        ({"activation_fn_str": "relu", "architecture": "standard", "normalize_activations": False}, "standard"),
        (
            {"activation_fn_str": "topk", "activation_fn_kwargs": {"k": 5}, "normalize_activations": "layer_norm"},
            "topk",
        ),
        ({"sae_lens_version": "3.1.0", "apply_b_dec_to_input": False, "normalize_activations": None}, "standard"),
        ({"architecture": "jumprelu"}, "jumprelu"),
        ({"architecture": "gated", "normalize_activations": "constant_norm_rescale"}, "gated"),
    ],
)
@pytest.mark.parametrize("ones", [True, False])
def test_we_read_their_old_formats_as_they_do(
    changes: dict[str, Any], architecture: str, ones: bool, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    save_sae(ours(architecture, scale=1.0), tmp_path)
    weights = load_file(tmp_path / "sae_weights.safetensors")
    if ones:
        weights["scaling_factor"] = torch.ones(D_SAE)
    save_file(weights, tmp_path / "sae_weights.safetensors")
    (tmp_path / "cfg.json").write_text(json.dumps(OLD | changes))
    loaded = load_sae(tmp_path)
    same(loaded, read_by_them(tmp_path))
    assert loaded.architecture == architecture
    assert {key: loaded.metadata[key] for key in WHERE} == {"model_name": "gpt2", "layer": 8, "hook_name": "resid_pre"}


def test_we_read_log_thresholds(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    sae = theirs_of("JumpReLUTrainingSAE")
    sae.save_model(tmp_path)
    weights = load_file(tmp_path / "sae_weights.safetensors")
    weights["log_threshold"] = weights.pop("threshold").log()
    save_file(weights, tmp_path / "sae_weights.safetensors")
    loaded = load_sae(tmp_path)
    assert torch.allclose(loaded.threshold, sae.threshold.detach(), atol=1e-5)  # type: ignore[attr-defined]
    x = some_x()
    assert torch.allclose(loaded.encode(x), sae.encode(x).detach(), atol=1e-4)
