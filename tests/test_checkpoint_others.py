"""Folders of other libraries and of older SAELens, made by hand: what comes out is known beforehand.

``tests/interchange`` has the same with the libraries themselves.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from sae_widget.checkpoint import SaeFileError, load_sae, save_sae
from sae_widget.checkpoint.old import is_old, modern
from sae_widget.sae import REGISTRY, SAE
from tests.sae_folders import CFG, WEIGHTS, an_sae, foreign, some_x
from tests.test_sae import random_sae

OLD = {
    "hook_point": "blocks.8.hook_resid_pre",
    "hook_point_layer": 8,
    "model_name": "gpt2-small",
    "context_size": 128,
    "metadata": None,
}
TRAINER = {"activation_dim": 6, "dict_size": 10, "lm_name": "EleutherAI/pythia-70m", "layer": 4}


def rewrite(folder: Path, config: dict[str, Any] | None = None, **tensors: torch.Tensor | None) -> Path:
    """Change a saved folder as another program would have written it; None leaves a tensor out."""
    told = json.loads((folder / CFG).read_text())
    (folder / CFG).write_text(json.dumps(told | (config or {})))
    weights = load_file(folder / WEIGHTS) | tensors
    save_file({name: tensor for name, tensor in weights.items() if tensor is not None}, folder / WEIGHTS)
    return folder


def test_old_settings_are_said_anew() -> None:
    old = {"hook_point": "blocks.0.hook_mlp_out", "d_in": 6, "activation_fn_str": "topk", "d_sae": 10, "lr": 1.0}
    old |= {"activation_fn_kwargs": {"k": 3, "signed": False}, "normalize_activations": True, "dtype": "torch.float32"}
    assert is_old(old) and is_old(old | {"sae_lens_version": "5.9.0"}) and is_old({"metadata": {"model_name": "x"}})
    assert not is_old({"metadata": {"sae_lens_version": "6.0.0-rc.1"}}) and not is_old({"sae_lens_version": "10.1"})
    assert modern(old) == {
        "architecture": "topk",
        "d_in": 6,
        "d_sae": 10,
        "dtype": "torch.float32",
        "activation_fn_str": "topk",
        "normalize_activations": "expected_average_only_in",
        "k": 3,
        "metadata": {"hook_name": "blocks.0.hook_mlp_out"},
    }


def test_an_old_folder(tmp_path: Path) -> None:
    ones = torch.ones(10)
    sae = load_sae(foreign(tmp_path / "a", OLD, scaling_factor=ones))
    assert torch.equal(sae(some_x()), an_sae()(some_x())) and sae.apply_b_dec_to_input
    assert sae.metadata == {
        "model_name": "gpt2", "layer": 8, "hook_name": "resid_pre", "context_size": 128,
    }  # fmt: skip
    topk = OLD | {"activation_fn_str": "topk", "activation_fn_kwargs": {"k": 3}, "normalize_activations": "layer_norm"}
    loaded = load_sae(foreign(tmp_path / "b", topk))
    assert (loaded.architecture, loaded.normalize_activations) == ("topk", "layer_norm")
    assert (loaded.encode(some_x()) > 0).sum(1).max() <= 3


def test_a_model_with_centred_writing_weights(tmp_path: Path) -> None:
    """Its activations are ours less their mean, so such an SAE centres what it is given."""
    kwargs, x = {"model_from_pretrained_kwargs": {"center_writing_weights": True}}, some_x()
    mean = x.mean(1, keepdim=True)
    sae = load_sae(foreign(tmp_path / "a", OLD | kwargs))
    assert torch.allclose(sae(x), an_sae()(x - mean) + mean, atol=1e-6)
    for changes, way in (
        ({"normalize_activations": "layer_norm"}, "layer_norm"),
        ({"hook_point": "blocks.8.hook_mlp_in"}, "none"),  # not written by weights alone
        ({"model_from_pretrained_kwargs": {"center_writing_weights": False}}, "none"),
    ):
        assert load_sae(foreign(tmp_path / "a", OLD | kwargs | changes)).normalize_activations == way
    with pytest.raises(SaeFileError, match="constant_norm_rescale of a model with centred writing weights is not"):
        load_sae(foreign(tmp_path / "a", OLD | kwargs | {"normalize_activations": "constant_norm_rescale"}))


def test_factors_of_fine_tuning(tmp_path: Path) -> None:
    factor = torch.arange(1.0, 11.0)
    sae = load_sae(foreign(tmp_path / "a", OLD | {"finetuning_scaling_factor": True}, scaling_factor=factor))
    plain = an_sae()
    assert torch.equal(sae.encode(some_x()), plain.encode(some_x()))
    assert torch.allclose(sae(some_x()), plain.decode(plain.encode(some_x()) * factor), atol=1e-5)
    with pytest.raises(SaeFileError, match=r"it has a scaling factor, and cfg\.json does not say"):
        load_sae(foreign(tmp_path / "b", OLD, scaling_factor=factor))


def test_thresholds(tmp_path: Path) -> None:
    sae = random_sae("jumprelu")
    threshold: torch.Tensor = sae.threshold  # type: ignore[attr-defined]
    save_sae(sae, tmp_path)
    logs = rewrite(tmp_path, threshold=None, log_threshold=threshold.log())
    assert torch.allclose(load_sae(logs).threshold, threshold, atol=1e-6)  # type: ignore[attr-defined]
    rewrite(tmp_path, threshold=torch.full((10,), -1.0), log_threshold=None)
    assert load_sae(tmp_path).threshold.tolist() == [0.0] * 10  # type: ignore[attr-defined]
    for both in ({"log_threshold": threshold.log()}, {"threshold": None, "log_threshold": None}):
        rewrite(tmp_path, **({"threshold": threshold} | both))
        with pytest.raises(SaeFileError, match="it needs either threshold or log_threshold"):
            load_sae(tmp_path)
    rewrite(tmp_path, threshold=None, log_threshold=torch.full((10,), 1000.0))
    with pytest.raises(SaeFileError, match="threshold is not finite"):
        load_sae(tmp_path)


def test_one_threshold_for_all_is_a_jumprelu_to_others(tmp_path: Path) -> None:
    sae = random_sae("matryoshka_batchtopk", metadata={"layer": 2, "hook_name": "final_norm"})
    save_sae(sae, tmp_path)
    told = json.loads((tmp_path / CFG).read_text())
    assert told["architecture"] == "jumprelu" and "k" not in told
    assert told["metadata"]["training_architecture"] == "matryoshka_batchtopk"
    assert told["metadata"]["hook_name"] == "ln_final.hook_normalized"
    assert load_file(tmp_path / WEIGHTS)["threshold"].tolist() == [0.75] * 10
    loaded = load_sae(tmp_path)
    assert (type(loaded), loaded.k, loaded.threshold) == (type(sae), 2, 0.75)  # type: ignore[attr-defined]
    rewrite(tmp_path, threshold=torch.arange(10.0))
    assert type(load_sae(tmp_path)) is REGISTRY["jumprelu"]


def test_a_training_save_of_batchtopk(tmp_path: Path) -> None:
    """SAELens' trainer keeps one threshold, in units of decoder rows of norm 1."""
    config = {"architecture": "batchtopk", "k": 2.5, "rescale_acts_by_decoder_norm": True}
    folder = foreign(tmp_path / "a", config, topk_threshold=torch.tensor(0.9, dtype=torch.float64))
    sae, plain = load_sae(folder), an_sae()
    hidden_pre = plain.hidden_pre(some_x()) * plain.W_dec.norm(dim=1)
    expected = hidden_pre * (hidden_pre > 0.9)
    assert sae.architecture == "batchtopk" and torch.allclose(sae.encode(some_x()), expected, atol=1e-5)
    assert torch.allclose(sae(some_x()), plain.decode(expected / plain.W_dec.norm(dim=1)), atol=1e-5)
    for k in (0, -1.5, 11, float("nan")):
        with pytest.raises(SaeFileError, match="k must be between"):
            load_sae(foreign(tmp_path / "a", config | {"k": k}, topk_threshold=torch.tensor(0.9)))


