"""``sae-widget train --resume``: what goes on is the run that was never stopped, bit for bit (T14)."""

from __future__ import annotations

import json
import math
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from sae_widget.checkpoint import load_sae
from sae_widget.checkpoint.base import TRAINING_INFO
from sae_widget.cli import main
from sae_widget.cli.base import INTERRUPTED
from sae_widget.runs import CHECKPOINT, read_explorer, read_run
from sae_widget.training import History, Trainer, TrainingFault
from tests.processes import command

KINDS = {
    "topk": ["--steps", "60"],
    "standard": ["--steps", "60", "--architecture", "standard"],
    "tutorial": ["--steps", "60", "--original-tutorial", "--batch-size", "0"],
}


def train(model: Path, out: Path, *more: str) -> int:
    return main(command(model, out, *more)[2:])


def go_on(out: Path, *more: str) -> int:
    return main(["train", "--out", str(out), "--resume", *more])


def interrupt_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    append = History.append

    def appended(self: History, record: Any) -> None:
        append(self, record)
        if record.step == step:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(History, "append", appended)


def steps(out: Path) -> list[dict[str, Any]]:
    found = json.loads((out / "history.json").read_text())["steps"]
    return [step | {"tokens_per_second": 0} for step in found]


def same_sae(first: Path, second: Path) -> bool:
    a, b = load_sae(first), load_sae(second)
    return all(torch.equal(getattr(a, name), getattr(b, name)) for name in ("W_enc", "b_enc", "W_dec", "b_dec"))


@pytest.mark.parametrize("split", [1, 25, 59])
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_run_that_was_stopped_goes_on_bit_for_bit(
    tiny_gpt2_dir: Path, tmp_path: Path, capsys, monkeypatch, kind: str, split: int
) -> None:
    whole, out = tmp_path / "whole", tmp_path / "run"
    assert train(tiny_gpt2_dir, whole, *KINDS[kind]) == 0
    with monkeypatch.context() as patch:
        interrupt_at(split, patch)
        assert train(tiny_gpt2_dir, out, *KINDS[kind]) == INTERRUPTED
    said = f"Stopped at step {split} of 60; that SAE was saved. Go on with --resume."
    assert said in capsys.readouterr().err
    info = read_run(out)
    assert (info.state, info.step, info.sae_step, info.sentence) == ("stopped", split, split, said)
    assert go_on(out) == 0
    assert steps(out) == steps(whole)
    assert same_sae(out, whole)
    info = read_run(out)
    assert (info.state, info.step, info.total) == ("finished", 60, 60)
    assert not (out / CHECKPOINT).exists()
    assert go_on(out) == 0
    assert "is finished" in capsys.readouterr().out


def test_a_run_over_a_text_goes_on(tiny_gpt2_dir: Path, tmp_path: Path, monkeypatch) -> None:
    text, recipe = "the cat sat on the mat and the dog sat on the cat " * 20, ["--steps", "20"]
    whole, out = tmp_path / "whole", tmp_path / "run"
    assert train(tiny_gpt2_dir, whole, "--text", text, *recipe) == 0
    with monkeypatch.context() as patch:
        interrupt_at(7, patch)
        assert train(tiny_gpt2_dir, out, "--text", text, *recipe) == INTERRUPTED
    assert go_on(out) == 0
    assert steps(out) == steps(whole) and same_sae(out, whole)
    assert read_explorer(out) == read_explorer(whole)


@pytest.mark.parametrize("asked", [7, 3])
def test_a_run_that_is_asked_for_no_more_steps_is_finished(
    tiny_gpt2_dir: Path, tmp_path: Path, capsys, monkeypatch, asked: int
) -> None:
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        interrupt_at(7, patch)
        assert train(tiny_gpt2_dir, out, "--steps", "20") == INTERRUPTED
    before = load_sae(out).W_dec
    capsys.readouterr()
    assert go_on(out, "--steps", str(asked)) == 0
    assert f"Saved {out}: 24 features" in capsys.readouterr().out
    info = read_run(out)
    assert (info.state, info.step, info.sae_step) == ("finished", 7, 7) and info.sentence.startswith(f"Saved {out}")
    assert torch.equal(load_sae(out).W_dec, before) and not (out / CHECKPOINT).exists()
    assert len(steps(out)) == 7


