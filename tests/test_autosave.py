"""Trained SAEs go to disk by themselves, the oldest go, damaged ones are passed over."""

import os
import stat
import time

import pytest
import torch

from sae_widget.autosave import KEEP, autosave, autosave_folder, load_run, run_name, saved_runs
from sae_widget.checkpoint import SaeFileError, save_sae
from sae_widget.config import TrainConfig
from sae_widget.features import feature_stats
from sae_widget.sae.standard import StandardSAE


def an_sae(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return StandardSAE(
        W_enc=torch.randn(3, 5, generator=generator),
        b_enc=torch.randn(5, generator=generator),
        W_dec=torch.randn(5, 3, generator=generator),
        b_dec=torch.randn(3, generator=generator),
        metadata={"model_name": "m", "layer": 2, "hook_name": "resid_pre"},
    )


def test_what_was_saved_comes_back(sae_widget_home):
    sae, values = an_sae(), torch.randn(20, 3, generator=torch.Generator().manual_seed(1))
    stats = feature_stats(sae, values, torch.arange(20))
    path = autosave(sae, stats, TrainConfig(d_sae=5, k=2), "one")
    assert path.parent == autosave_folder()
    (run,) = saved_runs()
    assert run.info["settings"]["d_sae"] == 5
    assert (run.info["model_name"], run.info["layer"]) == ("m", 2)
    again, again_stats = load_run(run.path)
    assert torch.allclose(again.encode(values), sae.encode(values), atol=1e-6)
    assert again_stats.frequency.tolist() == stats.frequency.tolist()


def test_only_the_owner_can_read_it(sae_widget_home):
    path = autosave(an_sae(), None, TrainConfig(), "one")
    assert stat.S_IMODE(path.stat().st_mode) == 0o700


def test_the_newest_comes_first_and_the_oldest_go(sae_widget_home):
    for i in range(KEEP + 3):
        path = autosave(an_sae(i), None, TrainConfig(), f"run-{i}")
        os.utime(path / "run.json", (time.time() - 1000 + i, time.time() - 1000 + i))
    names = [run.path.name for run in saved_runs()]
    assert names[0] == f"run-{KEEP + 2}"
    assert len(names) == KEEP


def test_a_folder_that_is_no_run_is_passed_over(sae_widget_home):
    autosave(an_sae(), None, TrainConfig(), "good")
    for name, text in (("bad", "{"), ("list", "[1]"), ("empty", "")):
        (autosave_folder() / name).mkdir()
        (autosave_folder() / name / "run.json").write_text(text)
    assert [run.path.name for run in saved_runs()] == ["good"]


def test_without_a_folder_there_are_no_runs(sae_widget_home):
    assert saved_runs() == []


def test_names_sort_by_time_and_never_meet():
    names = [run_name() for _ in range(20)]
    assert all(name[:8].isdigit() for name in names)
    assert len(set(names)) == 20


def test_statistics_of_another_sae_are_refused(sae_widget_home, tmp_path):
    stats = {name: torch.ones(9) for name in ("frequency", "mean", "max")} | {"numbers": torch.ones(4)}
    save_sae(an_sae(), tmp_path, stats)
    with pytest.raises(SaeFileError, match=rf"are not of its {an_sae().d_sae} features"):
        load_run(tmp_path)
