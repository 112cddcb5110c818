"""``SuperpositionExplorer.follow``: a training of another process, seen live (``sae_widget.runner.follow``)."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sae_widget import SuperpositionExplorer
from sae_widget.checkpoint import SaeFileError, load_sae
from sae_widget.cli import main
from sae_widget.runs import watch
from tests.processes import command, run_info, spawn, until_step
from tests.running import until


@pytest.fixture
def explorer(tiny_gpt2_dir: Path, sae_widget_home: Path) -> Iterator[SuperpositionExplorer]:
    made = SuperpositionExplorer("Another text.", model=str(tiny_gpt2_dir), layer=2, steps=50, corpus_tokens=600)
    assert made.wait(60)
    yield made
    made.close()


@pytest.fixture
def running(tiny_gpt2_dir: Path, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """A function that starts a training in another process and waits for its first SAE."""
    processes = []

    def start(out: Path) -> Any:
        more = ["--steps", "900000", "--checkpoint-seconds", "0.4", "--text", "It was the best of times. " * 30]
        processes.append(spawn(command(tiny_gpt2_dir, out, *more)))
        until_step(out, 1, processes[-1])
        until(lambda: run_info(out)["sae_step"] > 0)
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def test_a_training_of_another_process_is_seen_live(explorer, running, tmp_path: Path) -> None:
    out = tmp_path / "run"
    process = running(out)
    explorer.follow(out)
    state = explorer.state
    until(lambda: state.status.message.startswith("Following run") and state.status.step > 0)
    assert (state.layer, state.settings.d_sae, state.status.phase, state.status.total) == (1, 24, "training", 900_000)
    until(lambda: explorer.features is not None and "the SAE of run" in explorer.features.source)
    until(lambda: explorer.history is not None and len(explorer.history) >= 50)
    assert explorer.features.prompt is not None and explorer.features.stats is not None
    assert explorer.activations.texts[0].startswith("It was the best of times. It was")
    records, source = len(explorer.history), explorer.features.source
    until(lambda: len(explorer.history) > records and explorer.features.source != source)
    assert [record.step for record in explorer.history][:50] == list(range(1, 51))
    assert not explorer.wait(0.1)  # there is always more to see

    explorer.read("A text of mine.")  # which can be read meanwhile
    until(lambda: explorer.activations.texts == ("A text of mine.",))
    explorer.selected_feature = 3
    until(lambda: state.card is not None and (state.card.feature, state.card.key) == (3, explorer.features.key))
    explorer.pause()
    explorer.train()
    until(lambda: len(explorer.history) > records + 500)  # neither stops anything
    assert process.poll() is None

    process.send_signal(signal.SIGTERM)
    assert explorer.wait(60)
    process.wait(60)
    step = run_info(out)["step"]
    assert explorer.status == (
        f"The run in run has ended: Stopped at step {step:,} of 900,000; that SAE was saved. Go on with --resume."
    )
    assert (state.status.phase, state.status.trouble, state.status.step) == ("ready", False, step)
    assert explorer.history.last.step == step
    assert torch.equal(explorer.sae.W_enc, load_sae(out).W_enc)
    assert (state.card.key, state.card.version) == (explorer.features.key, explorer.features.version)
    explorer.set(steps=20)
    explorer.train(blocking=True)  # nothing of it is left in the way
    assert explorer.status.startswith("Trained 20 steps") and explorer.history.last.step == 20
    assert (state.card.feature, state.card.key) == (3, explorer.features.key)


def test_what_is_followed_no_more_is_measured_and_a_text_offers_nothing_meanwhile(explorer, running, tmp_path) -> None:
    explorer.train(blocking=True)  # something to restore
    out = tmp_path / "run"
    running(out)
    explorer.follow(out)
    until(lambda: explorer.features is not None and "the SAE of run" in explorer.features.source)
    explorer.read("A text of mine.")
    until(lambda: explorer.activations.texts == ("A text of mine.",))
    assert explorer.state.offers == ()
    explorer.stop()
    assert explorer.wait(60)
    assert explorer.status.startswith("run is no longer followed")
    assert explorer.fidelity is not None


def test_a_process_that_dies_is_noticed(explorer, running, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(watch, "GONE", 0.3)
    out = tmp_path / "run"
    process = running(out)
    explorer.follow(out)
    until(lambda: explorer.state.status.message.startswith("Following run"))
    process.kill()
    assert explorer.wait(60)
    last, saved = explorer.history.last.step, load_sae(out).metadata["training"]["steps"]
    assert explorer.status == (
        f"The process that trained in run is gone since step {last:,}, without a word. "
        f"Its SAE of step {saved:,} is shown; "
        f"sae-widget train --out {out} --resume goes on from its last checkpoint."
    )
    assert explorer.state.status.trouble
    assert torch.equal(explorer.sae.W_enc, load_sae(out).W_enc)


def test_stop_ends_the_following_and_not_the_training(explorer, running, tmp_path: Path) -> None:
    out = tmp_path / "run"
    process = running(out)
    explorer.follow(out)
    explorer.follow(out)  # once more is once
    until(lambda: explorer.state.status.message.startswith("Following run"))
    explorer.stop()
    assert explorer.wait(30)
    assert explorer.status == "run is no longer followed; it trains on by itself. What was shown last is kept."
    step = run_info(out)["step"]
    until_step(out, step + 100, process)
    explorer.follow(out)  # and again, from where it is now
    until(lambda: explorer.state.status.step > step)
    assert explorer.history.last.step > step


@pytest.fixture(scope="module")
def finished(tiny_gpt2_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("finished") / "run"
    assert main(command(tiny_gpt2_dir, out, "--steps", "40", "--text", "It was the best of times. " * 30)[2:]) == 0
    return out


def test_a_run_that_goes_on_after_another_was_followed_has_its_own_history(explorer, finished: Path) -> None:
    explorer.train(blocking=True)
    assert explorer.state.history_of == explorer.features.key
    explorer.follow(finished)
    assert explorer.wait(60)
    assert len(explorer.history) == 40 and explorer.state.history_of == str(finished)
    explorer.state.layer = 2
    assert explorer.wait(60)
    assert explorer.features.source.startswith("your SAE") and explorer.state.history_of != explorer.features.key
    explorer.resume()
    assert explorer.wait(60)
    assert [record.step for record in explorer.history] == list(range(1, len(explorer.history) + 1))
    assert len(explorer.history) > 50 and explorer.state.history_of == explorer.features.key


def test_a_finished_run_is_shown_as_load_shows_it(explorer, finished: Path) -> None:
    explorer.follow(finished)
    assert explorer.wait(60)
    assert explorer.status.startswith("The run in run has finished its 40 steps. Showing the SAE of run, after block 1")
    loaded = SuperpositionExplorer.load(finished)
    try:
        assert loaded.wait(60)
        assert torch.equal(explorer.sae.W_enc, loaded.sae.W_enc)
        for mine, its in ((explorer.features, loaded.features), (explorer.state, loaded.state)):
            for name in ("source", "key", "text", "layer", "hook_name", "corpus", "corpus_tokens", "settings"):
                assert getattr(mine, name, None) == getattr(its, name, None), name
        assert np.array_equal(explorer.features.stats.frequency, loaded.features.stats.frequency)
        assert np.array_equal(explorer.features.prompt.mean, loaded.features.prompt.mean)
    finally:
        loaded.close()
    assert [record.step for record in explorer.history] == list(range(1, 41))


def test_what_cannot_be_followed_is_refused_and_changes_nothing(explorer, finished: Path, tmp_path: Path) -> None:
    before = (explorer.state.layer, explorer.state.text, explorer.status)
    with pytest.raises(SaeFileError, match="no training has written there yet"):
        explorer.follow(tmp_path / "none")
    alone = tmp_path / "alone"
    alone.mkdir()
    shutil.copy(finished / "run.json", alone)
    with pytest.raises(SaeFileError, match=r"it has no explorer\.json"):
        explorer.follow(alone)
    assert (explorer.state.layer, explorer.state.text, explorer.status) == before
    explorer.set(steps=900_000, d_sae=24)
    explorer.train()
    until(lambda: explorer.state.status.step > 5)
    with pytest.raises(RuntimeError, match="this explorer is training: stop it first"):
        explorer.follow(finished)
    explorer.stop()
    assert explorer.wait(30)
    assert explorer.state.text == before[1]


def test_a_file_that_is_damaged_ends_the_following_with_a_sentence(explorer, finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    (out / "records.bin").write_bytes(b"nothing\n")
    explorer.follow(out)
    assert explorer.wait(60)
    assert explorer.state.status.phase == "failed"
    assert explorer.status == (
        "run is no longer followed: records.bin: its first line is damaged. "
        "Nothing was loaded, and what you have is unchanged."
    )
    shutil.copy(finished / "records.bin", out)
    explorer.follow(out)
    assert explorer.wait(60)
    assert explorer.status.startswith("The run in run has finished")
