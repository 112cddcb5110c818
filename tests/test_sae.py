"""Every architecture of the registry, against weights set by hand."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from sae_widget.checkpoint import load_sae, save_sae
from sae_widget.config import ARCHITECTURES, TrainConfig
from sae_widget.sae import REGISTRY, SAE
from sae_widget.training import Trainer
from sae_widget.views.kind_controls import KINDS

EXTRA: dict[str, dict[str, Any]] = {
    "standard": {},
    "topk": {"k": 1},
    "batchtopk": {"k": 2, "threshold": 1.5},
    "matryoshka_batchtopk": {"k": 2, "threshold": 0.75},
    "jumprelu": {},
    "gated": {},
}
VECTORS = {  # of ``hand_set``
    "threshold": torch.tensor([2.5, 0.5, 0.0, 4.0]),
    "b_mag": torch.tensor([1.0, -0.5, 5.0, -4.0]),
    "r_mag": torch.tensor([2.0, 1.0, 1.0, 1.0]).log(),
}
HIDDEN_PRE = [[2.0, 1.0, -1.0, 3.0], [-3.0, -1.0, -1.0, -4.0], [0.5, 4.0, -1.0, 4.5]]  # of ``hand_set``
NOTHING = [0.0, 0.0, 0.0, 0.0]
FEATURE_ACTS = {
    "standard": [[2.0, 1.0, 0.0, 3.0], NOTHING, [0.5, 4.0, 0.0, 4.5]],
    "topk": [[0.0, 0.0, 0.0, 3.0], NOTHING, [0.0, 0.0, 0.0, 4.5]],
    "batchtopk": [[2.0, 0.0, 0.0, 3.0], NOTHING, [0.0, 4.0, 0.0, 4.5]],
    "matryoshka_batchtopk": [[2.0, 1.0, 0.0, 3.0], NOTHING, [0.0, 4.0, 0.0, 4.5]],
    "jumprelu": [[0.0, 1.0, 0.0, 0.0], NOTHING, [0.0, 4.0, 0.0, 4.5]],
    # The gate is open where hidden_pre > 0. Without b_enc it is [2, 1, 0, 3], ..., [0.5, 4, 0, 4.5]; the first
    # feature's is doubled, and b_mag added.
    "gated": [[5.0, 0.5, 0.0, 0.0], NOTHING, [2.0, 3.5, 0.0, 0.5]],
}
FIRST_OUT = {
    "standard": [0.0, 3.0],
    "topk": [-1.0, 2.5],
    "batchtopk": [0.0, 2.5],
    "matryoshka_batchtopk": [0.0, 3.0],
    "jumprelu": [0.5, 0.0],
    "gated": [3.0, -0.25],
}

every_architecture = pytest.mark.parametrize("name", sorted(REGISTRY))
every_rule = pytest.mark.parametrize("name", sorted(n for n in REGISTRY if REGISTRY[n].fire is not SAE.fire))


def hand_set(name: str) -> tuple[SAE, torch.Tensor]:
    """Two dimensions, four features, scale 2; and three tokens."""
    sae = REGISTRY[name](
        W_enc=torch.tensor([[1.0, 0.0, 0.0, 1.0], [0.0, 1.0, 0.0, 1.0]]),
        b_enc=torch.tensor([0.0, 0.0, -1.0, 0.0]),
        W_dec=torch.tensor([[1.0, 0.0], [0.0, 1.0], [5.0, 5.0], [-1.0, 2.0]]),
        b_dec=torch.tensor([1.0, -1.0]),
        scale=2.0,
        **EXTRA[name],
        **{vector: VECTORS[vector] for vector in REGISTRY[name].vectors},
    )
    x = torch.tensor([[1.5, 0.0], [-1.0, -1.0], [0.75, 1.5]])
    return sae, x


def random_sae(name: str, d_in: int = 6, d_sae: int = 10, **changes: Any) -> SAE:
    g = torch.Generator().manual_seed(1)
    parts = {
        "W_enc": torch.randn(d_in, d_sae, generator=g),
        "b_enc": torch.randn(d_sae, generator=g),
        "W_dec": torch.randn(d_sae, d_in, generator=g),
        "b_dec": torch.randn(d_in, generator=g),
    }
    vectors = {vector: torch.rand(d_sae, generator=g) for vector in REGISTRY[name].vectors}
    return REGISTRY[name](**(parts | vectors | EXTRA[name] | changes))


def test_every_setting_has_an_architecture() -> None:
    assert set(ARCHITECTURES) == set(REGISTRY) == set(EXTRA)


@every_architecture
def test_hand_set_weights(name: str) -> None:
    sae, x = hand_set(name)
    assert sae.hidden_pre(x).tolist() == HIDDEN_PRE
    assert sae.encode(x).tolist() == FEATURE_ACTS[name]
    assert sae(x)[0].tolist() == FIRST_OUT[name]
    assert sae(x)[1].tolist() == [0.5, -0.5]  # nothing fires: b_dec / scale


@every_rule
def test_the_training_rule_is_the_activation_function(name: str) -> None:
    sae, (hidden_pre, acts) = random_sae(name), torch.randn(2, 5, 10, generator=torch.Generator().manual_seed(3))
    before = hidden_pre.clone()
    sae.fire(hidden_pre, acts, TrainConfig(architecture=name, d_sae=10, **EXTRA[name]))
    assert torch.equal(acts, sae.activate(hidden_pre))
    assert torch.equal(hidden_pre, before)


@every_architecture
def test_it_has_words_for_the_form(name: str) -> None:
    assert REGISTRY[name].words and dict(KINDS)[REGISTRY[name].words] == name


def test_an_architecture_without_a_training_rule_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class ReadOnlySAE(SAE):
        architecture = "read-only"

    try:
        monkeypatch.setitem(ARCHITECTURES, "read-only", ())
        x = torch.randn(20, 6, generator=torch.Generator().manual_seed(3))
        config = TrainConfig(architecture="read-only", d_sae=10)
        words = "has no training rule: ReadOnlySAE lacks `fire`. Nothing was trained; choose one of "
        with pytest.raises(ValueError, match=re.escape(words)):
            Trainer(x, torch.ones(20, dtype=torch.long), config)
    finally:
        del REGISTRY["read-only"]
    with pytest.raises(ValueError, match="architecture 'read-only' is not in the registry"):
        Trainer(x, torch.ones(20, dtype=torch.long), config)


@every_architecture
def test_it_is_shown_in_one_line(name: str) -> None:
    own = "".join(f", {field}={value}" for field, value in EXTRA[name].items())
    assert repr(random_sae(name)) == f"{REGISTRY[name].__name__}(d_in=6, d_sae=10{own})"


@every_architecture
def test_shapes(name: str) -> None:
    sae, x = random_sae(name), torch.randn(5, 6, generator=torch.Generator().manual_seed(2))
    assert (sae.d_in, sae.d_sae) == (6, 10)
    assert sae.hidden_pre(x).shape == sae.encode(x).shape == (5, 10)
    assert sae(x).shape == (5, 6)
    assert sae.encode(x[:1]).shape == (1, 10)
    assert bool((sae.encode(x) >= 0).all())


@every_architecture
def test_sae_out_is_what_the_formula_says(name: str) -> None:
    sae, x = random_sae(name, scale=0.5), torch.randn(5, 6, generator=torch.Generator().manual_seed(2))
    acts = sae.activate((0.5 * x - sae.b_dec) @ sae.W_enc + sae.b_enc)
    assert torch.allclose(sae(x), (acts @ sae.W_dec + sae.b_dec) / 0.5)


@every_architecture
@pytest.mark.parametrize("centred", [True, False])
def test_one_feature_is_that_of_all(name: str, centred: bool) -> None:
    sae = random_sae(name, scale=0.5, apply_b_dec_to_input=centred)
    x = torch.randn(5, 6, generator=torch.Generator().manual_seed(2))
    assert torch.allclose(sae.encode_one(x, 4), sae.encode(x)[:, 4], atol=1e-6)


@every_architecture
def test_b_dec_is_left_in_when_asked(name: str) -> None:
    sae = random_sae(name, apply_b_dec_to_input=False)
    x = torch.randn(5, 6, generator=torch.Generator().manual_seed(2))
    assert torch.allclose(sae.hidden_pre(x), x @ sae.W_enc + sae.b_enc)


@every_architecture
def test_round_trip_through_a_file(name: str, tmp_path: Path) -> None:
    sae = random_sae(name, scale=0.37, metadata={"layer": 3})
    save_sae(sae, tmp_path / "sae")
    loaded = load_sae(tmp_path / "sae")
    x = torch.randn(5, 6, generator=torch.Generator().manual_seed(2))
    assert type(loaded) is type(sae) and loaded.scale == 0.37 and loaded.metadata == {"layer": 3}
    assert loaded.config_fields() == sae.config_fields()
    assert torch.allclose(loaded.encode(x), sae.encode(x), atol=1e-5)
    assert torch.allclose(loaded(x), sae(x), atol=1e-5)


@every_architecture
@pytest.mark.parametrize(("field", "shape"), [("W_enc", (6,)), ("b_enc", (6,)), ("W_dec", (6, 10)), ("b_dec", (10,))])
def test_wrong_shapes_are_named(name: str, field: str, shape: tuple[int, ...]) -> None:
    good = random_sae(name)
    parts = {part: getattr(good, part) for part in ("W_enc", "b_enc", "W_dec", "b_dec", *good.vectors)}
    with pytest.raises(ValueError, match=f"{field} must be "):
        REGISTRY[name](**(parts | {field: torch.zeros(shape)}), **EXTRA[name])
    for vector in good.vectors:
        with pytest.raises(ValueError, match=rf"{vector} must be \[10\], got \[6\]"):
            REGISTRY[name](**(parts | {vector: torch.zeros(6)}), **EXTRA[name])


@pytest.mark.parametrize("k", [0, 11, -1])
def test_topk_refuses_k_out_of_range(k: int) -> None:
    with pytest.raises(ValueError, match=r"k must be between 1 and d_sae \(10\), got"):
        random_sae("topk", k=k)


def test_topk_keeps_exactly_k_when_enough_are_positive() -> None:
    sae = random_sae("topk", k=3)
    acts = sae.activate(torch.arange(20.0).reshape(2, 10) + 1)
    assert (acts > 0).sum(1).tolist() == [3, 3]
    assert acts[0].tolist() == [0.0] * 7 + [8.0, 9.0, 10.0]


def normalised_by_hand(x: list[list[float]], way: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The three tokens as an SAE reads them, and the factor and the shift that undo it, number by number."""
    rows, gains, shifts = [], [], []
    for token in x:
        mean = sum(token) / len(token)
        std = (sum((value - mean) ** 2 for value in token) / (len(token) - 1)) ** 0.5
        norm = sum(value**2 for value in token) ** 0.5
        gain, shift, divisor = {
            "center": (1.0, mean, 1.0),
            "layer_norm": (std, mean, std + 1e-5),
            "constant_norm_rescale": (norm / len(token) ** 0.5, 0.0, norm / len(token) ** 0.5),
        }[way]
        rows.append([(value - shift) / divisor for value in token])
        gains.append([gain])
        shifts.append([shift])
    return torch.tensor(rows), torch.tensor(gains), torch.tensor(shifts)


