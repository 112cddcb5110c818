"""Muon: near-orthogonal updates of the right size, whole matrix or in blocks."""

import pytest
import torch

from sae_widget.muon import Muon, orthogonalize


@pytest.mark.parametrize("shape", [(20, 30), (30, 20)])
def test_all_singular_values_come_near_one(shape):
    update = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
    before = torch.linalg.svdvals(update)
    after = torch.linalg.svdvals(orthogonalize(update))
    assert before.max() / before.min() > 5
    assert 0.5 < after.min() <= after.max() < 1.3


def test_a_step_moves_each_block_by_the_same_size_against_the_gradient():
    generator = torch.Generator().manual_seed(1)
    param = torch.nn.Parameter(torch.zeros(6, 30))
    param.grad = torch.randn(6, 30, generator=generator) * torch.tensor([1.0, 100.0, 0.01]).repeat_interleave(10)
    muon = Muon([(param, 3)], lr=0.1, weight_decay=0.0)
    muon.step()
    sizes = [float(block.detach().norm()) for block in param.chunk(3, 1)]
    assert max(sizes) / min(sizes) < 1.3
    assert float((param.detach() * param.grad).sum()) < 0


def test_without_a_gradient_nothing_moves():
    param = torch.nn.Parameter(torch.ones(4, 5))
    Muon([(param, 1)], lr=0.1, weight_decay=0.5).step()
    assert torch.equal(param.detach(), torch.ones(4, 5))