def test_a_run_whose_process_failed_goes_on_from_its_last_checkpoint(
    tiny_gpt2_dir: Path, tmp_path: Path, monkeypatch
) -> None:
    out, whole = tmp_path / "run", tmp_path / "whole"
    recipe = ["--steps", "60", "--checkpoint-seconds", "1e-9"]
    saved = []
    with monkeypatch.context() as patch:
        append, state_dict = History.append, Trainer.state_dict

        def breaks(self: History, record: Any) -> None:
            append(self, record)
            if record.step == 40:
                raise RuntimeError("the machine is on fire")

        def noted(self: Trainer) -> dict[str, torch.Tensor]:
            saved.append(self.step)
            return state_dict(self)

        patch.setattr(History, "append", breaks)
        patch.setattr(Trainer, "state_dict", noted)
        with pytest.raises(RuntimeError, match="on fire"):
            train(tiny_gpt2_dir, out, *recipe)
    info = read_run(out)
    assert (info.state, info.sentence) == ("failed", "The training ended at step 40: the machine is on fire")
    assert 1 in saved and max(saved) < 40
    assert load_sae(out).metadata["training"]["steps"] == info.sae_step < 40
    assert train(tiny_gpt2_dir, out, *recipe, "--resume") == 0  # the same command once more
    assert train(tiny_gpt2_dir, whole, "--steps", "60") == 0
    assert steps(out) == steps(whole)
    assert same_sae(out, whole)


def test_a_fault_can_be_gone_on_from_with_another_rate(
    tiny_gpt2_dir: Path, tmp_path: Path, capsys, monkeypatch
) -> None:
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        append = History.append

        def diverges(self: History, record: Any) -> None:
            append(self, record)
            if record.step == 9:
                raise TrainingFault(10, record.learning_rate, "loss", math.inf)

        patch.setattr(History, "append", diverges)
        assert train(tiny_gpt2_dir, out, "--steps", "20", "--learning-rate", "0.5") == 1
    said = "The SAE of step 9 was saved. Go on with --resume."
    assert said in capsys.readouterr().err
    assert read_run(out).state == "failed" and read_run(out).sentence.endswith(said)
    assert go_on(out, "--learning-rate", "0.001") == 0
    assert [step["step"] for step in steps(out)] == list(range(1, 21))
    assert steps(out)[8]["learning_rate"] == 0.5 and steps(out)[9]["learning_rate"] == 0.001


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def stopped(model: Path, out: Path, monkeypatch: pytest.MonkeyPatch, *more: str) -> Path:
    with monkeypatch.context() as patch:
        interrupt_at(5, patch)
        assert train(model, out, "--steps", "30", *more) == INTERRUPTED
    return out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--d-sae", "25"], "has d_sae 24, got 25: leave it out, or choose another --out"),
        (["--seed", "4"], "has seed 0, got 4"),
        (["--architecture", "standard"], "has architecture 'topk', got 'standard'"),
        (["--layer", "2"], "has layer 1, got 2"),
        (["--model", "bundled"], "has model '"),
        (["--tokens", "601"], "has tokens 600, got 601"),
        (["--no-prepend-bos"], "has prepend_bos True, got False"),
        (["--text", "another"], "has texts None, got ['another']"),
        (["--checkpoint-seconds", "0"], "checkpoint_seconds must be above 0, got 0"),
        (["--checkpoint-seconds", "nan"], "checkpoint_seconds must be above 0, got nan"),
    ],
)
def test_what_does_not_fit_the_run_is_refused_by_name(
    tiny_gpt2_dir: Path, tmp_path: Path, capsys, monkeypatch, options: list[str], words: str
) -> None:
    out = stopped(tiny_gpt2_dir, tmp_path / "run", monkeypatch)
    before = contents(out)
    capsys.readouterr()
    assert go_on(out, *options) == 1
    assert words in capsys.readouterr().err
    assert contents(out) == before


def test_other_settings_may_change(tiny_gpt2_dir: Path, tmp_path: Path, monkeypatch) -> None:
    out = stopped(tiny_gpt2_dir, tmp_path / "run", monkeypatch)
    assert go_on(out, "--steps", "8", "--k", "2") == 0
    assert [step["l0"] <= 2 for step in steps(out)] == [False] * 5 + [True] * 3
    assert read_run(out).total == 8
    assert read_explorer(out).settings["k"] == 2


