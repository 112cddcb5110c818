"""SAEs on disk: SAELens' layout, and a sentence for every broken file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from sae_widget.checkpoint import SaeFileError, load_sae, load_stats, save_sae
from sae_widget.sae import REGISTRY, TopKSAE
from tests.sae_folders import CFG, WEIGHTS, an_sae, foreign, some_x


def test_layout(tmp_path: Path) -> None:
    metadata = {"model_name": "gpt2", "layer": 3, "hook_name": "resid_pre", "ev": float("nan")}
    sae = TopKSAE(**{n: getattr(an_sae(), n) for n in ("W_enc", "b_enc", "W_dec", "b_dec")}, k=4, scale=0.5)
    save_sae(TopKSAE(**(vars(sae) | {"metadata": metadata})), tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir() if p.name[0] != ".") == [CFG, WEIGHTS]
    config = json.loads((tmp_path / CFG).read_text())
    assert {k: config[k] for k in ("architecture", "d_in", "d_sae", "dtype", "k")} == {
        "architecture": "topk", "d_in": 6, "d_sae": 10, "dtype": "float32", "k": 4,
    }  # fmt: skip
    assert config["apply_b_dec_to_input"] is True and config["rescale_acts_by_decoder_norm"] is False
    assert config["normalize_activations"] == "none"
    assert config["metadata"]["sae_lens_version"] == "6.0.0"
    assert config["metadata"]["hook_name"] == "blocks.3.hook_resid_pre"
    assert config["metadata"]["sae_widget"]["scale"] == 0.5
    assert config["metadata"]["sae_widget"]["format_version"] == 1
    header = (tmp_path / WEIGHTS).read_bytes()
    assert b"__metadata__" not in header[: 8 + int.from_bytes(header[:8], "little")]
    # The maths of a reader who knows nothing of the scale (SAELens: topk, no rescaling).
    w, x = load_file(tmp_path / WEIGHTS), some_x()
    pre = (x - w["b_dec"]) @ w["W_enc"] + w["b_enc"]
    top = pre.topk(4)
    acts = torch.zeros_like(pre).scatter(1, top.indices, top.values.relu())
    assert torch.allclose(acts, sae.encode(x), atol=1e-5)
    assert torch.allclose(acts @ w["W_dec"] + w["b_dec"], sae(x), atol=1e-5)
    assert load_sae(tmp_path).metadata == metadata | {"ev": None}


def test_files_of_others(tmp_path: Path) -> None:
    sae = load_sae(foreign(tmp_path / "a"))
    assert torch.equal(sae.W_enc, an_sae().W_enc) and sae.scale == 1.0
    assert (sae.metadata["layer"], sae.metadata["hook_name"]) == (8, "resid_pre")
    rescaled = foreign(
        tmp_path / "b", {"architecture": "topk", "k": 3, "rescale_acts_by_decoder_norm": True, "later": 1}
    )
    loaded, norms, x = load_sae(rescaled), an_sae().W_dec.norm(dim=1), some_x()
    pre = an_sae().hidden_pre(x) * norms
    top = pre.topk(3)
    acts = torch.zeros_like(pre).scatter(1, top.indices, top.values.relu())
    assert torch.allclose(loaded(x), acts / norms @ an_sae().W_dec + an_sae().b_dec, atol=1e-5)


def test_half_precision(tmp_path: Path) -> None:
    save_sae(an_sae(scale=0.37), tmp_path, dtype="float16")
    assert load_file(tmp_path / WEIGHTS)["W_enc"].dtype == torch.float16
    assert json.loads((tmp_path / CFG).read_text())["dtype"] == "float16"
    loaded = load_sae(tmp_path)
    assert loaded.W_enc.dtype == torch.float32
    assert torch.allclose(loaded(some_x()), an_sae(scale=0.37)(some_x()), atol=0.1)
    huge = an_sae(scale=1e-9)
    with pytest.raises(SaeFileError, match=r"W_dec has numbers that are not finite in float16. Nothing was written"):
        save_sae(huge, tmp_path, dtype="float16")
    assert load_sae(tmp_path).scale == 0.37
    with pytest.raises(ValueError, match="dtype must be one of float32, float16, bfloat16, got 'int8'"):
        save_sae(an_sae(), tmp_path, dtype="int8")


def test_statistics_belong_to_their_sae(tmp_path: Path) -> None:
    assert load_stats(foreign(tmp_path / "a")) is None
    save_sae(an_sae(), tmp_path / "b", {"frequency": torch.arange(10.0), "n_tokens": torch.tensor([7])})
    stats = load_stats(tmp_path / "b")
    assert stats is not None and stats["frequency"].tolist() == list(range(10)) and stats["n_tokens"].item() == 7
    save_sae(an_sae(2), tmp_path / "b")
    assert load_stats(tmp_path / "b") is None


def test_save_over_what_is_loaded(tmp_path: Path) -> None:
    save_sae(an_sae(1), tmp_path)
    loaded = load_sae(tmp_path)
    before = loaded.W_enc.clone()
    save_sae(an_sae(2), tmp_path)
    assert torch.equal(loaded.W_enc, before)
    assert torch.equal(load_sae(tmp_path).W_enc, an_sae(2).W_enc)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"architecture": "temporal"}, f"architecture 'temporal' is not one of {', '.join(REGISTRY)}"),
        ({"architecture": "topk"}, r"k must be between 1 and d_sae \(10\), got None"),
        ({"architecture": "topk", "k": 11}, "got 11"),
        ({"normalize_activations": "covariance_whitening"}, "'covariance_whitening' is not supported"),
        ({"normalize_activations": "center"}, "'center' is not supported"),
        ({"metadata": {"sae_widget": {"normalize_activations": "layer"}}}, "normalize_activations 'layer' is not"),
        ({"metadata": {"sae_widget": {"architecture": "gated"}}}, "sae_widget.architecture 'gated' is not known"),
        ({"reshape_activations": "hook_z"}, "inside the attention, and only whole layers are read here"),
        (
            {"metadata": {"sae_lens_version": "6.1.0", "hook_name": "blocks.3.attn.hook_z"}},
            "it is for 'blocks.3.attn.hook_z', inside the attention",
        ),
        ({"activation_fn_str": "topk"}, "activation_fn_str 'topk' is not supported"),
        ({"d_in": "6"}, "d_in: input should be a valid integer"),
        ({"d_in": 7}, "W_enc is 6x10, cfg.json says 7x10"),
        ({"d_sae": 0}, "d_sae: input should be greater than or equal to 1"),
        (
            {"metadata": {"sae_widget": {"format_version": 2, "made_by": "0.9"}}},
            "made by sae_widget 0.9; please update",
        ),
        ({"metadata": {"sae_widget": {"scale": 0.0}}}, "scale: input should be greater than"),
    ],
)
def test_configurations_that_are_refused(tmp_path: Path, config: dict[str, Any], said: str) -> None:
    with pytest.raises(SaeFileError, match=f"{said}.* Nothing was loaded, and what you have is unchanged"):
        load_sae(foreign(tmp_path / "sae", config))


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({"W_enc": torch.zeros(10, 6)}, "W_enc is 10x6, cfg.json says 6x10"),
        ({"b_enc": torch.zeros(9)}, "b_enc is 9, cfg.json says 10"),
        ({"b_dec": torch.zeros(6, dtype=torch.int32)}, "b_dec is I32, needs one of F32"),
        ({"W_dec": torch.full((10, 6), torch.nan)}, r"W_dec: the number at \[0, 0\] is not finite"),
        ({"threshold": torch.zeros(10)}, "a tensor 'threshold' that this kind"),
        ({"b_enc": torch.zeros(0)}, "b_enc is empty"),
        ({f"t{i}": torch.zeros(1) for i in range(61)}, "it has 65 tensors, at most 64 are read"),
    ],
)
def test_weights_that_are_refused(tmp_path: Path, tensors: dict[str, torch.Tensor], said: str) -> None:
    with pytest.raises(SaeFileError, match=f"{said}.*Nothing was loaded"):
        load_sae(foreign(tmp_path / "sae", None, **tensors))


def test_width_of_another_model(tmp_path: Path) -> None:
    with pytest.raises(SaeFileError, match="W_enc is 6x10, this model needs 768xN"):
        load_sae(foreign(tmp_path / "sae"), d_in=768)


def test_places_without_an_sae(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "empty").mkdir()
    (foreign(tmp_path / "half") / WEIGHTS).unlink()
    (foreign(tmp_path / "folder") / WEIGHTS).unlink()
    (tmp_path / "folder" / WEIGHTS).mkdir()
    (foreign(tmp_path / "header") / WEIGHTS).write_bytes((2_000_000).to_bytes(8, "little") + b" " * 2_000_000)
    for name, said in {
        "nowhere": "no such file or directory",
        "file": "not a directory",
        "empty": "no such file or directory",
        "half": "no such file or directory",
        "folder": "is a directory",
        "header": "its header has 2,000,000 bytes, at most 1,000,000 are read",
    }.items():
        with pytest.raises(SaeFileError, match=f"{said}.*Nothing was loaded"):
            load_sae(tmp_path / name)


HOSTILE = [
    b"",
    b"[" * 200_000,
    b"NaN",
    b'{"d_in": 1e999}',
    b'{"d_in": ' + b"9" * 5000 + b"}",
    b"\xff\xfe",
    b"[]",
    b"null",
]


@pytest.mark.parametrize("content", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_json(tmp_path: Path, content: bytes) -> None:
    folder = foreign(tmp_path / "sae")
    (folder / CFG).write_bytes(content)
    with pytest.raises(SaeFileError, match=r"cfg.json"):
        load_sae(folder)
    foreign(tmp_path / "sae")
    (folder / WEIGHTS).write_bytes(len(content).to_bytes(8, "little") + content)
    with pytest.raises(SaeFileError, match=WEIGHTS):
        load_sae(folder)
