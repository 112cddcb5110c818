"""Dead features that start again: which token each is given, and losses of any size."""

from __future__ import annotations

import pytest
import torch

from sae_widget.config import TrainConfig
from sae_widget.training.base import Flat
from sae_widget.training.gradients import Workspace
from sae_widget.training.resample import resample
from sae_widget.training.workspaces import workspace
from tests.training_runs import generator

D_IN, D_SAE, BATCH = 4, 9, 6


def worked(error: list[float]) -> tuple[Workspace, tuple[Flat, Flat]]:
    """A workspace of whose step each token had this error, in one number."""
    work = workspace(D_IN, BATCH, TrainConfig(architecture="standard", d_sae=D_SAE), True)
    work.fresh()
    work.params.vector.normal_(generator=generator(1))
    work.target.copy_(torch.randn(BATCH, D_IN, generator=generator(2)))
    work.error.zero_()
    work.error[:, 1] = torch.tensor(error)
    moments = Flat(D_IN, D_SAE), Flat(D_IN, D_SAE)
    for moment in moments:
        moment.vector.fill_(1.0)
    return work, moments


def given(work: Workspace, features: list[int]) -> list[int]:
    """The tokens whose directions these decoder rows have."""
    directions = work.target / work.target.norm(dim=1, keepdim=True)
    cosines = work.params.W_dec[features] @ directions.t()
    assert torch.allclose(cosines.max(dim=1).values, torch.ones(len(features)), atol=1e-5)
    return cosines.argmax(dim=1).tolist()


@pytest.mark.parametrize("size", [1e-5, 1.0, 1e8, 1e10, 1e18])
def test_tokens_are_drawn_by_their_squared_loss_whatever_its_size(size: float) -> None:
    found = []
    for seed in range(400):
        work, moments = worked([0.0, 0.0, 1.0 * size, 0.0, -2.0 * size, 0.0])
        resample(work, moments, torch.tensor([0, 3, 8]), seed)
        found += given(work, [0, 3, 8])
    assert set(found) == {2, 4}
    assert found.count(2) / len(found) == pytest.approx(1 / 17, abs=0.03)  # losses 1 and 4, squared 1 and 16


@pytest.mark.parametrize("dead", [[], [2]])
def test_without_a_loss_or_a_dead_feature_nothing_changes(dead: list[int]) -> None:
    work, moments = worked([0.0] * BATCH if dead else [1.0] * BATCH)
    before = work.params.vector.clone()
    resample(work, moments, torch.tensor(dead, dtype=torch.int64), 0)
    assert torch.equal(work.params.vector, before) and bool((moments[0].vector == 1).all())


def test_where_all_are_dead_the_encoder_is_the_direction_itself() -> None:
    work, moments = worked([1.0, 0.0, 0.0, 0.0, 0.0, 0.0])
    b_dec = work.params.b_dec.clone()
    resample(work, moments, torch.arange(D_SAE), 3)
    assert given(work, list(range(D_SAE))) == [0] * D_SAE
    assert torch.equal(work.params.W_enc, work.params.W_dec) and not work.params.b_enc.any()
    assert torch.equal(work.params.b_dec, b_dec) and bool((moments[1].b_dec == 1).all())
    assert not any(moment.W_dec.any() or moment.W_enc.any() or moment.b_enc.any() for moment in moments)


def test_the_encoder_row_is_a_fifth_of_the_mean_of_the_living() -> None:
    work, moments = worked([0.0, 0.0, 0.0, 1.0, 0.0, 0.0])
    before = work.params.W_enc.clone()
    dead = [1, 2, 3, 5, 6, 7, 8]
    resample(work, moments, torch.tensor(dead), 3)
    wanted = 0.2 * (before[0].norm() + before[4].norm()) / 2
    assert work.params.W_enc[dead].norm(dim=1).tolist() == pytest.approx([float(wanted)] * 7, rel=1e-5)
    assert torch.equal(work.params.W_enc[[0, 4]], before[[0, 4]])


def test_a_token_at_the_center_has_no_direction_and_gives_none() -> None:
    work, moments = worked([1.0, 0.0, 0.0, 0.0, 0.0, 0.0])
    work.target[0] = 0.0
    resample(work, moments, torch.tensor([4]), 0)
    assert bool(torch.isfinite(work.params.vector).all())


def test_the_seed_decides_and_nothing_global_is_drawn_from() -> None:
    def drawn(seed: int) -> torch.Tensor:
        work, moments = worked([1.0] * BATCH)
        resample(work, moments, torch.arange(D_SAE), seed)
        return work.params.W_dec.clone()

    assert torch.equal(drawn(5), drawn(5))
    assert any(not torch.equal(drawn(5), drawn(seed)) for seed in (6, 7))
