"""Which rule trains which architecture: the table, kinds without a rule of their own, and what is refused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch

from sae_widget.config import ARCHITECTURES, TrainConfig
from sae_widget.sae import REGISTRY, SAE
from sae_widget.training import Trainer, workspaces
from sae_widget.training.small import SmallWorkspace
from sae_widget.training.workspaces import RULES, workspace
from tests.training_runs import finish, generator, small_data

D_IN, D_SAE, BATCH = 4, 9, 6
CLASSES = {
    "standard": "SmallReLUWorkspace",
    "topk": "SmallTopKWorkspace",
    "batchtopk": "BatchTopKWorkspace",
    "matryoshka_batchtopk": "MatryoshkaWorkspace",
    "jumprelu": "JumpReLUWorkspace",
    "gated": "GatedWorkspace",
}


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that makes kinds of SAE which are forgotten after the test."""

    def register(name: str, own: tuple[str, ...] = (), **members: Any) -> type[SAE]:
        monkeypatch.setitem(REGISTRY, name, SAE)  # put back to what it was
        monkeypatch.setitem(ARCHITECTURES, name, own)
        return dataclass(frozen=True, eq=False, repr=False)(
            type("Made", (SAE,), members | {"architecture": name, "__annotations__": {}})
        )

    return register


def above_one(hidden_pre: torch.Tensor, feature_acts: torch.Tensor, config: TrainConfig) -> None:
    torch.mul(hidden_pre, hidden_pre > 1.0, out=feature_acts)


def test_every_architecture_is_trained_by_its_own_rule() -> None:
    assert {name: rule.__name__ for name, rule in RULES.items()} == CLASSES
    assert RULES.keys() == ARCHITECTURES.keys()
    for name in RULES:
        assert type(workspace(D_IN, BATCH, TrainConfig(architecture=name, d_sae=D_SAE, k=2), True)) is RULES[name]


def test_kinds_that_fire_do_not_hide_a_rule_and_the_others_have_one() -> None:
    assert {name for name, kind in REGISTRY.items() if kind.trains_apart} <= RULES.keys()


@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize("architecture", sorted(RULES))
def test_it_is_made_as_told(architecture: str, center: bool) -> None:
    config = TrainConfig(architecture=architecture, d_sae=D_SAE, k=2)
    work = workspace(D_IN, BATCH, config, center)
    assert (work.d_in, work.d_sae, work.config, work.center_input) == (D_IN, D_SAE, config, center)
    assert work.kind is REGISTRY[architecture] and work.device.type == "cpu" and not work.bfloat16
    assert work.pre.shape == (BATCH, D_SAE) and work.error.shape == work.target.shape == (BATCH, D_IN)
    assert work.params.extra.keys() == set(REGISTRY[architecture].vectors) == work.grads.extra.keys()


@pytest.mark.parametrize("wanted", [True, False])
def test_the_precision_is_asked_for_with_these_sizes(wanted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def wants(*arguments: Any) -> bool:
        asked.append(arguments)
        return wanted

    monkeypatch.setattr(workspaces, "wants_bfloat16", wants)
    config = TrainConfig(architecture="gated", d_sae=D_SAE)
    work = workspace(D_IN, BATCH, config, True)
    assert asked == [(config, D_IN, BATCH, "cpu")]
    assert work.bfloat16 is wanted and work.pre.dtype == (torch.bfloat16 if wanted else torch.float32)
    assert work.params.vector.dtype == torch.float32


@pytest.mark.parametrize("small", [True, False])
def test_any_other_kind_is_trained_by_its_fire(small: bool, registered: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    if not small:
        monkeypatch.setattr("sae_widget.training.small.SMALL", 0)
    registered("above one", ("l1_coefficient",), fire=staticmethod(above_one))
    work = workspace(D_IN, BATCH, TrainConfig(architecture="above one", d_sae=D_SAE), True)
    assert type(work) is SmallWorkspace and work.is_small is small
    work.fresh()
    work.params.vector.normal_(generator=generator(1))
    work.params.b_enc.add_(0.5)
    x = torch.randn(BATCH, D_IN, generator=generator(2))
    work.forward(x)
    losses = work.backward(x, 0.7, None)
    p = {name: getattr(work.params, name).double().requires_grad_() for name in ("W_enc", "b_enc", "W_dec", "b_dec")}
    pre = (x.double() - p["b_dec"]) @ p["W_enc"].t() + p["b_enc"]
    acts = torch.where(pre > 1.0, pre, 0.0)
    loss = ((acts @ p["W_dec"] + p["b_dec"] - x).square().sum() + 0.7 * acts.sum()) / BATCH
    loss.backward()
    assert bool(((pre > 0) & (pre < 1)).any()) and bool((acts > 0).any())
    assert losses.total == pytest.approx(float(loss.detach()), rel=1e-5)
    assert losses.fired.tolist() == (acts > 0).sum(0).tolist()
    for name, parameter in p.items():
        torch.testing.assert_close(getattr(work.grads, name).double(), parameter.grad, rtol=1e-5, atol=1e-5, msg=name)


def test_a_kind_with_fire_alone_is_trained_to_its_end(registered: Any) -> None:
    kind = registered("above one", fire=staticmethod(above_one))
    config = TrainConfig(architecture="above one", d_sae=20, steps=30, batch_size=16)
    trainer = Trainer(*small_data(), config)
    records = finish(trainer)
    assert len(records) == 30 and records[-1].loss < records[0].loss and records[-1].sparsity == 0.0
    assert type(trainer.sae()) is kind


def test_what_cannot_be_trained_is_refused_in_a_sentence(registered: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    registered("only read")
    able = "topk, batchtopk, matryoshka_batchtopk, standard, jumprelu, gated"
    with pytest.raises(ValueError, match="'only read' has no training rule: Made lacks `fire`") as refused:
        workspace(D_IN, BATCH, TrainConfig(architecture="only read", d_sae=D_SAE), True)
    said, _, choose = str(refused.value).partition(" choose one of ")
    assert said.endswith("Nothing was trained;") and sorted(choose[:-1].split(", ")) == sorted(able.split(", "))
    monkeypatch.setitem(ARCHITECTURES, "none", ())
    with pytest.raises(ValueError, match=r"^architecture 'none' is not in the registry\. Nothing was trained; choose"):
        workspace(D_IN, BATCH, TrainConfig(architecture="none", d_sae=D_SAE), True)
    with pytest.raises(ValueError, match="architecture 'only read' has no training rule"):
        Trainer(*small_data(), TrainConfig(architecture="only read", d_sae=20))
