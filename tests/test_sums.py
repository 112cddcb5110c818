"""Weighted sums of rows: bags and products give what a dense product gives, and which is taken belongs to a run."""

from __future__ import annotations

import pytest
import torch
import torch._dynamo  # torch imports it at a first use, and that changes warning filters

from sae_widget.config import ARCHITECTURES, TrainConfig
from sae_widget.training import Trainer, pairs, sums
from sae_widget.training.sums import can_multiply, multiplying_is_fast, weighted_sums
from sae_widget.training.trainer import WAYS
from sae_widget.training.workspaces import workspace
from tests.training_runs import RECIPES, finish, over_pairs, small_data


def sums_of(rows: torch.Tensor, bags: list[list[int]], *, multiply: bool) -> torch.Tensor:
    index = torch.tensor([i for bag in bags for i in bag], dtype=torch.int64)
    starts = torch.tensor([0, *(len(bag) for bag in bags)]).cumsum(0)
    weight = torch.arange(1.0, len(index) + 1)
    out = torch.full((len(bags), rows.shape[1]), torch.nan)  # what was there before must not matter
    assert weighted_sums(rows, index, starts, weight, out, multiply=multiply) is out
    return out


BOTH = [
    pytest.param(True, marks=pytest.mark.skipif(not can_multiply(), reason="this build of torch has no products")),
    False,
]


@pytest.mark.parametrize("multiply", BOTH)
@pytest.mark.parametrize("chunk", [1, 10, 2**21])
def test_sums_are_a_dense_product(multiply: bool, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sums, "CHUNK_FLOATS", chunk)
    rows = torch.randn(7, 5, generator=torch.Generator().manual_seed(0))
    bags = [[3, 0, 6], [], [1], [], [5, 2, 4, 0], []]
    dense, number = torch.zeros(len(bags), 7), 0
    for at, bag in enumerate(bags):
        for i in bag:
            number += 1
            dense[at, i] += number
    torch.testing.assert_close(sums_of(rows, bags, multiply=multiply), dense @ rows)


@pytest.mark.parametrize("multiply", BOTH)
def test_no_pairs_at_all_are_zeros(multiply: bool) -> None:
    assert torch.equal(sums_of(torch.ones(3, 2), [[], []], multiply=multiply), torch.zeros(2, 2))


def test_a_build_without_products_takes_bags(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("Calling addmm on a sparse CPU tensor requires compiling PyTorch with MKL.")

    work = workspace(6, 50, TrainConfig(architecture="batchtopk", d_sae=40, k=4), True)
    work.fresh()
    work.memory["multiplies"].fill_(1.0)  # the run began where there are products
    for known in (multiplying_is_fast, can_multiply):
        known.cache_clear()
    monkeypatch.setattr(torch, "sparse_csr_tensor", refuse)
    monkeypatch.setattr(pairs, "samples", lambda: False)
    try:
        assert multiplying_is_fast() is can_multiply() is False
        work.params.vector.normal_(generator=torch.Generator().manual_seed(1))
        x = torch.randn(50, 6, generator=torch.Generator().manual_seed(2))
        work.forward(x)
        assert work.backward(x, 0.0, None).fired.sum() == 200
    finally:
        for known in (multiplying_is_fast, can_multiply):
            known.cache_clear()
    assert multiplying_is_fast("cuda") is can_multiply("cuda") is False


@pytest.mark.parametrize("architecture", ["topk", "standard"])
def test_a_state_from_before_the_ways_were_kept_goes_on(architecture: str) -> None:
    config = RECIPES[architecture].changed(steps=6)
    trainer = Trainer(*small_data(), config)
    for record in trainer.run():
        if record.step == 3:
            break
    state = {name: tensor for name, tensor in trainer.state_dict().items() if name not in WAYS}
    assert len(state) < len(trainer.state_dict())
    later = Trainer(*small_data(), config)
    later.load_state_dict(state)
    assert [record.step for record in later.run()] == [4, 5, 6]
    finish(trainer)
    assert torch.equal(later.sae().W_dec, trainer.sae().W_dec)


@pytest.mark.skipif(not can_multiply(), reason="this build of torch has no products")
@pytest.mark.parametrize("dead", [None, torch.tensor([3, 17])], ids=["alive", "some dead"])
@pytest.mark.parametrize(
    ("architecture", "ways"),
    [
        ("topk", "divides"),
        ("topk", "multiplies"),
        ("batchtopk", "multiplies"),
        ("matryoshka_batchtopk", "multiplies"),
    ],
)
def test_both_ways_have_the_same_gradients(
    architecture: str, ways: str, dead: torch.Tensor | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    over_pairs(monkeypatch)
    work = workspace(6, 50, TrainConfig(architecture=architecture, d_sae=40, k=4), True)
    work.fresh()
    work.params.vector.normal_(generator=torch.Generator().manual_seed(1))
    x, found = torch.randn(50, 6, generator=torch.Generator().manual_seed(2)), []
    for way in (0.0, 1.0):
        work.memory[ways].fill_(way)
        work.forward(x)
        losses = work.backward(x, 0.0, dead)
        found.append((losses.total, losses.fired.tolist(), work.grads.vector.clone()))
    (loss, fired, grads), (other_loss, other_fired, other_grads) = found
    assert loss == pytest.approx(other_loss, rel=1e-6) and fired == other_fired
    torch.testing.assert_close(grads, other_grads, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
@pytest.mark.parametrize("dead", [None, torch.tensor([3, 17, 39])], ids=["alive", "some dead"])
def test_norms_are_kept_from_sums_over_the_pairs(
    architecture: str, dead: torch.Tensor | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    # W_dec . its gradient is never computed from the matrices there; it must be gone all the same.
    over_pairs(monkeypatch)
    monkeypatch.setattr("sae_widget.training.small.SMALL", 0)
    work = workspace(6, 50, TrainConfig(architecture=architecture, d_sae=40, k=4), True)
    work.fresh()
    if "pays" in work.memory:
        work.memory["pays"].fill_(2.0)
    work.params.vector.normal_(generator=torch.Generator().manual_seed(1))
    work.unit_norm()
    x = torch.randn(50, 6, generator=torch.Generator().manual_seed(2))
    work.forward(x)
    work.backward(x, 0.0, dead if work.kind.revives_dead else None)
    assert work.is_sparse
    before = work.grads.W_dec.clone()
    work.keep_norms()
    left = (work.grads.W_dec * work.params.W_dec).sum(1)
    assert float((before * work.params.W_dec).sum(1).abs().max()) > 1.0
    torch.testing.assert_close(left, torch.zeros(40), atol=1e-4, rtol=0)
