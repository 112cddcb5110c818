"""The fast steps end where a plain float32 loop with autograd and torch's Adam ends after the same tokens."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.plain import PlainLoop
from sae_widget.config import TrainConfig
from sae_widget.metrics import explained_variance
from sae_widget.training import Trainer, rare
from tests.training_runs import ladder, over_pairs

HELD_OUT = 1000


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(("architecture", "pays"), [("standard", 0.0), ("standard", 0.5), ("topk", 0.0)])
def test_as_good_as_the_plain_loop(architecture: str, pays: float, seed: int, monkeypatch: Any) -> None:
    over_pairs(monkeypatch)  # and bfloat16, at a size at which neither would be taken
    monkeypatch.setattr(rare, "share_that_pays", lambda *_: pays)  # over matrices in the first case, then over pairs
    values, position, _ = ladder(9_000)
    config = TrainConfig(
        architecture=architecture, d_sae=160, k=4, steps=350, batch_size=512, seed=seed, precision="bfloat16"
    )
    fast = Trainer(values[:-HELD_OUT], position[:-HELD_OUT], config)
    list(fast.run())
    plain = PlainLoop(values[:-HELD_OUT], position[:-HELD_OUT], config.changed(precision="float32")).run()
    x, sae = values[-HELD_OUT:][position[-HELD_OUT:] != 0], fast.sae()
    found, wanted = [
        (explained_variance(x, decode(acts)), float((acts > 0).float().sum(1).mean()))
        for decode, acts in ((sae.decode, sae.encode(x)), (plain.decode, plain.encode(x)))
    ]
    assert found[0] > 0.5  # both have learned something
    assert found[0] == pytest.approx(wanted[0], abs=0.005)
    assert found[1] == pytest.approx(wanted[1], rel=0.02)
    assert fast._engine.work.bfloat16
    assert fast._engine.work.is_sparse is (architecture == "topk" or bool(pays))