def a_dictionary(folder: Path, name: str, tensors: dict[str, torch.Tensor], **changes: Any) -> Path:
    folder.mkdir(exist_ok=True)
    torch.save(tensors, folder / "ae.pt")
    (folder / "config.json").write_text(json.dumps({"trainer": TRAINER | {"dict_class": name} | changes}))
    return folder


def linear(sae: SAE, **more: torch.Tensor) -> dict[str, torch.Tensor]:
    """The weights of two ``nn.Linear``: [outputs, inputs]."""
    both = {"encoder.weight": sae.W_enc.t(), "encoder.bias": sae.b_enc, "decoder.weight": sae.W_dec.t()}
    return both | more


def test_dictionary_learning(tmp_path: Path) -> None:
    plain, x = an_sae(), some_x()
    folder = a_dictionary(
        tmp_path / "a", "AutoEncoder", linear(plain, bias=plain.b_dec), submodule_name="resid_post_layer_4"
    )
    loaded = load_sae(folder, d_in=6)
    assert torch.equal(loaded(x), plain(x))
    assert loaded.metadata == {
        "trained_by": "dictionary_learning",
        "model_name": "EleutherAI/pythia-70m",
        "layer": 4,
        "hook_name": "resid_post",
    }
    new = load_sae(a_dictionary(tmp_path / "b", "AutoEncoderNew", linear(plain, **{"decoder.bias": plain.b_dec})))
    assert torch.allclose(new(x), (x @ plain.W_enc + plain.b_enc).relu() @ plain.W_dec + plain.b_dec, atol=1e-6)
    own = {"b_dec": plain.b_dec, "k": torch.tensor(3, dtype=torch.int32), "threshold": torch.tensor(-1.0)}
    topk = load_sae(a_dictionary(tmp_path / "c", "AutoEncoderTopK", linear(plain, **own), k=3))
    assert (topk.architecture, topk.k) == ("topk", 3)  # type: ignore[attr-defined]
    own["threshold"] = torch.tensor(0.5)
    batch = load_sae(a_dictionary(tmp_path / "d", "BatchTopKSAE", linear(plain, **own)))
    pre = plain.hidden_pre(x)
    assert torch.allclose(batch.encode(x), pre * (pre > 0.5), atol=1e-6)


