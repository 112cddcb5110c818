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


@pytest.mark.parametrize(
    ("x", "out", "error", "words"),
    [
        (torch.ones(5, 3), torch.ones(4, 3), ValueError, r"sae_out must be \[5, 3\] like x, got shape \[4, 3\]"),
        (torch.ones(5, 3), torch.ones(3), ValueError, r"sae_out must be \[5, 3\] like x, got shape \[3\]"),
        (torch.ones(3), torch.ones(3), ValueError, r"x must be \[pos, d_in\], got shape \[3\]"),
        ([[1.0]], torch.ones(1, 1), TypeError, "x must be a torch tensor, got list"),
        (torch.ones(1, 1), None, TypeError, "sae_out must be a torch tensor, got NoneType"),
    ],
)
def test_shapes_that_do_not_fit_are_named(x, out, error, words):
    with pytest.raises(error, match=words):
        explained_variance(x, out)
