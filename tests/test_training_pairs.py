"""Pairs of a token and a feature against plain loops: none, one row, empty rows and features, both dtypes."""

from __future__ import annotations

import pytest
import torch

from sae_widget.training import largest, pairs
from sae_widget.training.pairs import Pairs, by_feature, pairs_where, sampled, samples, token_of
from tests.training_runs import generator

SHAPES = [(1, 1), (1, 5), (5, 1), (7, 13), (40, 3)]


def chosen(n: int, d_sae: int, share: float) -> torch.Tensor:
    return torch.rand(n, d_sae, generator=generator(n + d_sae)) < share


def by_a_loop(true: torch.Tensor, values: torch.Tensor) -> list[tuple[int, int, float]]:
    return [
        (token, feature, float(values[token, feature]))
        for token in range(len(true))
        for feature in range(true.shape[1])
        if true[token, feature]
    ]


@pytest.mark.parametrize("chunk", [1, 20, 2**20])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
@pytest.mark.parametrize(("n", "d_sae"), SHAPES)
def test_pairs_are_those_of_a_loop(
    n: int, d_sae: int, share: float, dtype: torch.dtype, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(largest, "CHUNK", chunk)
    true, values = chosen(n, d_sae, share), torch.randn(n, d_sae, generator=generator()).to(dtype)
    found, wanted = pairs_where(true, values), by_a_loop(true, values)
    token = token_of(found)
    assert list(zip(token.tolist(), found.feature.tolist(), found.value.tolist(), strict=True)) == wanted
    assert found.starts.tolist() == [sum(t < row for t, *_ in wanted) for row in range(n + 1)]
    assert found.value.dtype == torch.float32


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
@pytest.mark.parametrize(("n", "d_sae"), SHAPES)
def test_sorted_by_feature_they_are_the_same_pairs(n: int, d_sae: int, share: float) -> None:
    true, values = chosen(n, d_sae, share), torch.randn(n, d_sae, generator=generator())
    plain, wanted = pairs_where(true, values), sorted(by_a_loop(true, values), key=lambda pair: (pair[1], pair[0]))
    found = by_feature(plain, token_of(plain), d_sae)
    columns = found.token, plain.feature[found.order], plain.value[found.order]
    assert list(zip(*(column.tolist() for column in columns), strict=True)) == wanted
    assert found.starts.tolist() == [sum(f < feature for _, f, _ in wanted) for feature in range(d_sae + 1)]


@pytest.mark.parametrize("d_sae", [2**15, 2**15 + 1, 2**16 + 1])
def test_the_last_features_of_a_wide_dictionary_come_last(d_sae: int) -> None:
    feature = torch.tensor([d_sae - 1, 0, d_sae - 2, 2**15 - 1])
    plain = Pairs(torch.tensor([0, 1, 4]), feature, torch.ones(4))
    found = by_feature(plain, token_of(plain), d_sae)
    assert feature[found.order].tolist() == sorted(feature.tolist())
    assert found.starts[-1] == 4 and found.starts[d_sae - 2] == int((feature < d_sae - 2).sum())


@pytest.mark.parametrize("gathered", [1, 3, 4096])
@pytest.mark.parametrize("way", ["as it is here", "gathered"])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
@pytest.mark.parametrize(("n", "d_sae"), SHAPES)
def test_sampled_products_are_those_of_the_whole_matrix(
    n: int, d_sae: int, share: float, way: str, gathered: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pairs, "GATHERED", gathered)
    if way == "gathered":
        monkeypatch.setattr(pairs, "samples", lambda: False)
    left, right = torch.randn(n, 4, generator=generator(1)), torch.randn(d_sae, 4, generator=generator(2))
    true = chosen(n, d_sae, share)
    plain = pairs_where(true, torch.zeros(n, d_sae))
    torch.testing.assert_close(sampled(plain, left, right), (left @ right.t())[true])
    assert not plain.value.any()  # what is left of them is not written over


@pytest.mark.parametrize("broken", ["raises", "is wrong"])
def test_a_build_without_the_product_or_with_a_wrong_one_is_noticed(
    broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other(*_: object) -> torch.Tensor:
        if broken == "raises":
            raise RuntimeError("sampled_addmm: not there")
        return torch.tensor([23.0, 14.0, 121.0])

    monkeypatch.setattr(pairs, "_sampled", other)
    samples.cache_clear()
    try:
        assert not samples()
    finally:
        samples.cache_clear()
