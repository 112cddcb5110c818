"""``sae-widget train`` in several real processes over gloo: the run of one, and what is left when one is killed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from sae_widget.checkpoint import load_sae
from sae_widget.cli import main
from tests.processes import command, run_info, spawn, spawn_group, until_step

pytest.importorskip("accelerate")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]
KINDS = {"standard": ["--architecture", "standard", "--l1-coefficient", "0.5"], "topk": []}


def losses(out: Path) -> list[float]:
    return [step["loss"] for step in json.loads((out / "history.json").read_text())["steps"]]


def alone(model: Path, out: Path, *more: str) -> Path:
    assert main(command(model, out, *more)[2:]) == 0
    return out


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_two_processes_under_torchrun_do_what_one_does(tiny_gpt2_dir: Path, tmp_path: Path, kind: str) -> None:
    recipe = [*KINDS[kind], "--steps", "60"]
    store = {run: ["--store", str(tmp_path / f"store {run}")] if kind == "topk" else [] for run in ("one", "two")}
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    process = spawn([*launcher, *command(tiny_gpt2_dir, tmp_path / "two", *recipe, *store["two"])])
    one = alone(tiny_gpt2_dir, tmp_path / "one", *recipe, *store["one"])
    said, error = process.communicate(timeout=300)
    assert process.returncode == 0, error
    assert said.count("Saved ") == 1  # the first process alone speaks
    assert error.count("after block 1") == 1
    assert losses(tmp_path / "two") == pytest.approx(losses(one), abs=1e-4)
    for name in ("W_enc", "b_enc", "W_dec", "b_dec"):
        first, second = (getattr(load_sae(tmp_path / run), name) for run in ("one", "two"))
        assert torch.allclose(first, second, atol=1e-4), name


def survivor(out: Path, model: Path, victim: int, recipe: list[str]) -> Any:
    """Start a group whose other process will be killed, and the function that does it."""
    group = spawn_group(command(model, out, *recipe))

    def kill() -> tuple[str, str, int]:
        until_step(out, 30, group[0])
        group[victim].kill()
        group[victim].wait()
        said, error = group[1 - victim].communicate(timeout=120)
        group[victim].communicate()
        return said, error, group[1 - victim].returncode

    return kill


def test_a_killed_process_ends_the_run_with_a_sentence_and_a_checkpoint(tiny_gpt2_dir: Path, tmp_path: Path) -> None:
    recipe = [*KINDS["standard"], "--lr-schedule", "constant", "--lr-warmup", "0", "--l1-warmup", "0"]
    outs = [tmp_path / "first", tmp_path / "second"]
    kills = [survivor(out, tiny_gpt2_dir, victim, [*recipe, "--steps", "900000"]) for victim, out in enumerate(outs)]
    for out, (said, error, status) in zip(outs, [kill() for kill in kills], strict=True):
        info = run_info(out)
        step = info["step"]
        sentence = (
            "A process of this run has died, so the others ended too. "
            f"They stood at step {step:,} of 900,000; that SAE and a checkpoint were saved: go on with --resume."
        )
        assert (info["state"], info["sentence"], info["sae_step"]) == ("failed", sentence, step)
        assert error.rstrip().endswith(f"sae-widget: {sentence}") and error.count("has died") == 1
        assert (status, said) == (1, "") and "Traceback" not in error
        assert main(["train", "--out", str(out), "--resume", "--steps", str(step + 20)]) == 0
        whole = alone(tiny_gpt2_dir, tmp_path / f"whole {out.name}", *recipe, "--steps", str(step + 20))
        assert len(losses(out)) == step + 20
        assert losses(out) == pytest.approx(losses(whole), abs=1e-4)


def test_a_stop_of_one_process_stops_them_all_at_one_step(tiny_gpt2_dir: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    first, second = spawn_group(command(tiny_gpt2_dir, out, "--steps", "900000"))
    until_step(out, 30, first)
    second.terminate()
    said, error = first.communicate(timeout=120)
    quiet = second.communicate(timeout=120)
    step = run_info(out)["step"]
    assert f"Stopped at step {step:,} of 900,000; that SAE was saved. Go on with --resume." in error
    assert "Saved " in said and "Traceback" not in error + quiet[1]
    assert "sae-widget" not in quiet[1]
    assert (first.returncode, second.returncode, run_info(out)["state"]) == (130, 130, "stopped")
    assert load_sae(out).metadata["training"]["steps"] == step == len(losses(out))
