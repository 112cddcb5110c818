"""The long gates of the fault list: any order of commands (T4), start and stop (T5, T11), re-runs (T6), Ctrl-C (T16).

Each runs briefly in ``make test`` and at its gate size in ``make soak``.
"""

import _thread
import gc
import signal
import subprocess
import sys
import threading
import time
import weakref

import psutil
import pytest
import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from ipywidgets.widgets import widget as widget_module

from sae_widget import SuperpositionExplorer
from sae_widget import explorer as explorer_module
from sae_widget.config import TrainConfig
from sae_widget.runner import Runner
from sae_widget.state import PHASES, ExplorerState

QUICK = TrainConfig(architecture="topk", d_sae=24, k=3, steps=100_000, batch_size=32)


class Commands(RuleBasedStateMachine):
    """Commands, inputs and faults in any order: one worker, a truthful status, finite weights, own settings."""

    model = ""

    def __init__(self):
        super().__init__()
        self.state = ExplorerState(
            model=self.model, text="a short text", layer=1, settings=QUICK, corpus="text", selected=2
        )
        self.runner = Runner(self.state)
        self.runner.start()
        assert self.runner.wait(60)
        self.broken = False

    @rule(command=st.sampled_from(["train", "pause", "resume", "stop", "reset", "restore", "read", "cancel"]))
    def press(self, command):
        self.runner.command(command)

    @rule(rate=st.sampled_from([1e-4, 1e-3, 1e-2]), k=st.integers(1, 24))
    def change_live_settings(self, rate, k):
        self.state.settings = self.state.settings.changed(learning_rate=rate, k=k)

    @rule(d_sae=st.sampled_from([24, 30]))
    def change_width(self, d_sae):
        self.state.settings = self.state.settings.changed(d_sae=d_sae)

    @rule(text=st.sampled_from(["another text", "", "third"]), layer=st.integers(0, 3))
    def change_text_and_layer(self, text, layer):
        self.state.text, self.state.layer = text, layer

    @rule(feature=st.one_of(st.none(), st.integers(-3, 40)))
    def select(self, feature):
        self.state.selected = feature

    @rule(seconds=st.sampled_from([0.0, 0.01, 0.05]))
    def let_it_work(self, seconds):
        time.sleep(seconds)

    @precondition(lambda self: not self.broken)
    @rule(place=st.sampled_from(["features", "show_training", "read"]))
    def break_something_once(self, place):
        self.broken = True
        original = getattr(self.runner.desk, place)

        def fail_once(*args, **kwargs):
            setattr(self.runner.desk, place, original)
            raise RuntimeError("injected")

        setattr(self.runner.desk, place, fail_once)

    @invariant()
    def one_worker_that_lives(self):
        assert self.runner._thread.is_alive()
        assert self.state.status.phase in PHASES
        assert self.state.status.message

    @invariant()
    def weights_are_finite_and_settings_are_those_of_the_training(self):
        features = self.state.features
        if features is not None:
            assert torch.isfinite(features.sae.W_dec).all()
            assert torch.isfinite(features.sae.W_enc).all()
            recipe = features.sae.metadata.get("training")
            assert recipe is None or recipe["settings"]["d_sae"] == features.sae.d_sae

    def teardown(self):
        self.runner.command("stop")
        assert self.runner.wait(60)
        assert self.state.status.phase in ("ready", "failed")
        self.runner.close()
        assert not self.runner._thread.is_alive()


def any_order(model, examples, steps):
    Commands.model = str(model)
    checks = list(HealthCheck)
    run_state_machine_as_test(
        Commands,
        settings=settings(
            max_examples=examples, stateful_step_count=steps, deadline=None, suppress_health_check=checks
        ),
    )


@pytest.mark.timeout(300)
def test_any_order_of_commands(tiny_gpt2_dir, sae_widget_home):
    any_order(tiny_gpt2_dir, 4, 20)


@pytest.mark.soak
def test_any_order_of_commands_at_gate_size(tiny_gpt2_dir, sae_widget_home):
    any_order(tiny_gpt2_dir, 200, 50)


