"""Measures with answers worked out by hand."""

import math

import pytest
import torch

from sae_widget.metrics import (
    best_match,
    dead_count,
    explained_variance,
    feature_frequency,
    frequency_histogram,
    l0,
    mmcs,
    recovered,
    relative_reconstruction_bias,
    shrinkage,
)


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


def test_explained_variance_without_the_first_token_of_each_window():
    # The outlier of norm 100 is kept whole: with it the share is near 1, without it the answer is the mean.
    x = torch.tensor([[100.0, 0.0, 0.0], [0.0, 1.0, 3.0], [0.0, 3.0, 3.0]])
    out = torch.tensor([[100.0, 0.0, 0.0], [0.0, 2.0, 3.0], [0.0, 2.0, 3.0]])
    position = torch.tensor([0, 1, 2])
    assert explained_variance(x, out) > 0.999
    assert explained_variance(x, out, position) == 0.0
    assert explained_variance(x, out, torch.tensor([1, 2, 3])) == explained_variance(x, out)
    assert math.isnan(explained_variance(x, out, torch.tensor([0, 0, 5])))
    with pytest.raises(ValueError, match=r"position must be \[3\] like x, got shape \[2\]"):
        explained_variance(x, out, torch.tensor([0, 1]))
    with pytest.raises(TypeError, match="position must be a torch tensor, got list"):
        explained_variance(x, out, [0, 1, 2])


class TestBias:
    def test_by_hand(self):
        x = torch.tensor([[1.0, 0.0, 2.0], [0.0, 4.0, 0.0]])
        assert relative_reconstruction_bias(x, x) == 1.0
        assert relative_reconstruction_bias(x, x / 2) == 0.5
        out = torch.tensor([[2.0, 1.0, 0.0], [0.0, 1.0, 0.0]])  # |out|^2 = 4 + 1 + 1, out . x = 2 + 4
        assert relative_reconstruction_bias(x, out) == 1.0
        assert relative_reconstruction_bias(x, out * torch.tensor([1.0, 3.0, 1.0])) == pytest.approx(22 / 14)

    def test_dividing_by_it_is_the_best_rescaling(self):
        x = torch.tensor([[1.0, 0.5, 2.0], [0.2, 4.0, 0.0]])
        out = torch.tensor([[0.7, 0.1, 1.1], [0.3, 2.5, 0.4]])
        bias = relative_reconstruction_bias(x, out)
        errors = [float((out / g - x).square().sum()) for g in (bias * 0.99, bias, bias * 1.01)]
        assert errors[1] < min(errors[0], errors[2])

    def test_without_an_answer(self):
        assert math.isnan(relative_reconstruction_bias(torch.ones(2, 3), torch.zeros(2, 3)))
        with pytest.raises(ValueError, match=r"must both be \[pos, d_in\]"):
            relative_reconstruction_bias(torch.ones(2, 3), torch.ones(3))


class TestShrinkage:
    def test_by_hand(self):
        true = torch.tensor([[1.0, 0.0, 2.0], [3.0, 0.0, 1.0]])
        acts = torch.tensor([[0.8, 5.0, 1.4], [0.0, 0.0, 1.0]])  # both fire at three places: 0.2, 0.6, 0.0
        assert shrinkage(true, acts) == pytest.approx(0.8 / 3)
        assert shrinkage(true, true + 0.5 * (true > 0)) == pytest.approx(-0.5)

    def test_without_an_answer(self):
        assert math.isnan(shrinkage(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])))
        with pytest.raises(ValueError, match=r"true_acts and feature_acts must both be \[pos, n_true\], got \[2, 3\]"):
            shrinkage(torch.ones(2, 3), torch.ones(2, 4))


