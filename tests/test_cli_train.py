"""``sae-widget train`` before it trains: folders that cannot be written, what a run has already, odd numbers."""

from __future__ import annotations

import io
import json
import os
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from sae_widget.checkpoint import save_sae
from sae_widget.cli import main
from tests.processes import command
from tests.test_sae import random_sae

RUN = {"total": 5, "step": 5, "model": "bundled", "layer": 1, "hook_name": "resid_pre", "tokens": 100}
TEXT = ["--text", "It was the best of times. " * 30]


def a_run(out: Path, **changes: Any) -> Path:
    out.mkdir()
    (out / "run.json").write_text(json.dumps(RUN | changes))
    return out


def train(out: Path, *more: str) -> int:
    return main(["train", "--out", str(out), *more])


def undecodable(tmp_path: Path) -> Path:
    out = Path(os.fsdecode(os.fsencode(tmp_path) + b"/r\xff"))
    try:
        out.mkdir()
        out.rmdir()
    except OSError:
        pytest.skip("this system has no such names")
    return out


def said_by(arguments: list[str]) -> str:
    """What a command that ends well writes to a terminal or a pipe of UTF-8, which takes no half characters."""
    found = io.BytesIO()
    with io.TextIOWrapper(found, "utf-8", errors="strict", write_through=True) as strict, redirect_stdout(strict):
        assert main(arguments) == 0
        return found.getvalue().decode()


def test_a_finished_run_in_a_folder_whose_name_is_no_utf8(tmp_path: Path) -> None:
    out = a_run(undecodable(tmp_path), state="finished")
    said = said_by(["train", "--out", str(out), "--resume"])
    assert said == f"The run in {tmp_path}/r? is finished; nothing is left to resume. Train anew with --overwrite.\n"


def test_a_training_into_a_folder_whose_name_is_no_utf8(tiny_gpt2_dir: Path, tmp_path: Path) -> None:
    out = undecodable(tmp_path)
    said = said_by(command(tiny_gpt2_dir, out, "--steps", "3", *TEXT)[2:])
    assert said.startswith(f"Saved {tmp_path}/r?: 24 features on ") and said.count("\n") == 1
    assert json.loads((out / "run.json").read_text())["state"] == "finished"


@pytest.mark.parametrize("seconds", ["0", "-1", "nan"])
def test_checkpoints_at_no_time_are_refused(seconds: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(tmp_path / "out", "--checkpoint-seconds", seconds) == 1
    assert capsys.readouterr().err == f"sae-widget: checkpoint_seconds must be above 0, got {seconds}\n"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("tokens", ["0", "-5"])
def test_no_tokens_are_refused(tokens: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(tmp_path / "out", "--tokens", tokens) == 1
    assert capsys.readouterr().err == f"sae-widget: tokens must be at least 1, got {tokens}\n"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["file", "file/below", "file/below/that"])
def test_a_folder_that_cannot_be_is_said_before_anything_is_read(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("mine")
    assert train(tmp_path / name) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"sae-widget: {tmp_path / name} cannot be written: ")
    assert said.endswith(". Nothing was trained; choose another --out.\n")
    assert (tmp_path / "file").read_text() == "mine" and len(list(tmp_path.iterdir())) == 1


def test_looking_whether_it_can_be_written_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "a" / "b" / "c"
    assert train(out, "--model", str(tmp_path / "none"), *TEXT) == 1
    assert "none" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("checkpoint", [False, True])
def test_an_sae_that_is_there_is_not_written_over(
    checkpoint: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_sae(random_sae("topk"), tmp_path)
    if checkpoint:
        (tmp_path / "checkpoint").mkdir()
        (tmp_path / "checkpoint" / "training_state.json").write_text("{}")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert train(tmp_path) == 1
    goes_on = ", go on with --resume" if checkpoint else ""
    said = f"sae-widget: {tmp_path} already holds an SAE; choose another --out{goes_on}, or give --overwrite.\n"
    assert capsys.readouterr().err == said
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--layer", "0"], "layer 1, got 0"),  # a 0 was given, too
        (["--no-prepend-bos"], "prepend_bos True, got False"),
        (["--tokens", "0"], "tokens 100, got 0"),
        (["--model", "gpt2"], "model 'bundled', got 'gpt2'"),
        (["--text", "a"], "texts None, got ['a']"),
        (["--d-sae", "7", "--k", "2"], "d_sae 1024, got 7"),
        (["--no-center"], "center True, got False"),
    ],
)
def test_a_run_goes_on_as_what_it_is(
    more: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = a_run(tmp_path / "run", state="stopped", step=2)
    assert train(out, "--resume", *more) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert said == f"sae-widget: the run in {out} has {words}: leave it out, or choose another --out"
    assert [path.name for path in out.iterdir()] == ["run.json"]


def test_a_run_that_is_damaged_is_not_begun_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = a_run(tmp_path / "run", step="2")
    assert train(out, "--resume") == 1
    assert "run.json: step: input should be a valid integer. Nothing was loaded" in capsys.readouterr().err
