"""Commands, inputs, files, displays and faults in any order (T4, F16, F23): what must be true whatever happened.

Briefly in ``make test``, 200 runs of 50 steps in ``make soak``.
"""

from __future__ import annotations

import contextlib
import math
import re
import threading
import time
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from sae_widget import SuperpositionExplorer, load_sae
from sae_widget.autosave import autosave_folder
from sae_widget.state import COMMANDS, PHASES
from sae_widget.training import TrainingFault

GIVEN = {
    "layer": 1, "corpus": "text", "architecture": "topk", "d_sae": 24, "k": 3, "steps": 100_000, "batch_size": 4,
}  # fmt: skip
PLACES = ("read", "read_training_data", "start_training", "show_training", "features", "card")
BUTTONS = [name for name in COMMANDS if name not in ("load_gpt2", "retry")]  # those two load another model


class AnyOrder(RuleBasedStateMachine):
    """One explorer after the other, and everything that can be done to it."""

    model = ""
    folder = Path()

    def __init__(self):
        super().__init__()
        self.saved = self.broken = False
        self.explorer = self.make()

    def make(self):
        """Run the cell once more: the explorer of this name that was there is closed."""
        return SuperpositionExplorer("a short text", model=self.model, name="any order", **GIVEN)

    @property
    def desk(self):
        return self.explorer._runner.desk

    @rule(command=st.sampled_from(BUTTONS))
    def press(self, command):
        self.explorer.state.command = {"do": command, "n": self.explorer.state.command.get("n", 0) + 1}

    @rule(rate=st.sampled_from([1e-4, 1e-3, 1e-2]), k=st.integers(1, 24), steps=st.sampled_from([5, 100_000]))
    def change_live_settings(self, rate, k, steps):
        self.explorer.set(learning_rate=rate, k=k, steps=steps)

    @rule(d_sae=st.sampled_from([24, 30]), seed=st.integers(0, 3))
    def change_what_is_fixed_during_a_run(self, d_sae, seed):
        self.explorer.set(d_sae=d_sae, seed=seed)

    @rule(text=st.sampled_from(["another text", "", "third"]), layer=st.integers(-1, 3))
    def change_text_and_layer(self, text, layer):
        self.explorer.read(text)
        self.explorer.state.layer = layer

    @rule(feature=st.one_of(st.none(), st.integers(0, 40)))
    def select(self, feature):
        self.explorer.state.selected = feature

    @rule(feature=st.integers(-3, -1))
    def select_what_cannot_be(self, feature):
        with pytest.raises(ValueError, match="selected_feature must be between 0 and"):
            self.explorer.selected_feature = feature

    @rule(seconds=st.sampled_from([0.0, 0.01, 0.05]))
    def let_it_work(self, seconds):
        time.sleep(seconds)

    @rule()
    def save(self):
        if self.explorer.features is None:
            with pytest.raises(ValueError, match="train one first"):
                self.explorer.save(self.folder)
            return
        self.explorer.save(self.folder)
        self.saved = True
        assert torch.isfinite(load_sae(self.folder).W_dec).all()

    @rule()
    def open_what_was_saved(self):
        if self.saved:  # no precondition: whether there was an SAE to save is a matter of time
            with contextlib.suppress(RuntimeError):  # while it trains that is refused
                self.explorer.show(self.folder)

    @rule()
    def load_it_into_another_explorer(self):
        if self.saved:
            self.explorer.close()
            self.explorer = SuperpositionExplorer.load(self.folder)

    @rule()
    def show_it_once_more(self):
        shown = self.explorer._repr_mimebundle_()
        assert shown["application/vnd.jupyter.widget-view+json"]["model_id"] == self.explorer.model_id

    @rule(by_hand=st.booleans())
    def close_and_run_the_cell_again(self, by_hand):
        old = self.explorer
        if by_hand:
            old.close()
            with pytest.raises(RuntimeError, match="this explorer is closed"):
                old.train()
        self.explorer = self.make()
        if not by_hand:
            old.close()  # an explorer that was loaded bears no name
        assert not old._runner._thread.is_alive()
        assert old.state.status.phase == "closed"

    @rule(place=st.sampled_from(PLACES))
    def break_something_once(self, place):
        self.break_once(self.desk, place, RuntimeError("injected"))

    @rule()
    def let_a_loss_be_no_number(self):
        trainer = self.desk.trainer
        if trainer is not None:
            fault = TrainingFault(trainer.step + 1, 1e-3, "loss", math.nan)
            self.break_once(trainer._engine, "advance", fault)

    def break_once(self, owner, name, fault):
        if self.broken:
            return
        self.broken = True

        def fail_once(*_arguments, **_named):
            delattr(owner, name)
            raise fault

        setattr(owner, name, fail_once)

    @invariant()
    def one_worker_that_lives_and_a_status_in_words(self):
        assert [thread.name for thread in threading.enumerate()].count("sae_widget-worker") == 1
        assert self.explorer._runner._thread.is_alive()
        assert self.explorer.state.status.phase in PHASES[:-1]
        assert self.explorer.status

    @invariant()
    def weights_are_finite_and_fit_their_recipe(self):
        features = self.explorer.features
        if features is not None:
            assert torch.isfinite(features.sae.W_dec).all() and torch.isfinite(features.sae.W_enc).all()
            recipe = features.sae.metadata["training"]["settings"]
            assert (recipe["d_sae"], recipe["architecture"]) == (features.sae.d_sae, "topk")

    @rule()
    def settle(self):
        """Nothing is left to do: now all that is said and shown has to be what is so."""
        explorer, state, runner, desk = self.explorer, self.explorer.state, self.explorer._runner, self.desk
        end = time.monotonic() + 60
        while not (runner.idle and runner.publisher.empty):
            if runner._job is not None and not runner._paused:
                explorer.pause()
            assert time.monotonic() < end, state.status
            time.sleep(0.02)
        status, trainer = state.status, desk.trainer
        assert (status.phase == "paused") == (runner._job is not None), status
        assert status.phase in ("paused", "ready", "failed"), status
        assert (state.features is None) == (desk.shown is None)
        if desk.shown is not None:
            assert state.features.sae is desk.shown.sae
        if trainer is not None and state.history is not None:
            rolled_back = sum(math.isnan(record.loss) for record in state.history)
            assert len(state.history) - rolled_back == trainer.step
        told = re.match(r"(?:Paused|Stopped) at step ([\d,]+)\.", status.message)
        if told:
            assert int(told[1].replace(",", "")) == status.step == trainer.step
            recipe = state.features.sae.metadata["training"]
            assert recipe["steps"] == trainer.step
            assert recipe["settings"] == asdict(trainer.config)
            if status.message.startswith("Stopped"):
                kept = load_sae(autosave_folder() / desk.run).metadata["training"]
                assert kept == recipe
        if runner._job is None and not status.trouble and not state.faults:
            assert (state.activations.layer, state.activations.texts) == (state.layer, (state.text,))

    def teardown(self):
        self.explorer.stop()
        self.settle()
        self.explorer.close()
        assert not [thread for thread in threading.enumerate() if thread.name == "sae_widget-worker"]


def any_order(model, folder, runs, steps):
    AnyOrder.model, AnyOrder.folder = str(model), folder
    run_state_machine_as_test(
        AnyOrder,
        settings=settings(
            max_examples=runs,
            stateful_step_count=steps,
            phases=[Phase.generate],  # what depends on the moment cannot be replayed
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.timeout(300)
def test_any_order_of_commands(tiny_gpt2_dir, sae_widget_home, tmp_path):
    any_order(tiny_gpt2_dir, tmp_path / "saved", 6, 25)


@pytest.mark.soak
def test_any_order_of_commands_at_gate_size(tiny_gpt2_dir, sae_widget_home, tmp_path):
    any_order(tiny_gpt2_dir, tmp_path / "saved", 200, 50)