def cycles(model, times):
    """Start and stop; the seconds that each stop took, and the growth of the process in MB."""
    state = ExplorerState(model=str(model), text="a short text", layer=1, settings=QUICK, corpus="text")
    runner = Runner(state)
    runner.start()
    assert runner.wait(60)
    threads, took, resident = threading.active_count(), [], 0
    for n in range(times):
        runner.command("train")
        end = time.monotonic() + 30
        while runner.desk.trainer is None or runner.desk.trainer.step == 0 or runner._job is None:
            assert time.monotonic() < end
            time.sleep(0.001)
        asked = time.monotonic()
        runner.command("stop")
        assert runner.wait(30)
        took.append(time.monotonic() - asked)
        runner.desk.trainer = None
        if n == times // 4:
            gc.collect()
            resident = psutil.Process().memory_info().rss
    assert threading.active_count() <= threads
    grown = (psutil.Process().memory_info().rss - resident) / 1e6
    runner.close()
    return took, grown


@pytest.mark.timeout(300)
def test_start_and_stop(tiny_gpt2_dir, sae_widget_home):
    took, _ = cycles(tiny_gpt2_dir, 10)
    assert sorted(took)[5] < 3.0


@pytest.mark.soak
def test_start_and_stop_at_gate_size(tiny_gpt2_dir, sae_widget_home):
    took, grown = cycles(tiny_gpt2_dir, 200)
    assert max(took) < 1.0
    assert sorted(took)[int(0.95 * len(took))] < 0.3
    assert grown < 10


@pytest.mark.soak
def test_a_hundred_runs_of_one_cell_leave_nothing(tiny_gpt2_dir, sae_widget_home, monkeypatch):
    given = {"model": str(tiny_gpt2_dir), "layer": 1, "d_sae": 24, "k": 4}
    references, resident, widgets, threads = [], 0, 0, 0
    for n in range(100):
        monkeypatch.setattr(explorer_module, "_cell_and_run", lambda n=n: ("cell:soak", f"run {n}"))
        explorer = SuperpositionExplorer("a text", **given)
        assert explorer.wait(60)
        references.append(weakref.ref(explorer))
        if n == 10:
            gc.collect()
            resident = psutil.Process().memory_info().rss
            widgets, threads = len(widget_module._instances), threading.active_count()
    gc.collect()
    assert sum(r() is not None for r in references) == 1
    assert len(widget_module._instances) <= widgets
    assert threading.active_count() <= threads
    assert (psutil.Process().memory_info().rss - resident) / 1e6 < 20
    explorer.close()


def interrupted(model, times):
    """Ctrl-C at another moment each time; every training stops whole."""
    handler = signal.getsignal(signal.SIGINT)
    explorer = SuperpositionExplorer(
        "a short text", model=str(model), layer=1, corpus="text", d_sae=24, k=3, steps=10**6, batch_size=32
    )
    try:
        assert explorer.wait(60)
        for n in range(times):
            timer = threading.Timer(0.15 + 0.013 * n, _thread.interrupt_main)
            timer.start()
            explorer.train(blocking=True)
            timer.join()
            trainer = explorer._runner.desk.trainer
            assert "Stopped" in explorer.status
            if trainer is not None and trainer.step:
                assert torch.equal(explorer.sae.W_dec, trainer.sae().W_dec)
                assert trainer.step == len(explorer.history)
        assert signal.getsignal(signal.SIGINT) is handler
    finally:
        explorer.close()


@pytest.mark.timeout(300)
def test_an_interrupt_stops_a_blocking_training_at_a_step(tiny_gpt2_dir, sae_widget_home):
    interrupted(tiny_gpt2_dir, 3)


@pytest.mark.soak
def test_a_hundred_interrupts(tiny_gpt2_dir, sae_widget_home):
    interrupted(tiny_gpt2_dir, 100)


FIRST_VIEW = """
import sys, time
began = time.monotonic()
calls = []
sys.addaudithook(lambda name, args: calls.append((name, str(args))) if name in WATCHED else None)
from sae_widget import SuperpositionExplorer
explorer = SuperpositionExplorer(model="bundled")
assert explorer.wait(60) and explorer.features.prompt is not None
print(time.monotonic() - began, calls)
explorer.close()
"""


@pytest.mark.soak
def test_the_first_view_needs_no_network_and_ten_seconds(sae_widget_home):
    """T18: from the import to the bundled SAE's features, in a fresh process."""
    watched = "WATCHED = ('socket.connect', 'socket.getaddrinfo', 'socket.gethostbyname')\n"
    done = subprocess.run([sys.executable, "-c", watched + FIRST_VIEW], capture_output=True, text=True, check=True)
    seconds, calls = done.stdout.strip().splitlines()[-1].split(" ", 1)
    assert calls == "[]"
    assert float(seconds) < 10