@every_architecture
@pytest.mark.parametrize("way", ["center", "layer_norm", "constant_norm_rescale"])
def test_tokens_are_normalised_and_brought_back(name: str, way: str, tmp_path: Path) -> None:
    x = [[3.0, -1.0, 2.0, 7.0, 0.0, 1.0], [1.0, 1.5, -2.0, 0.0, 8.0, 0.25], [5.0, 6.0, 5.0, 4.0, 5.5, 7.0]]
    plain, sae = random_sae(name, scale=0.5), random_sae(name, scale=0.5, normalize_activations=way)
    read, gain, shift = normalised_by_hand(x, way)
    given = torch.tensor(x)
    assert torch.allclose(sae.hidden_pre(given), plain.hidden_pre(read), atol=1e-4)
    assert torch.allclose(sae.encode_one(given, 4), plain.encode(read)[:, 4], atol=1e-4)
    assert torch.allclose(sae(given), plain(read) * gain + shift, atol=1e-4)
    assert torch.equal(sae.decode(sae.encode(given), like=given), sae(given))
    save_sae(sae, tmp_path)
    assert torch.allclose(load_sae(tmp_path)(given), sae(given), atol=1e-4)


def test_what_a_normalising_sae_cannot_do() -> None:
    sae = random_sae("topk", normalize_activations="layer_norm")
    with pytest.raises(ValueError, match=r"normalises each token \(layer_norm\): give decode the activations"):
        sae.decode(torch.zeros(2, 10))
    x = torch.randn(20, 6, generator=torch.Generator().manual_seed(3))
    config = TrainConfig(architecture="topk", d_sae=10, k=1)
    with pytest.raises(ValueError, match=r"normalises each token \(layer_norm\), and the trainer does not. Nothing"):
        Trainer(x, torch.ones(20, dtype=torch.long), config, start=sae)
    with pytest.raises(ValueError, match=r"must be one of none, layer_norm, .* got 'l2'"):
        random_sae("topk", normalize_activations="l2")


def test_a_token_of_zeros_is_read_as_such() -> None:
    sae = random_sae("standard", normalize_activations="constant_norm_rescale")
    assert torch.isfinite(sae(torch.zeros(1, 6))).all()
    assert torch.allclose(sae.encode(torch.zeros(1, 6)), random_sae("standard").encode(torch.zeros(1, 6)))
