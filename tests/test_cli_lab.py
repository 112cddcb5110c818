"""sae_widget.cli.lab: what JupyterLab is started with, and which notebook it opens."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

import pytest

from sae_widget.cli import lab

ROOT = Path(__file__).resolve().parents[1]


def options(command: list[str]) -> dict[str, str]:
    """The options of a command that have values."""
    return dict(word.removeprefix("--").split("=", 1) for word in command if "=" in word)


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of somebody who has the package without its repository."""
    monkeypatch.setattr(lab, "__file__", str(tmp_path / "site" / "sae_widget" / "cli" / "lab.py"))
    (tmp_path / "home").mkdir()
    monkeypatch.chdir(tmp_path / "home")
    return tmp_path / "home"


def test_a_folder_is_served_as_a_whole(tmp_path: Path) -> None:
    found = options(lab.lab_command(tmp_path, 8888, browser=True))
    assert found == {
        "ServerApp.root_dir": str(tmp_path.resolve()),
        "LabApp.default_url": "/lab",
        "ServerApp.port": "8888",
    }


def test_a_path_from_here_is_served_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.ipynb").write_text("{}")
    monkeypatch.chdir(tmp_path)
    for path, page in ((Path("x.ipynb"), "/lab/tree/x.ipynb"), (Path(), "/lab")):
        found = options(lab.lab_command(path, 8888, browser=True))
        assert (found["ServerApp.root_dir"], found["LabApp.default_url"]) == (str(tmp_path.resolve()), page)


@pytest.mark.parametrize(
    ("name", "page"), [(b"a#b 50%?.ipynb", "a%23b%2050%25%3F.ipynb"), (b"caf\xe9.ipynb", "caf%E9.ipynb")]
)
def test_a_name_with_signs_of_an_address_is_quoted(name: bytes, page: str, tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(name)
    path.write_text("{}")
    assert options(lab.lab_command(path, 8888, browser=True))["LabApp.default_url"] == f"/lab/tree/{page}"


@pytest.mark.parametrize(("port", "known"), [(1, True), (65_535, True), (0, False), (-1, False), (65_536, False)])
def test_ports_that_there_are(port: int, known: bool, tmp_path: Path) -> None:
    if known:
        assert options(lab.lab_command(tmp_path, port, browser=True))["ServerApp.port"] == str(port)
    else:
        with pytest.raises(ValueError, match=f"port must be between 1 and 65,535, got {port}"):
            lab.lab_command(tmp_path, port, browser=True)


def test_the_quickstart_of_a_checkout_is_found_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert lab.quickstart() == ROOT / "notebooks" / "00_quickstart.ipynb"
    assert list(tmp_path.iterdir()) == []


def test_a_quickstart_that_was_worked_in_is_kept(installed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert lab.quickstart() == Path(lab.STARTER)
    assert capsys.readouterr().out == f"Wrote {installed.resolve() / lab.STARTER}\n"
    (installed / lab.STARTER).write_text("mine")
    assert lab.quickstart() == Path(lab.STARTER)
    assert (installed / lab.STARTER).read_text() == "mine" and capsys.readouterr().out == ""


def test_the_quickstart_that_is_written_runs_as_it_is(installed: Path) -> None:
    cells = json.loads(lab.quickstart().read_text(encoding="utf-8"))["cells"]
    assert [cell["outputs"] for cell in cells] == [[]] * len(cells) == [[]] * 3
    for cell in cells:
        compile(cell["source"], lab.STARTER, "exec")


@pytest.mark.skipif(os.name != "posix", reason="elsewhere JupyterLab is a process below this one")
def test_this_process_becomes_jupyterlab(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    became: list[list[str]] = []

    def become(program: str, command: list[str]) -> None:
        assert program == command[0] == sys.executable
        became.append(command)
        raise SystemExit

    monkeypatch.setattr(os, "execv", become)
    (installed / "books").mkdir()
    for path, no_browser in ((None, False), (Path("books"), True)):
        with pytest.raises(SystemExit):
            lab.run(argparse.Namespace(path=path, port=8899, no_browser=no_browser))
    assert became == [
        lab.lab_command(installed / lab.STARTER, 8899, browser=True),
        lab.lab_command(installed / "books", 8899, browser=False),
    ]
