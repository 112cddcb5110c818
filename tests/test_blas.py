"""The products of a small step: numpy's are torch's, in one thread, and when they are taken."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from sae_widget.training import blas
from sae_widget.training.base import Flat
from sae_widget.training.blas import ALONE, LARGEST, Buffers, Products, by_numpy, by_torch, numpy_is_faster
from tests.training_runs import generator

Made = tuple[Products, Buffers, Flat]


def made(way: Any, n: int, d_in: int, d_sae: int) -> Made:
    narrow, wide = torch.randn(2, n, d_in, generator=generator(1)), torch.randn(3, n, d_sae, generator=generator(2))
    of, params, grads = Buffers(narrow[0], wide[0], wide[1], narrow[1], wide[2]), Flat(d_in, d_sae), Flat(d_in, d_sae)
    params.vector.normal_(generator=generator(3))
    products = way(of, params, grads)
    assert products is not None
    return products, of, grads


@pytest.mark.parametrize("other", [False, True], ids=["the usual u", "another u"])
@pytest.mark.parametrize(
    ("n", "d_in", "d_sae"),
    [(5, 3, 7), (1, 1, 1), (256, 32, 64), (90, 64, 100), (0, 3, 7)],
    ids=["odd", "one", "in parts", "in uneven parts", "no rows"],
)
def test_they_are_equal(n: int, d_in: int, d_sae: int, other: bool) -> None:
    found = []
    for way in (by_torch, by_numpy):
        products, of, grads = made(way, n, d_in, d_sae)
        u = torch.randn(n, d_in, generator=generator(4)) if other else of.u
        products.encode(u)
        products.decode()
        products.to_decoder()
        products.back()
        products.to_encoder(u)
        found.append((of.pre, of.error, grads.W_dec, of.grad_pre, grads.W_enc))
    for by_hand, through_numpy in zip(*found, strict=True):
        torch.testing.assert_close(through_numpy, by_hand, rtol=1e-4, atol=1e-3)


def test_what_is_encoded_may_lie_apart() -> None:
    products, of, grads = made(by_numpy, 256, 32, 64)
    apart = torch.randn(256, 64, generator=generator(5))[:, ::2]
    products.encode(apart)
    torch.testing.assert_close(of.pre, apart @ made_params().W_enc.t() + made_params().b_enc, rtol=1e-4, atol=1e-4)
    products.to_encoder(apart)
    torch.testing.assert_close(grads.W_enc, of.grad_pre.t() @ apart, rtol=1e-4, atol=1e-3)


def made_params() -> Flat:
    params = Flat(32, 64)
    params.vector.normal_(generator=generator(3))
    return params


def test_no_product_is_large_enough_for_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes, product = [], np.matmul

    def noting(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> np.ndarray:
        sizes.append(a.shape[-2] * a.shape[-1] * b.shape[-1])
        assert np.may_share_memory(out, out.base)
        return product(a, b, out=out)

    monkeypatch.setattr(np, "matmul", noting)
    products, of, _ = made(by_numpy, 512, 48, 96)
    blas._all(products, of.u)
    assert len(sizes) == 5 and max(sizes) <= ALONE < 512 * 48 * 96


def test_what_cannot_be_cut_is_left_to_torch() -> None:
    prime = 8191
    of = Buffers(*(torch.empty(prime, width) for width in (32, 64, 64, 32, 64)))
    assert by_numpy(of, Flat(32, 64), Flat(32, 64)) is None
    assert not numpy_is_faster(prime, 32, 64)


@pytest.mark.parametrize(("ratio", "wanted"), [(1.4, True), (1.2, False), (0.8, False)])
def test_numpy_is_taken_where_it_is_clearly_faster(ratio: float, wanted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the choice hung on noise, a run and its repetition would not round alike: one seed, two SAEs."""
    threads, before = [], torch.get_num_threads()

    def measured(*ways: partial) -> list[float]:
        threads.append(torch.get_num_threads())
        for way in ways:
            way()  # what is measured can be done
        return [ratio, 1.0]

    monkeypatch.setattr(blas, "seconds_of", measured)
    numpy_is_faster.cache_clear()
    try:
        assert numpy_is_faster(64, 8, 16) is wanted is numpy_is_faster(64, 8, 16)
        assert threads == [1] and torch.get_num_threads() == before
        assert not numpy_is_faster(LARGEST // 64 + 1, 8, 8) and threads == [1]  # not even measured
    finally:
        numpy_is_faster.cache_clear()
