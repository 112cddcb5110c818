"""sae_widget.cli.info: each thing that is missing has its sentence, with what to do."""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest

from sae_widget import __version__
from sae_widget.cli import info

Missing = Callable[..., None]


@pytest.fixture
def front_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """JupyterLab's folder of front ends, with the three that are needed."""
    import jupyter_core.paths

    for name in ("@jupyter-widgets/jupyterlab-manager", "bqplot", "anywidget"):
        (tmp_path / "labextensions" / name).mkdir(parents=True)
    monkeypatch.setattr(jupyter_core.paths, "jupyter_path", lambda *_: [str(tmp_path / "labextensions")])
    return tmp_path / "labextensions"


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> Missing:
    """A function that hides packages as if they were not installed."""
    find, version = importlib.util.find_spec, metadata.version

    def hide(*names: str) -> None:
        def told(name: str) -> str:
            if name in names:
                raise metadata.PackageNotFoundError(name)
            return version(name)

        monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name in names else find(name, *a))
        monkeypatch.setattr(metadata, "version", told)

    return hide


def test_nothing_is_wrong_with_what_the_tests_run_in(front_ends: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert info.diagnose() == []
    assert info.run(argparse.Namespace()) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"sae-widget     {__version__}" and lines[-1] == "problems       none found"
    told = {line.split()[0]: line.split()[1] for line in lines}
    assert {name: told[name] for name in info.LIBRARIES} == {name: metadata.version(name) for name in info.LIBRARIES}


@pytest.mark.parametrize("name", info.LIBRARIES)
def test_each_library_that_is_missing_is_named(name: str, front_ends: Path, without: Missing) -> None:
    without(name)
    assert info.diagnose() == [f"{name} is not installed. Run: pip install sae-widget"]


def test_what_is_missing_has_no_version_and_ends_in_a_one(
    front_ends: Path, without: Missing, capsys: pytest.CaptureFixture[str]
) -> None:
    without("bqplot", "anywidget")
    assert info.run(argparse.Namespace()) == 1
    lines = capsys.readouterr().out.splitlines()
    assert "bqplot         not installed" in lines and "anywidget      not installed" in lines
    assert lines[-2:] == [
        f"problem        {name} is not installed. Run: pip install sae-widget" for name in ("bqplot", "anywidget")
    ]


def test_without_jupyterlab_nobody_asks_for_its_front_ends(front_ends: Path, without: Missing) -> None:
    without("jupyterlab")
    (front_ends / "bqplot").rmdir()
    assert info.diagnose() == ["JupyterLab is not installed in this Python. Run: pip install 'sae-widget[lab]'"]


def test_a_front_end_in_any_of_the_folders_is_found(
    front_ends: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import jupyter_core.paths

    (front_ends / "bqplot").rmdir()
    (found,) = info.diagnose()
    assert found.startswith("JupyterLab does not find the front end of bqplot; its widgets would stay blank. ")
    (tmp_path / "more" / "bqplot").mkdir(parents=True)
    folders = [str(front_ends), str(tmp_path / "nowhere"), str(tmp_path / "more")]
    monkeypatch.setattr(jupyter_core.paths, "jupyter_path", lambda *_: folders)
    assert info.diagnose() == []


@pytest.mark.parametrize(
    ("version", "wrong"),
    [("7.0.0", True), ("7.0.1", True), ("7.0.0a1", True), ("7.1.0", False), ("6.30.1", False), ("17.0.1", False)],
)
def test_only_the_ipykernel_that_loses_clicks_is_told(
    version: str, wrong: bool, front_ends: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metadata, "version", lambda name: version if name == "ipykernel" else "1.0")
    said = ["ipykernel 7.0 loses clicks while a cell runs. Run: pip install -U ipykernel"]
    assert info.diagnose() == (said if wrong else [])


def test_an_installation_without_its_model_is_told(
    front_ends: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(info, "__file__", str(tmp_path / "sae_widget" / "cli" / "info.py"))
    assert info.diagnose() == ["The bundled model is missing from this installation. Install sae-widget again."]


def test_gpt2_is_on_this_machine_or_not(
    front_ends: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    info.run(argparse.Namespace())
    assert "GPT-2          not on this machine; asking for it loads 548 MB\n" in capsys.readouterr().out
    snapshot = tmp_path / "hub" / "models--gpt2" / "snapshots" / "0123"
    snapshot.mkdir(parents=True)
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (snapshot / name).touch()
    info.run(argparse.Namespace())
    assert "GPT-2          on this machine\n" in capsys.readouterr().out
