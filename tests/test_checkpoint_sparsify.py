"""sae_widget.checkpoint.sparsify: where a folder's name says that an SAE reads, and what a short cfg.json means."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from sae_widget.checkpoint import SaeFileError
from sae_widget.checkpoint.sparsify import SPARSIFY_WEIGHTS, load_coder
from sae_widget.sae import TopKSAE
from tests.sae_folders import CFG, some_x

D_IN = 6


def tensors(d_sae: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(4)
    shapes = {"encoder.weight": (d_sae, D_IN), "encoder.bias": (d_sae,), "W_dec": (d_sae, D_IN), "b_dec": (D_IN,)}
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def coder(folder: Path, told: Any, weights: dict[str, torch.Tensor]) -> Path:
    folder.mkdir()
    (folder / CFG).write_text(json.dumps(told))
    save_file(weights, folder / SPARSIFY_WEIGHTS)
    return folder


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("layers.12", (12, "resid_post")),
        ("transformer.h.0", (0, "resid_post")),
        ("h_3", (3, "resid_post")),
        ("transformer.h.3.attn", (3, "attn_out")),
        ("gpt_neox.layers.3.attention", (3, "attn_out")),
        ("model.layers.3.self_attn", (3, "attn_out")),
        ("model.layers.3.mlp", (3, "mlp_out")),
        ("layers.3.input_layernorm", None),
        ("layers.3.mlp.act", None),
        ("layers.12345", None),
        ("players.3", None),
        ("layers.", None),
        ("embed_tokens", None),
    ],
)
def test_the_folder_says_where_it_reads(name: str, place: tuple[int, str] | None, tmp_path: Path) -> None:
    told = {} if place is None else {"layer": place[0], "hook_name": place[1]}
    folder = coder(tmp_path / name, {"d_in": D_IN, "num_latents": 10, "k": 4}, tensors(10))
    assert load_coder(folder).metadata == {"trained_by": "sparsify"} | told


def test_the_folder_has_its_name_from_inside_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(coder(tmp_path / "layers.3", {"d_in": D_IN, "num_latents": 10, "k": 4}, tensors(10)))
    assert load_coder(Path()).metadata["layer"] == 3


def test_what_is_not_said_is_what_sparsify_starts_from(tmp_path: Path) -> None:
    sae = load_coder(coder(tmp_path / "a", {"d_in": D_IN}, tensors(32 * D_IN)))
    assert isinstance(sae, TopKSAE) and (sae.d_in, sae.d_sae, sae.k) == (D_IN, 32 * D_IN, 32)
    assert load_coder(coder(tmp_path / "b", {"d_in": D_IN, "expansion_factor": 7}, tensors(42))).d_sae == 42


def test_half_precision_becomes_float32(tmp_path: Path) -> None:
    whole = tensors(10)
    halves = {name: tensor.to(torch.bfloat16) for name, tensor in whole.items()}
    sae = load_coder(coder(tmp_path / "a", {"d_in": D_IN, "num_latents": 10, "k": 10}, halves))
    assert {sae.W_enc.dtype, sae.b_enc.dtype, sae.W_dec.dtype, sae.b_dec.dtype} == {torch.float32}
    assert sae.W_enc.is_contiguous() and torch.equal(sae.W_enc, halves["encoder.weight"].float().T)
    hidden = (some_x() - whole["b_dec"]) @ whole["encoder.weight"].T + whole["encoder.bias"]
    assert torch.allclose(sae.encode(some_x()), hidden.relu(), atol=0.1)


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ([], "cfg.json: it is not a JSON object"),
        ({"d_in": 0}, "d_in: input should be greater than or equal to 1"),
        ({"d_in": D_IN, "k": 0}, "k: input should be greater than or equal to 1"),
        ({"d_in": D_IN, "k": 4.0}, "k: input should be a valid integer"),
        ({"d_in": D_IN, "transcode": "no"}, "transcode: input should be a valid boolean"),
        ({"d_in": D_IN, "expansion_factor": 0}, "k must be between 1 and its 0 features, got 32"),
        ({"d_in": D_IN, "num_latents": 10, "activation": "x" * 99}, f"activation '{'x' * 40}' is not supported"),
    ],
)
def test_settings_that_are_refused(told: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(SaeFileError, match=f"{said}.*Nothing was loaded, and what you have is unchanged"):
        load_coder(coder(tmp_path / "h.1", told, tensors(10)))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"W_skip": torch.ones(D_IN, 3)}, "a tensor 'W_skip' that this kind of SAE does not have"),
        ({"b_dec": None}, "b_dec is missing; it has W_dec, encoder.bias, encoder.weight"),
        ({"W_dec": torch.ones(D_IN, 10)}, "W_dec is 6x10, cfg.json says 10x6"),
    ],
)
def test_weights_that_are_refused(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    weights = {name: tensor for name, tensor in (tensors(10) | changes).items() if tensor is not None}
    folder = coder(tmp_path / "h.1", {"d_in": D_IN, "num_latents": 10, "k": 4}, weights)
    with pytest.raises(SaeFileError, match=f"{SPARSIFY_WEIGHTS}: .*{said}"):
        load_coder(folder)


@pytest.mark.parametrize("name", [CFG, SPARSIFY_WEIGHTS])
def test_a_file_that_is_not_there_is_the_systems_error(name: str, tmp_path: Path) -> None:
    folder = coder(tmp_path / "h.1", {"d_in": D_IN, "num_latents": 10, "k": 4}, tensors(10))
    (folder / name).unlink()
    with pytest.raises(FileNotFoundError, match=name):
        load_coder(folder)