class TestFiring:
    ACTS = torch.tensor([[0.0, 2.0, 0.1, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]])

    def test_l0_by_hand(self):
        assert l0(self.ACTS) == pytest.approx(4 / 3)
        assert l0(torch.zeros(3, 5)) == 0.0
        assert l0(-torch.ones(3, 5)) == 0.0  # a negative number is no firing
        assert math.isnan(l0(torch.zeros(0, 5)))

    def test_frequency_and_dead_by_hand(self):
        frequency = feature_frequency(self.ACTS)
        assert frequency.tolist() == pytest.approx([0, 1, 1 / 3, 0])
        assert dead_count(frequency) == dead_count(frequency.numpy()) == dead_count([0.0, 1.0, 0.3, 0.0]) == 2

    def test_histogram_by_hand(self):
        # 1 has log10 0 and goes into the last bin; 0.1 is on an edge and goes to its right; 1e-9 is below all edges.
        found = frequency_histogram([0.0, 1.0, 0.1, 0.05, 1e-9, 0.0, 0.0, 0.02], n_bins=3, low=-3.0)
        assert found.edges.tolist() == [-3.0, -2.0, -1.0, 0.0]
        assert found.counts.tolist() == [1, 2, 2]
        assert found.share_zero == 3 / 8

    def test_every_feature_is_counted_once(self):
        frequency = torch.tensor([0.0, 1e-8, 1e-7, 0.003, 0.5, 1.0, 0.0])
        found = frequency_histogram(frequency)
        assert found.counts.sum() + round(found.share_zero * 7) == 7
        assert len(found.edges) == len(found.counts) + 1 == 29 and found.edges[0] == -7.0
        assert frequency_histogram(torch.zeros(4)).counts.sum() == 0

    def test_what_is_refused(self):
        with pytest.raises(ValueError, match=r"feature_acts must be \[pos, d_sae\], got shape \[3\]"):
            l0(torch.ones(3))
        with pytest.raises(TypeError, match="feature_acts must be a torch tensor, got list"):
            feature_frequency([[1.0]])
        with pytest.raises(ValueError, match="at least one token, got none"):
            feature_frequency(torch.zeros(0, 4))
        with pytest.raises(ValueError, match=r"between 0 and 1, got 1.5 for feature 1"):
            dead_count([0.0, 1.5])
        with pytest.raises(ValueError, match="between 0 and 1, got nan for feature 0"):
            dead_count([math.nan, 1.0])
        with pytest.raises(ValueError, match=r"frequency must be \[d_sae\], got shape \[2, 2\]"):
            dead_count(torch.zeros(2, 2))
        for wrong, words in (
            ({"n_bins": 0}, "n_bins must be at least 1, got 0"),
            ({"low": 0.0}, "low must be below 0"),
        ):
            with pytest.raises(ValueError, match=words):
                frequency_histogram([0.5], **wrong)
        with pytest.raises(ValueError, match="at least one feature, got none"):
            frequency_histogram([])


class TestKnownDirections:
    TRUE = torch.tensor([[2.0, 0.0, 0.0], [0.0, 1.0, 1.0]])
    # Cosines with the two: (0.6, 0.8 / sqrt 2), (0, 1), (-1, 0), (0, 0)
    W_DEC = torch.tensor([[0.6, 0.8, 0.0], [0.0, 5.0, 5.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])

    def test_by_hand(self):
        found = best_match(self.W_DEC, self.TRUE)
        assert found.cosine.tolist() == pytest.approx([0.6, 1.0]) and found.feature.tolist() == [0, 1]
        assert mmcs(self.W_DEC, self.TRUE) == pytest.approx(0.8)
        assert recovered(self.W_DEC, self.TRUE) == 1
        assert recovered(self.W_DEC, self.TRUE, threshold=0.5) == 2

    def test_a_dead_row_finds_nothing(self):
        live = torch.tensor([True, False, True, True])
        assert mmcs(self.W_DEC, self.TRUE, live) == pytest.approx((0.6 + 0.8 / 2**0.5) / 2)
        assert recovered(self.W_DEC, self.TRUE, live) == 0
        assert best_match(self.W_DEC, self.TRUE, torch.tensor([False, False, False, True])).feature.tolist() == [3, 3]
        nothing = best_match(self.W_DEC, self.TRUE, torch.zeros(4, dtype=torch.bool))
        assert nothing.cosine.tolist() == [0.0, 0.0] and nothing.feature.tolist() == [-1, -1]

    def test_numbers_are_those_of_the_whole_decoder(self):
        live = torch.tensor([False, False, True, True])
        assert int(best_match(self.W_DEC, self.TRUE, live).feature[0]) == 3  # norm zero is better than opposite
        live = torch.tensor([True, True, False, False])
        assert best_match(self.W_DEC, self.TRUE, live).feature.tolist() == [0, 1]

    def test_what_is_refused(self):
        with pytest.raises(ValueError, match=r"got \[4, 3\] and \[3\]"):
            mmcs(self.W_DEC, self.TRUE[0])
        with pytest.raises(ValueError, match=r"got \[4, 3\] and \[2, 2\]"):
            mmcs(self.W_DEC, self.TRUE[:, :2])
        with pytest.raises(ValueError, match=r"live must be \[4\] bool, got \[4\] torch.int64"):
            recovered(self.W_DEC, self.TRUE, torch.ones(4, dtype=torch.long))
        with pytest.raises(ValueError, match="threshold must be between -1 and 1, got 90"):
            recovered(self.W_DEC, self.TRUE, threshold=90)
        with pytest.raises(TypeError, match="directions must be a torch tensor, got list"):
            best_match(self.W_DEC, [[1.0]])
