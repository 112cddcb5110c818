"""Epochs that are done ahead: no more than are left, and the engine stands at each record as if they were not."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from sae_widget.config import TrainConfig
from sae_widget.training import Trainer, TrainingFault
from sae_widget.training.ahead import Ahead
from sae_widget.training.engine import Engine
from tests.training_runs import small_data


def engine(steps: int = 9, n: int = 30, **changes: Any) -> Engine:
    config = TrainConfig.original_tutorial(steps=steps, d_sae=7, **changes)
    return Trainer(*small_data(n), config)._engine


def test_no_more_epochs_are_done_than_are_left() -> None:
    ahead = Ahead(engine(steps=9))
    assert 9 < ahead.fast.most
    assert [record.step for record in ahead.records] == list(range(1, 10))
    assert [record.tokens for record in ahead.records] == [30 * step for step in range(1, 10)]
    ahead.step, ahead.tokens = 9, 270
    ahead.settle()
    assert Ahead(ahead.engine).records == []  # and none where none is left


@pytest.mark.parametrize("at", [0, 1, 4, 9])
def test_settled_at_a_record_it_is_where_single_steps_are(at: int) -> None:
    mine, other = engine(), engine()
    for each in (mine, other):
        each.work.params.b_enc[3] = -1e3  # it never fires, so that each epoch is seen in what is known of it
    ahead = Ahead(mine)
    assert mine.step == 0
    for _ in range(at):
        other.one_step()
    ahead.step, ahead.tokens = at, 30 * at
    ahead.settle()
    assert (mine.step, mine.tokens) == (other.step, other.tokens) == (at, 30 * at)
    torch.testing.assert_close(mine.work.params.vector, other.work.params.vector, atol=1e-6, rtol=1e-5)
    for found, wanted in zip(mine.moments, other.moments, strict=True):
        torch.testing.assert_close(found.vector, wanted.vector, atol=1e-6, rtol=1e-4)
    assert torch.equal(mine.since, other.since) and int(other.since[3]) == 30 * at


@pytest.mark.parametrize("bad", [1, 2, 5])
def test_the_epochs_before_one_that_is_not_finite_are_kept(bad: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rates = dict.fromkeys(range(1, 10), 1e-3) | {bad: 1e30 if bad > 1 else 1e-3}
    monkeypatch.setattr("sae_widget.training.schedule.learning_rate", lambda config, step: rates[step])
    made = engine()
    if bad == 1:
        made.work.params.W_dec[0, 0] = torch.inf
        made.work.params.b_enc[0] = 1e3  # so that it fires
        with pytest.raises(TrainingFault, match=r"at step 1 .*Rolled back to step 0"):
            Ahead(made)
        return
    ahead = Ahead(made)  # the step of rate 1e30 can be applied; what it leaves cannot
    assert isinstance(ahead.fault, TrainingFault) and ahead.fault.step == bad + 1
    assert [record.step for record in ahead.records] == list(range(1, bad + 1))
    assert all(record.loss < 1e6 for record in ahead.records)


@pytest.mark.parametrize(
    ("changes", "fits"),
    [({}, True), ({"batch_size": 10}, False), ({"skip_first": True}, False), ({"validation_share": 0.3}, False)],
)
def test_which_runs_go_ahead(changes: dict[str, Any], fits: bool) -> None:
    assert Ahead.fits(engine(**changes)) is fits
