"""sae_widget.sae.batchtopk: the threshold, what is no k, and what a file keeps of both."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from sae_widget.checkpoint import load_sae, save_sae
from sae_widget.sae.base import REGISTRY, trainable
from sae_widget.sae.batchtopk import BatchTopKSAE
from sae_widget.sae.topk import TopKSAE


def an_sae(dtype: torch.dtype = torch.float32, **changes: Any) -> BatchTopKSAE:
    g = torch.Generator().manual_seed(1)
    shapes = (4, 7), (7,), (7, 4), (4,)
    return BatchTopKSAE(*(torch.randn(shape, generator=g).to(dtype) for shape in shapes), **{"k": 2} | changes)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_what_exceeds_the_threshold_stays_as_it_is(dtype: torch.dtype) -> None:
    hidden_pre = torch.tensor([[-3.0, -0.5, 0.0, 0.25, 0.5, 0.5078125, 9.0]], dtype=dtype)
    acts = an_sae(threshold=0.5).activate(hidden_pre)
    assert acts.tolist() == [[0.0, 0.0, 0.0, 0.0, 0.0, 0.5078125, 9.0]] and acts.dtype == dtype
    assert an_sae().activate(hidden_pre).tolist() == [[0.0, 0.0, 0.0, 0.25, 0.5, 0.5078125, 9.0]]
    assert hidden_pre.tolist() == [[-3.0, -0.5, 0.0, 0.25, 0.5, 0.5078125, 9.0]]


def test_the_smallest_that_training_kept_does_not_fire_and_the_next_number_does() -> None:
    kept = torch.tensor([0.1, 1e-30, 12345.678])
    above = torch.nextafter(kept, torch.tensor(math.inf))
    for i in range(3):
        sae = an_sae(threshold=float(kept[i]))
        assert sae.activate(torch.stack([kept[i], above[i], -above[i]])[None]).tolist() == [[0.0, float(above[i]), 0.0]]


def test_after_training_a_token_may_fire_all_its_features_or_none() -> None:
    sae = an_sae(k=1, threshold=1.0)
    hidden_pre = torch.stack([torch.full((7,), 2.0), torch.zeros(7), torch.arange(7.0)])
    assert (sae.activate(hidden_pre) > 0).sum(1).tolist() == [7, 0, 5]
    for rows in (hidden_pre[:0], hidden_pre[:1], hidden_pre.T.contiguous().T):  # the batch decides nothing
        assert torch.equal(sae.activate(rows), sae.activate(hidden_pre)[: len(rows)])


@pytest.mark.parametrize("apply_b_dec_to_input", [True, False])
def test_encode_and_decode_are_the_formulas(apply_b_dec_to_input: bool) -> None:
    sae = an_sae(torch.float64, threshold=0.75, scale=1.5, apply_b_dec_to_input=apply_b_dec_to_input)
    x = torch.randn(4, 20, generator=torch.Generator().manual_seed(2), dtype=torch.float64).T
    acts = torch.zeros(20, 7, dtype=torch.float64)
    for pos in range(20):
        for i in range(7):
            read = [1.5 * x[pos, j] - (sae.b_dec[j] if apply_b_dec_to_input else 0) for j in range(4)]
            pre = float(sum(read[j] * sae.W_enc[j, i] for j in range(4)) + sae.b_enc[i])
            acts[pos, i] = pre if pre > 0.75 else 0.0
    assert 0 < int((acts > 0).sum()) < 140
    assert torch.allclose(sae.encode(x), acts) and torch.allclose(sae.encode_one(x, 6), acts[:, 6])
    assert torch.allclose(sae(x), (acts @ sae.W_dec + sae.b_dec) / 1.5)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"k": 0}, r"k must be between 1 and d_sae \(7\), got 0"),
        ({"k": 8}, r"k must be between 1 and d_sae \(7\), got 8"),
        ({"k": 10**30}, "k must be between 1 and d_sae"),
        ({"threshold": -1e-30}, "threshold must be at least 0, got -1e-30"),
        ({"threshold": math.nan}, "threshold must be at least 0, got nan"),
        ({"threshold": -math.inf}, "threshold must be at least 0, got -inf"),
        ({"b_dec": torch.zeros(7)}, r"b_dec must be \[4\], got \[7\]"),
        ({"normalize_activations": "no way"}, "normalize_activations must be one of"),
    ],
)
def test_what_is_out_of_range_is_refused(changes: dict[str, Any], words: str) -> None:
    g = an_sae()
    parts: dict[str, Any] = {name: getattr(g, name) for name in ("W_enc", "b_enc", "W_dec", "b_dec")}
    with pytest.raises(ValueError, match=words):
        BatchTopKSAE(**parts | {"k": 2} | changes)


@pytest.mark.parametrize(("k", "threshold"), [(1, 0.0), (7, 0.1), (2, 1e-30), (3, 12345.678)])
def test_a_file_keeps_k_and_the_threshold(k: int, threshold: float, tmp_path: Path) -> None:
    sae = an_sae(k=k, threshold=float(torch.tensor(threshold)))
    save_sae(sae, tmp_path / "sae")
    back = load_sae(tmp_path / "sae")
    assert isinstance(back, BatchTopKSAE) and (back.k, back.threshold) == (k, sae.threshold)
    x = torch.randn(9, 4, generator=torch.Generator().manual_seed(3))
    assert torch.equal(back.encode(x), sae.encode(x))


def test_it_is_trained_though_it_has_no_rule_for_one_token() -> None:
    assert trainable("batchtopk") is REGISTRY["batchtopk"] is BatchTopKSAE
    assert repr(an_sae(threshold=0.5)) == "BatchTopKSAE(d_in=4, d_sae=7, k=2, threshold=0.5)"
    assert an_sae(k=3).config_fields() == {"k": 3, "rescale_acts_by_decoder_norm": False}
    with pytest.raises(ValueError, match="k must be between 1 and d_sae"):
        an_sae(k=16)  # what it is unless it is given


@pytest.mark.parametrize("kind", [BatchTopKSAE, TopKSAE])
@pytest.mark.parametrize("k", [2.5, True, math.nan, "3", None])
def test_a_k_that_is_no_whole_number_is_refused(kind: type, k: object) -> None:
    with pytest.raises(TypeError, match="k must be a whole number, got "):
        kind(torch.ones(4, 7), torch.zeros(7), torch.ones(7, 4), torch.zeros(4), k=k)


def test_what_is_infinitely_far_below_does_not_fire_and_what_is_no_number_is_kept() -> None:
    sae = BatchTopKSAE(torch.ones(4, 3), torch.zeros(3), torch.ones(3, 4), torch.zeros(4), k=1)
    found = sae.activate(torch.tensor([[-torch.inf, torch.nan, torch.inf]]))
    assert found[0, 0] == 0 and found[0, 1].isnan() and found[0, 2] == torch.inf
