"""sae_widget.sae.matryoshka: a BatchTopK SAE of another name, whose first features must do alone."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from sae_widget.checkpoint import load_sae, save_sae
from sae_widget.config import TrainConfig
from sae_widget.sae.base import REGISTRY, SAE, trainable
from sae_widget.sae.batchtopk import BatchTopKSAE
from sae_widget.sae.matryoshka import MatryoshkaBatchTopKSAE
from sae_widget.training import Trainer
from sae_widget.training.workspaces import workspace
from tests.training_runs import generator, ladder


def parts(dtype: torch.dtype = torch.float32, d_sae: int = 7) -> tuple[torch.Tensor, ...]:
    g = generator(1)
    shapes = (4, d_sae), (d_sae,), (d_sae, 4), (4,)
    return tuple(torch.randn(shape, generator=g).to(dtype) for shape in shapes)


def an_sae(**changes: Any) -> MatryoshkaBatchTopKSAE:
    return MatryoshkaBatchTopKSAE(*parts(), **{"k": 2} | changes)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_after_training_it_fires_as_a_batchtopk_does(dtype: torch.dtype) -> None:
    hidden_pre = torch.tensor([[-3.0, 0.0, 0.25, 0.5, 0.5078125, 9.0, math.nan]], dtype=dtype)
    acts = MatryoshkaBatchTopKSAE(*parts(dtype), k=2, threshold=0.5).activate(hidden_pre)
    assert acts[0, :6].tolist() == [0.0, 0.0, 0.0, 0.0, 0.5078125, 9.0] and acts[0, 6].isnan() and acts.dtype == dtype


@pytest.mark.parametrize("n", [0, 1, 30])
@pytest.mark.parametrize("d_sae", [1, 7])
def test_its_features_are_used_all_at_once(n: int, d_sae: int) -> None:
    """The nested dictionaries are a matter of training: what is read and written is one SAE."""
    x, given = torch.randn(n, 4, generator=generator(2)), {"k": 1, "threshold": 0.25, "scale": 1.5}
    sae, plain = MatryoshkaBatchTopKSAE(*parts(d_sae=d_sae), **given), BatchTopKSAE(*parts(d_sae=d_sae), **given)
    assert torch.equal(sae.encode(x), plain.encode(x)) and torch.equal(sae(x), plain(x))
    assert torch.equal(sae.encode_one(x, d_sae - 1), plain.encode_one(x, d_sae - 1))
    assert sae(x).shape == (n, 4)


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"k": 0}, ValueError, r"k must be between 1 and d_sae \(7\), got 0"),
        ({"k": 8}, ValueError, r"k must be between 1 and d_sae \(7\), got 8"),
        ({"k": 2.0}, TypeError, r"k must be a whole number, got 2\.0"),
        ({"threshold": -1e-30}, ValueError, "threshold must be at least 0, got -1e-30"),
        ({"threshold": math.nan}, ValueError, "threshold must be at least 0, got nan"),
    ],
)
def test_what_a_batchtopk_refuses_is_refused(changes: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        an_sae(**changes)


def test_it_has_a_name_of_its_own_beside_the_kind_that_it_is_made_of() -> None:
    assert trainable("matryoshka_batchtopk") is REGISTRY["matryoshka_batchtopk"] is MatryoshkaBatchTopKSAE
    assert trainable("batchtopk") is REGISTRY["batchtopk"] is BatchTopKSAE
    assert MatryoshkaBatchTopKSAE.words != BatchTopKSAE.words and MatryoshkaBatchTopKSAE.about != BatchTopKSAE.about
    assert MatryoshkaBatchTopKSAE.elementwise and MatryoshkaBatchTopKSAE.revives_dead
    assert repr(an_sae(threshold=0.5)) == "MatryoshkaBatchTopKSAE(d_in=4, d_sae=7, k=2, threshold=0.5)"
    assert an_sae().config_fields() == {"k": 2, "rescale_acts_by_decoder_norm": False}


@pytest.mark.parametrize(("k", "threshold"), [(1, 0.0), (7, 0.1), (3, 12345.678)])
def test_a_file_keeps_which_of_the_two_it_was(k: int, threshold: float, tmp_path: Path) -> None:
    threshold = float(torch.tensor(threshold))
    for kind in (MatryoshkaBatchTopKSAE, BatchTopKSAE):
        folder = tmp_path / kind.architecture
        save_sae(kind(*parts(), k=k, threshold=threshold), folder)
        back = load_sae(folder)
        assert type(back) is kind and (back.k, back.threshold) == (k, threshold)
        config = json.loads((folder / "cfg.json").read_text(encoding="utf-8"))
        assert config["architecture"] == "jumprelu"  # what it is to SAELens
        assert config["metadata"]["training_architecture"] == kind.architecture


@pytest.mark.parametrize(("levels", "loss"), [(1, 0.0), (2, 10.0), (3, 8.0), (12, 8.0)])
def test_the_loss_is_the_mean_over_the_nested_dictionaries_worked_out_by_hand(levels: int, loss: float) -> None:
    """One token (2, 2, 0): the first feature alone leaves (0, 2, 0), the first two (0, 2, -4), all four nothing.

    That is 4, 20 and 0; one of four features cannot be halved further.
    """
    config = TrainConfig(
        architecture="matryoshka_batchtopk", d_sae=4, k=4, matryoshka_levels=levels, precision="float32"
    )
    work = workspace(3, 1, config, True)
    work.fresh()
    work.params.vector.zero_()
    work.params.W_enc.copy_(torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]))
    # each fires 2, and they write (2, 0, 0), (0, 0, 4), (0, 2, 0) and (0, 0, -4)
    work.params.W_dec.copy_(torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 2.0], [0.0, 1.0, 0.0], [0.0, 0.0, -2.0]]))
    x = torch.tensor([[2.0, 2.0, 0.0]])
    work.forward(x)
    assert work.backward(x, 0.0, None).total == pytest.approx(loss, abs=1e-6)


def test_its_first_features_reconstruct_more_alone_than_those_of_a_batchtopk() -> None:
    values, position, _ = ladder(1_000)
    x = values[position != 0]

    def explained(sae: SAE, width: int) -> float:
        acts = sae.encode(x)
        acts[:, width:] = 0.0
        return 1 - float((sae.decode(acts) - x).square().sum() / (x - x.mean(0)).square().sum())

    alone: dict[str, list[float]] = {}
    for architecture in ("batchtopk", "matryoshka_batchtopk"):
        config = TrainConfig(
            architecture=architecture, d_sae=48, k=3, steps=60, batch_size=128, learning_rate=2e-3, matryoshka_levels=3
        )
        trainer = Trainer(values, position, config)
        list(trainer.run())
        alone[architecture] = [explained(trainer.sae(), width) for width in (12, 24, 48)]
    nested, plain = alone["matryoshka_batchtopk"], alone["batchtopk"]
    assert nested[0] > 1.2 * plain[0] > 0 and nested[1] > 1.1 * plain[1] and nested[2] > 0.9 * plain[2]
    assert nested[0] < nested[1] < nested[2]
