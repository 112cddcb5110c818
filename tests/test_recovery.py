"""sae_widget.recovery: every measure against a plain computation, whatever the chunks, units and dtypes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any

import pytest
import torch

from sae_widget import metrics, recovery
from sae_widget.recovery import Recovery, measure_recovery
from sae_widget.sae import SAE, StandardSAE, TopKSAE
from sae_widget.toy import ToyConfig, ToyData, toy_data

CONFIG = ToyConfig(n_features=4, d_in=6, orthogonal=True, probability=0.3, low=0.5, high=2.0)


@pytest.fixture(params=[torch.float16, torch.float64])
def default_dtype(request: pytest.FixtureRequest) -> Iterator[torch.dtype]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(request.param)
    yield request.param
    torch.set_default_dtype(before)


def found_by(directions: torch.Tensor, bias: float = 0.0, **changes: Any) -> SAE:
    """Reads and writes along these directions."""
    n, d_in = directions.shape
    b_enc = torch.full((n,), bias, dtype=torch.float32)
    b_dec = torch.zeros(d_in, dtype=torch.float32)
    return StandardSAE(directions.T.clone(), b_enc, directions.clone(), b_dec, **changes)


def random_sae(data: ToyData, d_sae: int = 9) -> SAE:
    g = torch.Generator().manual_seed(3)
    d_in = data.values.shape[1]
    shapes = (d_in, d_sae), (d_sae,), (d_sae, d_in), (d_in,)
    return TopKSAE(*(torch.randn(shape, generator=g, dtype=torch.float32) for shape in shapes), scale=3.0, k=4)


def close(a: Recovery, b: Recovery) -> bool:
    return asdict(a) == pytest.approx(asdict(b), rel=1e-4, abs=1e-6, nan_ok=True)


def test_every_measure_is_that_of_its_name() -> None:
    data = toy_data(replace(CONFIG, window=5, outlier_norm=40.0, mean_norm=1.0), 203)
    sae = random_sae(data)
    kept = data.position != 0
    acts = sae.encode(data.values)
    out = sae.decode(acts)
    live = torch.tensor([any(row[i] > 0 for row in acts[kept].tolist()) for i in range(9)])
    live_rows = [sae.W_dec[i] / sae.W_dec[i].norm() for i in range(9) if live[i]]
    best = [max(float(row @ true) for row in live_rows) for true in data.directions]
    found = measure_recovery(sae, data)
    assert (found.n_true, found.n_tokens) == (4, sum(i % 5 != 0 for i in range(203)))
    assert found.mmcs == pytest.approx(sum(best) / 4, abs=1e-6) and found.recovered == sum(c > 0.9 for c in best)
    assert found.l0 == pytest.approx(metrics.l0(acts[kept])) and found.true_l0 == pytest.approx(data.l0)
    assert found.dead == 9 - int(live.sum())
    for share, rows in ((found.explained_variance, kept), (found.explained_variance_with_first, slice(None))):
        x, y = data.values[rows].double(), out[rows].double()
        assert share == pytest.approx(1 - float((x - y).square().sum() / (x - x.mean(0)).square().sum()), rel=1e-5)
    x, y = data.values[kept].double(), out[kept].double()
    assert found.relative_reconstruction_bias == pytest.approx(float(y.square().sum() / (x * y).sum()), rel=1e-5)


@pytest.mark.parametrize(
    ("size", "scale", "length"), [(1.0, 1.0, 1.0), (5.0, 1.0, 1.0), (0.2, 7.0, 1.0), (3.0, 0.5, 4.0)]
)
def test_shrinkage_is_in_the_unit_of_the_strengths(size: float, scale: float, length: float) -> None:
    unit = toy_data(CONFIG, 1).directions
    data = toy_data(CONFIG, 300, directions=unit * length)
    # A feature reads scale * length * strength - bias along its unit direction, and writes size times as much.
    bias = 0.25 * scale * length
    sae = replace(found_by(unit, -bias), W_dec=unit * size, scale=scale)
    read = data.acts - 0.25  # in strengths, where it fires
    gaps = (data.acts - read * size)[data.acts > 0]
    found = measure_recovery(sae, data)
    assert found.shrinkage == pytest.approx(float(gaps.mean()), abs=1e-5)
    assert found.l0 == found.true_l0 and found.recovered == 4


@pytest.mark.parametrize("chunk", [1, 9, 100, 10**9])
def test_chunks_change_nothing(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    data = toy_data(replace(CONFIG, window=4, noise=0.1), 57)
    sae = random_sae(data)
    whole = measure_recovery(sae, data)
    monkeypatch.setattr(recovery, "CHUNK", chunk)
    columns = data.values.T.contiguous().T
    assert close(measure_recovery(sae, data), whole)
    assert close(measure_recovery(sae, replace(data, values=columns)), whole)
    assert data.values.is_contiguous() and not columns.is_contiguous()


def test_the_default_dtype_of_a_person_changes_nothing(default_dtype: torch.dtype) -> None:
    data = toy_data(CONFIG, 200)
    found = measure_recovery(found_by(data.directions, -0.01), data)
    assert torch.get_default_dtype() == default_dtype
    assert found.recovered == 4 and found.dead == 0 and found.l0 == found.true_l0
    assert found.shrinkage == pytest.approx(0.01, abs=1e-5) and found.mmcs == pytest.approx(1.0)


def test_all_in_double_precision_is_measured() -> None:
    data = toy_data(replace(CONFIG, noise=0.05), 100)
    sae = random_sae(data)
    double = replace(data, **{name: getattr(data, name).double() for name in ("values", "acts", "directions")})
    parts = {name: getattr(sae, name).double() for name in ("W_enc", "b_enc", "W_dec", "b_dec")}
    assert close(measure_recovery(replace(sae, **parts), double), measure_recovery(sae, data))
    with pytest.raises(TypeError, match=r"values must be torch\.float64 as the SAE is, got torch\.float32"):
        measure_recovery(replace(sae, **parts), data)


def test_an_sae_that_never_fires_has_found_nothing() -> None:
    data = toy_data(CONFIG, 50)
    found = measure_recovery(found_by(data.directions, -1e30), data)
    assert (found.mmcs, found.recovered, found.l0, found.dead) == (0.0, 0, 0.0, 4)
    assert found.true_l0 > 0 and found.explained_variance <= 0
    assert math.isnan(found.shrinkage) and math.isnan(found.relative_reconstruction_bias)
    assert str(found).startswith("0 of 4 found, MMCS 0.000, l0 0.0 (true ")


def test_what_fires_on_first_tokens_alone_is_dead() -> None:
    data = toy_data(replace(CONFIG, window=3, outlier_norm=1000.0), 60)
    first = data.values[0] / data.values[0].norm()
    sae = found_by(first[None], -100.0)
    assert int((sae.encode(data.values) > 0).sum()) == 20
    found = measure_recovery(sae, replace(data, directions=first[None], acts=data.acts[:, :1]))
    assert (found.dead, found.l0, found.mmcs, found.recovered, found.n_tokens) == (1, 0.0, 0.0, 0, 40)


def test_one_token_and_one_feature() -> None:
    values, one = torch.tensor([[0.0, 3.0]]), torch.tensor([[0.0, 1.0]])
    data = toy_data(ToyConfig(n_features=1, d_in=2), 1, directions=one)
    found = measure_recovery(found_by(one), replace(data, values=values, acts=torch.tensor([[3.0]])))
    assert (found.mmcs, found.recovered, found.l0, found.true_l0, found.shrinkage) == (1.0, 1, 1.0, 1.0, 0.0)
    assert found.relative_reconstruction_bias == 1.0 and math.isnan(found.explained_variance)  # nothing varies


@pytest.mark.parametrize("way", ["layer_norm", "center", "constant_norm_rescale"])
def test_an_sae_that_normalises_tokens_is_measured(way: str) -> None:
    data = toy_data(CONFIG, 400)
    sae = replace(random_sae(data), normalize_activations=way)
    found = measure_recovery(sae, data)
    assert found.explained_variance == pytest.approx(
        metrics.explained_variance(data.values, sae(data.values), data.position), abs=1e-5
    )


def test_shrinkage_is_in_the_unit_of_the_strengths_where_tokens_are_rescaled() -> None:
    data = toy_data(replace(CONFIG, probability=1.0), 400)  # every token has its own size
    plain = found_by(data.directions)
    rescaled = replace(plain, normalize_activations="constant_norm_rescale")
    assert measure_recovery(rescaled, data).shrinkage == pytest.approx(
        measure_recovery(plain, data).shrinkage, abs=1e-4
    )


def test_a_dead_copy_takes_nothing_from_the_live_one() -> None:
    data = toy_data(CONFIG, 200)
    twice = torch.cat([data.directions, data.directions])
    bias = torch.tensor([-100.0] * 4 + [0.0] * 4)
    found = measure_recovery(StandardSAE(twice.T.clone(), bias, twice, torch.zeros(6)), data)
    assert (found.recovered, found.dead) == (4, 4) and found.shrinkage == pytest.approx(0.0, abs=1e-5)


def test_a_feature_without_a_direction_is_left_out_of_shrinkage() -> None:
    directions = toy_data(CONFIG, 2).directions
    some = directions.clone()
    some[0] = 0.0
    data = toy_data(CONFIG, 200, directions=some)
    assert measure_recovery(found_by(directions), data).shrinkage == pytest.approx(0.0, abs=1e-5)