@pytest.mark.parametrize(
    ("name", "changes", "trainer", "said"),
    [
        ("AutoEncoder", {"bias": None}, {}, "ae.pt: bias is missing"),
        ("AutoEncoder", {"more": torch.ones(2)}, {}, "a tensor 'more' that a AutoEncoder does not have"),
        ("AutoEncoder", {"bias": torch.ones(7)}, {}, "b_dec is 7, config.json says 6"),
        ("AutoEncoder", {"bias": torch.ones(6, dtype=torch.int64)}, {}, "b_dec is 6 of whole numbers"),
        ("AutoEncoder", {"bias": torch.full((6,), torch.inf)}, {}, r"bias: the number at \[0\] is not finite"),
        ("AutoEncoder", {}, {"dict_size": 11}, "W_enc is 6x10, config.json says 6x11"),
        ("AutoEncoder", {}, {"dict_size": "10"}, "trainer.dict_size: input should be a valid integer"),
        ("IdentityDict", {}, {}, "dict_class 'IdentityDict' is not one of AutoEncoder, "),
        ("AutoEncoderTopK", {"bias": None, "b_dec": torch.ones(6)}, {}, "k must be that of ae.pt, between 1 and 10"),
        ("AutoEncoderTopK", {"bias": None, "b_dec": torch.ones(6)}, {"k": 11}, "k must be that of ae.pt"),
    ],
)
def test_dictionaries_that_are_refused(
    name: str, changes: dict[str, Any], trainer: dict[str, Any], said: str, tmp_path: Path
) -> None:
    tensors = linear(an_sae(), bias=an_sae().b_dec) | changes
    whole = {key: tensor for key, tensor in tensors.items() if tensor is not None}
    with pytest.raises(SaeFileError, match=f"{said}.*Nothing was loaded, and what you have is unchanged"):
        load_sae(a_dictionary(tmp_path, name, whole, **trainer))


def a_coder(folder: Path, **changes: Any) -> Path:
    folder.mkdir()
    plain = an_sae()
    tensors = {
        "encoder.weight": plain.W_enc.t().contiguous(),
        "encoder.bias": plain.b_enc,
        "W_dec": plain.W_dec,
        "b_dec": plain.b_dec,
    }
    save_file(tensors, folder / "sae.safetensors")
    told = {"d_in": 6, "expansion_factor": 32, "num_latents": 10, "k": 4, "signed": False, "multi_topk": False}
    (folder / CFG).write_text(json.dumps(told | changes))
    return folder


def test_sparsify(tmp_path: Path) -> None:
    loaded, pre = load_sae(a_coder(tmp_path / "layers.3.mlp")), an_sae().hidden_pre(some_x())
    top = pre.topk(4)
    assert torch.allclose(loaded.encode(some_x()), torch.zeros(5, 10).scatter(1, top.indices, top.values.relu()))
    assert loaded.metadata == {"trained_by": "sparsify", "layer": 3, "hook_name": "mlp_out"}
    assert load_sae(a_coder(tmp_path / "no_place")).metadata == {"trained_by": "sparsify"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"transcode": True}, "it is a transcoder"),
        ({"skip_connection": True}, "it has a skip connection"),
        ({"activation": "groupmax"}, "activation 'groupmax' is not supported, only topk"),
        ({"signed": True}, "activation 'signed topk' is not supported"),
        ({"k": 11}, "k must be between 1 and its 10 features, got 11"),
        ({"num_latents": 0, "expansion_factor": 2}, "encoder.weight is 10x6, cfg.json says 12x6"),
        ({"d_in": None}, "d_in: input should be a valid integer"),
    ],
)
def test_coders_that_are_refused(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(SaeFileError, match=f"{said}.*Nothing was loaded, and what you have is unchanged"):
        load_sae(a_coder(tmp_path / "h.1", **changes))
