"""Faults at every place of the worker, and a person who uses the same process (F19, F25, F26, F35, F40, T15)."""

from __future__ import annotations

import signal
import threading
import time
from importlib import import_module

import numpy as np
import pytest
import torch
import torch._dynamo  # torch.optim imports it at its first use, and that changes warning filters

from sae_widget.autosave import load_run, saved_runs
from sae_widget.runner import loop
from sae_widget.training import Trainer
from tests.running import ENDLESS, QUICK, begin, train, until, weights

HOOKS = [
    "runner.desk.get_activations",
    "runner.desk.TextPieces",
    "runner.desk.read_corpus",
    "runner.desk.concatenate",
    "runner.desk.check_memory",
    "runner.desk.Trainer",
    "runner.desk.feature_stats",
    "runner.desk.prompt_features",
    "runner.desk.top_contexts",
    "runner.desk.neighbours",
    "runner.desk.Desk.read",
    "runner.desk.Desk.start_training",
    "runner.desk.Desk.show",
    "runner.job.History",
    "runner.job.autosave",
    "runner.job.TrainingLoop._progress",
    "runner.opening.saved_runs",
    "runner.work.load_run",
    "training.Trainer.run",
    "training.Trainer.sae",
    "training.History.append",
    "training.base.Adam.__call__",
    "training.engine.Engine.advance",
    "training.engine.Engine.one_step",
]


def owner_of(hook):
    """The module or class that holds a hook, and its name there."""
    path, _, name = f"sae_widget.{hook}".rpartition(".")
    try:
        return import_module(path), name
    except ModuleNotFoundError:
        module, _, holder = path.rpartition(".")
        return getattr(import_module(module), holder), name


@pytest.mark.parametrize("hook", HOOKS)
def test_a_fault_anywhere_is_a_sentence_and_everything_works_again(start, hook, monkeypatch, capfd):
    state, runner = start(settings=QUICK.changed(steps=20), corpus_tokens=400)
    train(runner)
    raised, said = [], []
    state.observe(lambda change: said.append(change["new"]), names=["status"])

    def broken(*_arguments, **_named):
        raised.append(hook)
        raise RuntimeError("the disk is on fire")

    with monkeypatch.context() as patch:
        patch.setattr(*owner_of(hook), broken)
        state.text = "something else"
        assert runner.wait(60)
        state.corpus_tokens = 300  # so that the corpus is read again
        train(runner)
        state.selected = 3
        assert runner.wait(60)
        runner.command("restore")
        assert runner.wait(60)
        assert raised
        assert any(status.trouble and "RuntimeError: the disk is on fire." in status.message for status in said)
        assert runner._thread.is_alive()
        assert torch.isfinite(weights(state.features.sae)).all()
    state.text = "once more"
    train(runner)
    assert state.status.message.startswith("Trained 20 steps.")
    assert len(state.history) == 20
    assert state.activations.texts == ("once more",)
    printed = capfd.readouterr()
    assert "Traceback" not in printed.out + printed.err


def test_a_loss_that_jumps_is_told_and_the_training_goes_on(start):
    state, runner = start(settings=ENDLESS)
    begin(state, runner, step=50)
    state.settings = state.settings.changed(learning_rate=10.0)
    until(lambda: state.status.trouble and "The loss jumped to" in state.status.message)
    told = state.status
    assert "times what it was. It trains on; if it stays high, lower the learning rate." in told.message
    assert told.phase == "training"
    until(lambda: state.status.step > told.step)


def test_when_half_the_batch_is_too_much_as_well_the_last_weights_are_kept(start, monkeypatch):
    state, runner = start(settings=ENDLESS)
    begin(state, runner)

    def full(_trainer):
        raise MemoryError("no memory")
        yield

    trainer = runner.desk.trainer
    monkeypatch.setattr(Trainer, "run", full)
    one_step = trainer._engine.one_step

    def last_step():
        trainer._engine.one_step = one_step
        raise MemoryError("no memory")

    trainer._engine.one_step = last_step
    until(lambda: state.status.phase == "failed")
    assert runner.wait(30)
    assert trainer.step > 5
    assert weights(state.features.sae).equal(weights(trainer.sae()))
    assert load_run(saved_runs()[0].path)[0].metadata["training"]["steps"] == trainer.step


def test_a_second_interrupt_is_raised_and_nothing_half_is_left(start, monkeypatch):
    state, runner = start(settings=ENDLESS)
    begin(state, runner)
    sleep, left = time.sleep, [True, True]

    def interrupted(seconds):
        if threading.current_thread() is threading.main_thread() and left:
            left.pop()
            raise KeyboardInterrupt
        sleep(seconds)

    monkeypatch.setattr(loop.time, "sleep", interrupted)
    with pytest.raises(KeyboardInterrupt):
        runner.wait()
    assert not left
    assert runner.wait(30)
    assert state.status.message.startswith(f"Stopped at step {runner.desk.trainer.step:,}.")
    assert load_run(saved_runs()[0].path)[0].metadata["training"]["steps"] == runner.desk.trainer.step


def test_an_interrupt_while_the_waiting_looks_stops_the_training_too(start, monkeypatch):
    state, runner = start(settings=ENDLESS)
    begin(state, runner)
    left = [True]

    def looking(_loop):
        if threading.current_thread() is threading.main_thread() and left:
            left.pop()
            signal.raise_signal(signal.SIGINT)
        return looked.fget(runner)

    looked = loop.Loop.idle
    monkeypatch.setattr(loop.Loop, "idle", property(looking))
    assert runner.wait(30)
    assert not left
    assert state.status.message.startswith(f"Stopped at step {runner.desk.trainer.step:,}.")


def test_main_thread_worker_and_two_at_once_give_the_same(start):
    """T15"""
    state, runner = start()
    train(runner)
    corpus = runner.desk.corpus
    here = Trainer(corpus.values, corpus.position, QUICK)
    losses = [record.loss for record in here.run()]
    pair = [start(), start()]
    for _, other in pair:
        other.command("train")
    for other_state, other in pair:
        assert other.wait(60)
        assert weights(other_state.features.sae).equal(weights(here.sae()))
        assert [record.loss for record in other_state.history] == losses
    assert weights(state.features.sae).equal(weights(here.sae()))
    assert [record.loss for record in state.history] == losses


def test_what_the_person_does_meanwhile_changes_nothing_and_is_not_changed(start):
    """F35: seeds, dtype, grad mode and the shared model belong to the person's cells."""
    recipe = QUICK.changed(steps=600)
    state, runner = start(settings=recipe)
    train(runner)
    alone = weights(state.features.sae)
    legacy = np.random.get_state()[1].tolist()
    with torch.random.fork_rng():
        torch.manual_seed(5)
        drawn = torch.rand(4)
        state, runner = start(settings=recipe)
        runner.command("train")
        ids = torch.arange(10)[None]
        meddled = 0
        try:
            while runner.desk.trainer is None or runner.desk.trainer.step < recipe.steps:
                assert state.status.phase != "failed", state.status.message
                torch.manual_seed(5)
                torch.set_default_dtype(torch.float64)
                state.language_model.network(ids)
                assert torch.rand(4, dtype=torch.float32).equal(drawn)
                assert torch.is_grad_enabled()
                assert torch.get_default_dtype() == torch.float64
                meddled += 1
                state.selected = meddled % 48
        finally:
            torch.set_default_dtype(torch.float32)
    assert runner.wait(60)
    assert meddled > 3
    assert weights(state.features.sae).equal(alone)
    assert state.features.stats.frequency.dtype == np.float32
    assert np.random.get_state()[1].tolist() == legacy
