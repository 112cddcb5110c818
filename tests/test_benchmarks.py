"""The parts of the benchmarks that could be wrong without anybody seeing it."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
import torch._dynamo  # torch.optim imports it at its first use, and that changes warning filters

from benchmarks.contestants import Task, ours, shuffled, slices
from benchmarks.plain import PlainLoop
from benchmarks.run import rows_of, table
from benchmarks.scores import Score, at_l0, score
from benchmarks.timing import Speed, ratio
from sae_widget.config import TrainConfig


@pytest.mark.parametrize("kind", ["standard", "topk"])
def test_plain_loop_is_our_recipe(kind: str) -> None:
    """In float32 both take the same steps, dead features and all, so what differs at full size is the fast path."""
    g = torch.Generator().manual_seed(1)
    values = torch.randn(240, 7, generator=g).relu() @ torch.randn(7, 12, generator=g)
    position = torch.arange(240) % 16
    config = TrainConfig(architecture=kind, d_sae=40, k=3, batch_size=50, steps=15, precision="float32")
    task = Task(kind, 12, 40, 50, 3 if kind == "topk" else 1.0, steps=15)
    contestant = ours(task, values, position, precision="float32")
    records = [contestant.step() for _ in range(15)]
    mine, plain = contestant.trained(), PlainLoop(values, position, config).run()
    assert kind == "standard" or max(record.dead for record in records) > 0
    torch.testing.assert_close(mine.directions, plain.directions, atol=1e-4, rtol=0)
    torch.testing.assert_close(mine.encode(values), plain.encode(values), atol=1e-3, rtol=0)
    assert score(mine, values, None).variance == pytest.approx(score(plain, values, None).variance, abs=1e-4)


def test_penalty_is_searched_until_the_l0_fits() -> None:
    tried = []

    def train(penalty: float) -> Score:
        tried.append(penalty)
        return Score(math.log(10 / penalty), 10 / penalty, 0.5)  # variance is linear in log L0

    found = at_l0(train, 0.3, 4.0)
    assert found == pytest.approx((math.log(4), 4.0, 0.5))
    assert tried == pytest.approx([0.3, 0.6, 1.2, 2.4, 4.8, 2.5])


def test_an_l0_that_no_penalty_gives_is_not_made_up() -> None:
    assert at_l0(lambda penalty: Score(0.9, 30.0 + penalty, 0.5), 1.0, 5.0) is None


def test_ratio_is_taken_inside_a_round() -> None:
    slow = [Speed(4.0, 1.0), Speed(40.0, 1.0), Speed(6.0, 1.0)]  # the machine was busy in the second round
    fast = [Speed(2.0, 1.0), Speed(10.0, 1.0), Speed(2.0, 1.0)]
    assert ratio(slow, fast) == 3.0


def test_batches_of_the_peers_are_all_of_the_rows() -> None:
    rows = torch.arange(24.0).view(12, 2)
    batches = slices(rows, 5)
    assert [next(batches)[0, 0].item() for _ in range(3)] == [0.0, 10.0, 0.0]
    epoch = shuffled(rows, 4, seed=3)
    seen = torch.cat([next(epoch) for _ in range(3)])
    assert sorted(seen[:, 0].tolist()) == rows[:, 0].tolist() != seen[:, 0].tolist()


def test_missing_peers_are_told_in_the_table() -> None:
    rows = rows_of("throughput", Path("nowhere/bin/python"))
    assert rows is not None and "there is no nowhere/bin/python" in rows[0][1]
    lines = table(rows).splitlines()
    assert len({len(line) for line in lines}) == 1 and lines[2].startswith("| throughput")
