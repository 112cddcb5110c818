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

EXTRA: dict[str, dict[str, Any]] = {"standard": {}, "topk": {"k": 1}}
HIDDEN_PRE = [[2.0, 1.0, -1.0, 3.0], [-3.0, -1.0, -1.0, -4.0], [0.5, 4.0, -1.0, 4.5]]  # of ``hand_set``
FEATURE_ACTS = {
    "standard": [[2.0, 1.0, 0.0, 3.0], [0.0, 0.0, 0.0, 0.0], [0.5, 4.0, 0.0, 4.5]],
    "topk": [[0.0, 0.0, 0.0, 3.0], [0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 4.5]],
}
FIRST_OUT = {"standard": [0.0, 3.0], "topk": [-1.0, 2.5]}

every_architecture = pytest.mark.parametrize("name", sorted(REGISTRY))


def hand_set(name: str) -> tuple[SAE, torch.Tensor]:
    """Two dimensions, four features, scale 2; and three tokens."""
    sae = REGISTRY[name](
        W_enc=torch.tensor([[1.0, 0.0, 0.0, 1.0], [0.0, 1.0, 0.0, 1.0]]),
        b_enc=torch.tensor([0.0, 0.0, -1.0, 0.0]),
        W_dec=torch.tensor([[1.0, 0.0], [0.0, 1.0], [5.0, 5.0], [-1.0, 2.0]]),
        b_dec=torch.tensor([1.0, -1.0]),
        scale=2.0,
        **EXTRA[name],
    )
    x = torch.tensor([[1.5, 0.0], [-1.0, -1.0], [0.75, 1.5]])
    return sae, x


def random_sae(name: str, d_in: int = 6, d_sae: int = 10, **changes: Any) -> SAE:
    g = torch.Generator().manual_seed(1)
    return REGISTRY[name](
        W_enc=torch.randn(d_in, d_sae, generator=g),
        b_enc=torch.randn(d_sae, generator=g),
        W_dec=torch.randn(d_sae, d_in, generator=g),
        b_dec=torch.randn(d_in, generator=g),
        **(EXTRA[name] | changes),
    )


def test_every_setting_has_an_architecture() -> None:
    assert set(ARCHITECTURES) == set(REGISTRY) == set(EXTRA)


@every_architecture
def test_hand_set_weights(name: str) -> None:
    sae, x = hand_set(name)
    assert sae.hidden_pre(x).tolist() == HIDDEN_PRE
    assert sae.encode(x).tolist() == FEATURE_ACTS[name]
    assert sae(x)[0].tolist() == FIRST_OUT[name]
    assert sae(x)[1].tolist() == [0.5, -0.5]  # nothing fires: b_dec / scale


@every_architecture
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
        words = "has no training rule: ReadOnlySAE lacks `fire`. Nothing was trained; choose one of standard, "
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
    parts = {part: getattr(good, part) for part in ("W_enc", "b_enc", "W_dec", "b_dec")}
    with pytest.raises(ValueError, match=f"{field} must be "):
        REGISTRY[name](**(parts | {field: torch.zeros(shape)}), **EXTRA[name])


@pytest.mark.parametrize("k", [0, 11, -1])
def test_topk_refuses_k_out_of_range(k: int) -> None:
    with pytest.raises(ValueError, match=r"k must be between 1 and d_sae \(10\), got"):
        random_sae("topk", k=k)


def test_topk_keeps_exactly_k_when_enough_are_positive() -> None:
    sae = random_sae("topk", k=3)
    acts = sae.activate(torch.arange(20.0).reshape(2, 10) + 1)
    assert (acts > 0).sum(1).tolist() == [3, 3]
    assert acts[0].tolist() == [0.0] * 7 + [8.0, 9.0, 10.0]
