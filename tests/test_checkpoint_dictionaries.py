"""SAEs of dictionary_learning: each class against its published forward pass, and files that do not go together."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from sae_widget.checkpoint import SaeFileError, load_sae
from sae_widget.checkpoint.dictionaries import CLASSES
from tests.training_runs import generator

D_IN, D_SAE = 4, 7
Tensors = dict[str, torch.Tensor]


def draw(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=generator(seed))


def linear(bias: str) -> Tensors:
    return {
        "encoder.weight": draw(1, D_SAE, D_IN),
        "encoder.bias": draw(2, D_SAE),
        "decoder.weight": draw(3, D_IN, D_SAE),
        bias: draw(4, D_IN),
    }


def plain(threshold: torch.Tensor) -> Tensors:
    names = {"W_enc": (D_IN, D_SAE), "b_enc": (D_SAE,), "W_dec": (D_SAE, D_IN), "b_dec": (D_IN,)}
    return {name: draw(at, *shape) for at, (name, shape) in enumerate(names.items())} | {"threshold": threshold}


def gated() -> Tensors:
    own = linear("decoder_bias")
    del own["encoder.bias"]
    return own | {"gate_bias": draw(5, D_SAE), "mag_bias": draw(6, D_SAE), "r_mag": 0.3 * draw(7, D_SAE)}


def written(folder: Path, name: str, tensors: Tensors, told: Any = None, **trainer: Any) -> Path:
    folder.mkdir(exist_ok=True)
    torch.save(tensors, folder / "ae.pt")
    own = {"dict_class": name, "activation_dim": D_IN, "dict_size": D_SAE} | trainer
    (folder / "config.json").write_text(json.dumps({"trainer": own} if told is None else told))
    return folder


def _auto_encoder(t: Tensors, x: torch.Tensor) -> torch.Tensor:
    acts = ((x - t["bias"]) @ t["encoder.weight"].T + t["encoder.bias"]).relu()
    return acts @ t["decoder.weight"].T + t["bias"]


def _auto_encoder_new(t: Tensors, x: torch.Tensor) -> torch.Tensor:
    return (x @ t["encoder.weight"].T + t["encoder.bias"]).relu() @ t["decoder.weight"].T + t["decoder.bias"]


def _topk(t: Tensors, x: torch.Tensor) -> torch.Tensor:
    acts = ((x - t["b_dec"]) @ t["encoder.weight"].T + t["encoder.bias"]).relu()
    values, places = acts.topk(int(t["k"]), dim=-1)
    return torch.zeros_like(acts).scatter(-1, places, values) @ t["decoder.weight"].T + t["b_dec"]


def _batch_topk(t: Tensors, x: torch.Tensor) -> torch.Tensor:
    acts = ((x - t["b_dec"]) @ t["encoder.weight"].T + t["encoder.bias"]).relu()
    return acts * (acts > t["threshold"]) @ t["decoder.weight"].T + t["b_dec"]


def _matryoshka(t: Tensors, x: torch.Tensor) -> torch.Tensor:
    acts = ((x - t["b_dec"]) @ t["W_enc"] + t["b_enc"]).relu()
    return acts * (acts > t["threshold"]) @ t["W_dec"] + t["b_dec"]


def _jumprelu(t: Tensors, x: torch.Tensor) -> torch.Tensor:
    pre = x @ t["W_enc"] + t["b_enc"]
    return (pre * (pre > t["threshold"])).relu() @ t["W_dec"] + t["b_dec"]


def _gated(t: Tensors, x: torch.Tensor) -> torch.Tensor:
    z = (x - t["decoder_bias"]) @ t["encoder.weight"].T
    acts = (z + t["gate_bias"] > 0) * (t["r_mag"].exp() * z + t["mag_bias"]).relu()
    return acts @ t["decoder.weight"].T + t["decoder_bias"]


THRESHOLD, K = torch.tensor(0.4), torch.tensor(3, dtype=torch.int32)
FORWARD: dict[str, tuple[Tensors, Callable[[Tensors, torch.Tensor], torch.Tensor]]] = {
    "AutoEncoder": (linear("bias"), _auto_encoder),
    "AutoEncoderNew": (linear("decoder.bias"), _auto_encoder_new),
    "AutoEncoderTopK": (linear("b_dec") | {"k": K}, _topk),
    "BatchTopKSAE": (linear("b_dec") | {"k": K, "threshold": THRESHOLD}, _batch_topk),
    "MatryoshkaBatchTopKSAE": (
        plain(THRESHOLD) | {"k": K, "group_sizes": torch.tensor([3, 4])},
        _matryoshka,
    ),
    "JumpReluAutoEncoder": (plain(draw(8, D_SAE)), _jumprelu),  # thresholds below zero among them
    "GatedAutoEncoder": (gated(), _gated),
}


def test_every_class_has_its_forward_pass() -> None:
    assert set(FORWARD) == set(CLASSES)


@pytest.mark.parametrize("name", sorted(FORWARD))
def test_it_computes_what_the_library_computes(name: str, tmp_path: Path) -> None:
    tensors, forward = FORWARD[name]
    x = draw(9, 40, D_IN)
    sae = load_sae(written(tmp_path, name, tensors), d_in=D_IN)
    torch.testing.assert_close(sae(x), forward(tensors, x), atol=1e-5, rtol=1e-5)
    assert 0 < int((sae.encode(x) > 0).sum()) < 40 * D_SAE
    assert (sae.architecture, sae.d_in, sae.d_sae) == (CLASSES[name][0], D_IN, D_SAE)


@pytest.mark.parametrize("value", [-1.0, -0.0, 0.0])
def test_a_threshold_that_was_never_found_is_their_relu(value: float, tmp_path: Path) -> None:
    tensors = FORWARD["BatchTopKSAE"][0] | {"threshold": torch.tensor(value)}
    x = draw(9, 40, D_IN)
    sae = load_sae(written(tmp_path, "BatchTopKSAE", tensors))
    torch.testing.assert_close(sae(x), _batch_topk(tensors | {"threshold": torch.tensor(-1.0)}, x), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("stored", "told", "wanted"), [(D_SAE, None, D_SAE), (1, 1, 1), (None, 5, 5), (7, 7, 7)])
def test_k_may_be_in_either_file(stored: int | None, told: int | None, wanted: int, tmp_path: Path) -> None:
    tensors = {name: tensor for name, tensor in FORWARD["AutoEncoderTopK"][0].items() if name != "k"}
    tensors |= {} if stored is None else {"k": torch.tensor([stored])}
    assert load_sae(written(tmp_path, "AutoEncoderTopK", tensors, k=told)).k == wanted  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("stored", "told"), [(0, None), (-3, None), (D_SAE + 1, None), (2**62, None), (3, 4), (None, None), (None, 0)]
)
def test_a_k_that_cannot_be_is_refused(stored: int | None, told: int | None, tmp_path: Path) -> None:
    tensors = {name: tensor for name, tensor in FORWARD["AutoEncoderTopK"][0].items() if name != "k"}
    tensors |= {} if stored is None else {"k": torch.tensor(stored)}
    with pytest.raises(SaeFileError, match=r"config\.json: k must be that of ae\.pt, between 1 and 7\. Nothing was"):
        load_sae(written(tmp_path, "AutoEncoderTopK", tensors, k=told))


@pytest.mark.parametrize(
    ("submodule", "layer", "wanted"),
    [
        ("resid_post_layer_4", 4, {"layer": 4, "hook_name": "resid_post"}),
        ("resid_pre", 0, {"layer": 0, "hook_name": "resid_pre"}),
        ("mlp_layer_2", 2, {"layer": 2, "hook_name": "mlp_out"}),
        ("attention_layer_2", 2, {"layer": 2, "hook_name": "attn_out"}),
        ("attn_out", 3, {"layer": 3, "hook_name": "attn_out"}),
        ("embed", 1, {}),
        ("resid_post", "4", {}),
        ("resid_post", None, {}),
        (None, 4, {}),
        ("\ud800", 4, {}),
    ],
)
def test_where_it_reads(submodule: str | None, layer: Any, wanted: dict[str, Any], tmp_path: Path) -> None:
    folder = written(tmp_path, "AutoEncoder", linear("bias"), submodule_name=submodule, layer=layer)
    assert load_sae(folder).metadata == {"trained_by": "dictionary_learning"} | wanted


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({}, "trainer: field required"),
        ({"trainer": None}, "trainer: input should be a valid dictionary"),
        ({"trainer": 7}, "trainer: input should be a valid dictionary"),
        ({"trainer": [1]}, "trainer: input should be a valid dictionary"),
        ({"trainer": {}}, r"trainer\.dict_class: field required"),
        ({"trainer": {"dict_class": ["AutoEncoder"]}}, r"trainer\.dict_class: input should be a valid string"),
        (["trainer"], "it is not a JSON object"),
    ],
)
def test_a_config_of_another_shape_is_refused_by_its_field(told: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(SaeFileError, match=rf"^config\.json: {said}.*Nothing was loaded"):
        load_sae(written(tmp_path, "AutoEncoder", linear("bias"), told))


@pytest.mark.parametrize(
    ("dict_class", "told"),
    [
        ("\ud800", r"dict_class '\\ud800' is not one of"),
        ("x" * 5000, "dict_class 'x{40}' is not"),
        ("", "dict_class ''"),
    ],
)
def test_a_class_that_is_not_known_is_said_in_short(dict_class: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(SaeFileError, match=told) as caught:
        load_sae(written(tmp_path, dict_class, linear("bias")))
    assert str(caught.value).isprintable() and len(str(caught.value)) < 400


@pytest.mark.parametrize("threshold", [torch.ones(D_SAE), torch.ones(1), torch.tensor(1)])
def test_a_threshold_of_another_form_is_refused(threshold: torch.Tensor, tmp_path: Path) -> None:
    tensors = FORWARD["BatchTopKSAE"][0] | {"threshold": threshold}
    with pytest.raises(SaeFileError, match=r"ae.pt: threshold is .*config.json says"):
        load_sae(written(tmp_path, "BatchTopKSAE", tensors))


def test_a_model_of_another_width_is_told(tmp_path: Path) -> None:
    with pytest.raises(SaeFileError, match="W_enc is 4x7, this model needs 6xN"):
        load_sae(written(tmp_path, "AutoEncoder", linear("bias")), d_in=6)
