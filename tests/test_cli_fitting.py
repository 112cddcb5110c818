"""sae_widget.cli.fitting: the ends of a training, each with what it leaves in the folder."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
import torch._dynamo  # torch.optim imports it at its first use, and that changes warning filters

from sae_widget.checkpoint import load_sae
from sae_widget.cli.base import INTERRUPTED, Refused, StopFlag
from sae_widget.cli.fitting import Fit
from sae_widget.cli.reading import Data
from sae_widget.config import TrainConfig
from sae_widget.runs import CHECKPOINT, RunInfo, describe, has_checkpoint, read_run
from sae_widget.training.mesh import ALONE, Alone, MeshFault
from tests.hand_made import activations
from tests.training_runs import small_data

N = 100


def a_fit(
    out: Path,
    steps: int = 9,
    *,
    stopped: bool = False,
    mesh: Alone = ALONE,
    seconds: float = 60.0,
    factor: float = 1.0,
    first_id: int = 0,
    **changes: Any,
) -> Fit:
    """A small training on 100 tokens of 10 positions, ``stopped`` after its first step."""
    values, position = small_data(N)
    data = Data(
        dataclasses.replace(
            activations(), values=values * factor, position=position, token_ids=torch.arange(N) + first_id
        )
    )
    config = TrainConfig(**{"d_sae": 20, "k": 3, "batch_size": 16, "steps": steps} | changes)
    place = {"model": "bundled", "layer": 2, "hook_name": "resid_pre", "prepend_bos": True}
    info = RunInfo(total=steps, tokens=N, settings=dataclasses.asdict(config), **place)
    flag = StopFlag()
    flag.stopped = stopped
    return Fit(data, info, describe(config, **place), out, flag, mesh, seconds)


def refusal_of(fit: Fit) -> Refused:
    with pytest.raises(Refused) as told:
        fit.run()
    return told.value


def steps_of(out: Path) -> list[dict[str, Any]]:
    """``history.json``, which is JSON: it has no ``NaN``."""

    def refused(number: str) -> NoReturn:
        raise ValueError(number)

    return json.loads((out / "history.json").read_text(), parse_constant=refused)["steps"]


def test_a_stop_keeps_what_was_done_and_how_to_go_on(tmp_path: Path) -> None:
    refused = refusal_of(a_fit(tmp_path, stopped=True))
    assert str(refused) == "Stopped at step 1 of 9; that SAE was saved. Go on with --resume."
    assert refused.status == INTERRUPTED and read_run(tmp_path).state == "stopped"
    assert has_checkpoint(tmp_path) and load_sae(tmp_path).metadata["training"]["steps"] == 1
    assert [step["validation_explained_variance"] for step in steps_of(tmp_path)] == [None]  # nothing is held out


def test_a_stop_at_the_last_step_is_the_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a_fit(tmp_path, 1, stopped=True).run()
    said = capsys.readouterr()
    assert said.out.startswith(f"Saved {tmp_path}: 20 features on 100 tokens, explained variance ")
    assert said.err.endswith("10 of 100 tokens left out: 10 first positions.\n")
    assert read_run(tmp_path).state == "finished" and not has_checkpoint(tmp_path)
    assert load_sae(tmp_path).metadata["skip_first"] is True


def test_a_run_goes_on_where_it_stood(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Other last digits are told and nothing is refused; the steps and the records are those of one run."""
    refusal_of(a_fit(tmp_path, stopped=True))
    capsys.readouterr()
    same, other = a_fit(tmp_path), a_fit(tmp_path, factor=1 + 1e-6)
    same.go_on()
    assert capsys.readouterr().err == ""
    other.go_on()
    assert "The activations differ in their last digits" in capsys.readouterr().err
    assert other.first == other.trainer.step == len(other.history) == 1
    other.run()
    assert [step["step"] for step in steps_of(tmp_path)] == list(range(1, 10))
    assert read_run(tmp_path).state == "finished"


def test_a_checkpoint_of_something_else_is_refused(tmp_path: Path) -> None:
    refusal_of(a_fit(tmp_path, stopped=True))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match=r"This state is of another run: .* The run stays as it was\."):
        a_fit(tmp_path, d_sae=21).go_on()
    with pytest.raises(Refused, match=r"The texts are not those that the run in .* read\. Nothing was changed\."):
        a_fit(tmp_path, first_id=1).go_on()
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_fault_in_the_first_step_writes_nothing(tmp_path: Path) -> None:
    refused = refusal_of(a_fit(tmp_path / "run", factor=1e18, normalize=False))
    assert "became infinite at step 1 " in str(refused) and "Rolled back to step 0" in str(refused)
    assert "saved" not in str(refused)
    assert refused.status == 1 and not (tmp_path / "run").exists()


def test_a_checkpoint_that_cannot_be_written_is_told_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file lies in its place: the training goes on, and nobody is told that it could be resumed."""
    for out in (tmp_path / "whole", tmp_path / "stopped"):
        out.mkdir()
        (out / CHECKPOINT).write_text("in the way")
    a_fit(tmp_path / "whole", seconds=1e-9).run()
    said = capsys.readouterr()
    assert said.err.count("The training goes on.") == 1 and "Saved " in said.out
    assert read_run(tmp_path / "whole").state == "finished" and len(steps_of(tmp_path / "whole")) == 9
    refused = refusal_of(a_fit(tmp_path / "stopped", stopped=True))
    assert str(refused) == "Stopped at step 1 of 9; that SAE was saved."


class Raising(StopFlag):
    """A second Ctrl-C: it has no words."""

    @property
    def stopped(self) -> bool:
        raise KeyboardInterrupt

    @stopped.setter
    def stopped(self, value: bool) -> None:
        """Before anything is done."""


def test_an_error_without_words_is_told_by_its_name(tmp_path: Path) -> None:
    fit = a_fit(tmp_path)
    fit.flag = Raising()
    with pytest.raises(KeyboardInterrupt):
        fit.run()
    info = read_run(tmp_path)
    assert (info.state, info.sentence) == ("failed", "The training ended at step 1: KeyboardInterrupt")


class Left(Alone):
    """A group of which a process dies in the third step."""

    def __init__(self, rank: int = 0) -> None:
        self.rank, self.asked = rank, 0

    def any(self, wish: bool) -> bool:
        self.asked += 1
        if self.asked == 3:
            raise MeshFault
        return wish


def test_a_process_that_is_left_alone_saves_the_run(tmp_path: Path) -> None:
    refused = refusal_of(a_fit(tmp_path, mesh=Left()))
    assert refused.told and refused.status == 1
    assert (
        str(refused)
        == read_run(tmp_path).sentence
        == (
            "A process of this run has died, so the others ended too. "
            "They stood at step 3 of 9; that SAE and a checkpoint were saved: go on with --resume."
        )
    )
    assert read_run(tmp_path).state == "failed" and load_sae(tmp_path).metadata["training"]["steps"] == 3
    fit = a_fit(tmp_path)
    fit.go_on()
    assert fit.first == 3


def test_one_that_finds_no_run_to_save_says_nothing(tmp_path: Path) -> None:
    refused = refusal_of(a_fit(tmp_path, mesh=Left(rank=1)))
    assert str(refused) == "A process of this run has died, so the others ended too." and not refused.told
    assert not (tmp_path / "run.json").exists() and not has_checkpoint(tmp_path)
