"""Measures with answers worked out by hand."""

import math

import pytest
import torch

from sae_widget.metrics import explained_variance


def test_explained_variance_of_a_perfect_a_mean_and_a_worse_reconstruction():
    x = torch.tensor([[0.0, 1.0, 0.0], [2.0, 1.0, 0.0]])
    assert explained_variance(x, x) == 1.0
    assert explained_variance(x, x.mean(0).expand(2, 3)) == 0.0
    assert explained_variance(x, x + 2.0) == pytest.approx(1 - 24 / 2)
    assert math.isnan(explained_variance(torch.ones(3, 2), torch.zeros(3, 2)))


@pytest.mark.parametrize("shape", [(3,), (2, 2), (3, 2), (1, 3)])
def test_a_reconstruction_of_another_shape_is_refused_and_not_broadcast(shape):
    with pytest.raises(ValueError, match=r"must both be \[pos, d_in\], got \[2, 3\] and \["):
        explained_variance(torch.ones(2, 3), torch.zeros(shape))


def test_what_is_no_tensor_is_refused():
    with pytest.raises(TypeError, match="x must be a torch tensor, got list"):
        explained_variance([[1.0]], torch.ones(1, 1))
    with pytest.raises(TypeError, match="sae_out must be a torch tensor, got NoneType"):
        explained_variance(torch.ones(1, 1), None)