def test_other_texts_under_the_same_name_are_refused(tiny_gpt2_dir: Path, tmp_path: Path, capsys, monkeypatch) -> None:
    book = tmp_path / "book.txt"
    book.write_text("It was the best of times, it was the worst of times.\n" * 20)
    out = stopped(tiny_gpt2_dir, tmp_path / "run", monkeypatch, "--corpus", str(book))
    book.write_text("It was the age of wisdom, it was the age of folly!!!\n" * 20)
    assert go_on(out) == 1
    assert f"The texts are not those that the run in {out} read. Nothing was changed." in capsys.readouterr().err


def test_what_is_not_there_yet_begins(tiny_gpt2_dir: Path, tmp_path: Path, capsys, monkeypatch) -> None:
    out = tmp_path / "run"
    assert train(tiny_gpt2_dir, out, "--steps", "3", "--resume") == 0
    assert f"There is no run in {out} to go on with: it begins." in capsys.readouterr().err
    other = stopped(tiny_gpt2_dir, tmp_path / "other", monkeypatch)
    (other / CHECKPOINT / TRAINING_INFO).unlink()
    assert go_on(other) == 0
    assert "has no checkpoint yet: it begins again" in capsys.readouterr().err
    assert [step["step"] for step in steps(other)] == list(range(1, 31))


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff" * 100])
def test_a_damaged_checkpoint_is_a_sentence(
    tiny_gpt2_dir: Path, tmp_path: Path, capsys, monkeypatch, content: bytes
) -> None:
    out = stopped(tiny_gpt2_dir, tmp_path / "run", monkeypatch)
    (out / CHECKPOINT / TRAINING_INFO).write_bytes(content)
    capsys.readouterr()
    assert go_on(out) == 1
    error = capsys.readouterr().err
    assert f"sae-widget: {TRAINING_INFO}: it is damaged. Nothing was loaded" in error and "Traceback" not in error


def test_an_unfinished_run_is_not_written_over_unasked(
    tiny_gpt2_dir: Path, tmp_path: Path, capsys, monkeypatch
) -> None:
    out = stopped(tiny_gpt2_dir, tmp_path / "run", monkeypatch)
    assert train(tiny_gpt2_dir, out, "--steps", "3") == 1
    assert "already holds an SAE; choose another --out, go on with --resume, or give --overwrite" in (
        capsys.readouterr().err
    )


def test_a_corpus_on_the_disk_is_trained_on_and_gone_on_with(
    tiny_gpt2_dir: Path, tmp_path: Path, capsys, monkeypatch
) -> None:
    """Its activations are written once; the run over them, and its resuming, is the one that never stopped."""
    out, whole, store = tmp_path / "run", tmp_path / "whole", ["--store", str(tmp_path / "store")]
    store += ["--validation-share", "0.1", "--tokens", "3000"]
    assert train(tiny_gpt2_dir, whole, "--steps", "30", *store) == 0
    said = capsys.readouterr()
    assert "on held-out tokens)" in said.out and "tokens left out" in said.err
    written = contents(tmp_path / "store")
    assert any(path.suffix == ".safetensors" for path in written)
    stopped(tiny_gpt2_dir, out, monkeypatch, *store)
    assert go_on(out, "--store", str(tmp_path / "other")) == 1
    assert "has store '" in capsys.readouterr().err
    assert go_on(out) == 0
    assert same_sae(out, whole) and repr(steps(out)) == repr(steps(whole))
    assert contents(tmp_path / "store") == written


def test_a_corpus_that_does_not_fit_says_how_it_would(tiny_gpt2_dir: Path, tmp_path: Path, capsys, monkeypatch) -> None:
    from sae_widget import memory

    monkeypatch.setattr(memory, "free_memory", lambda: 10_000)
    assert train(tiny_gpt2_dir, tmp_path / "run", "--steps", "2") == 1
    error = capsys.readouterr().err
    assert "does not fit into memory" in error and "give --store FOLDER" in error
    assert not (tmp_path / "run").exists()
