"""``sae-widget lab``: JupyterLab with the quickstart open."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from sae_widget.cli.base import Refused

if TYPE_CHECKING:
    import argparse

STARTER = "sae-widget-quickstart.ipynb"
_STARTER_CELLS = (
    "from sae_widget import SuperpositionExplorer",
    "# Type a text, choose a layer, press Train, click a feature.\nexplorer = SuperpositionExplorer()\nexplorer",
    "explorer.selected_feature, explorer.sae",
)


def run(args: argparse.Namespace) -> int:
    """Serve a notebook or a folder; on POSIX this process becomes JupyterLab."""
    if importlib.util.find_spec("jupyterlab") is None:
        raise Refused("JupyterLab is not installed. Install it with: pip install 'sae-widget[lab]'")
    command = lab_command(args.path or quickstart(), args.port, browser=not args.no_browser)
    if os.name == "posix":  # JupyterLab takes this process's place, and with it its Ctrl-C
        sys.stdout.flush()
        os.execv(command[0], command)
    return subprocess.call(command)


def lab_command(path: Path, port: int, *, browser: bool) -> list[str]:
    """The command that serves a notebook's folder, or a folder, with JupyterLab open at it.

    Raises:
        ValueError: there is no such file or folder, or no such port.
    """
    if not path.exists():
        raise ValueError(f"there is no notebook or folder {str(path)!r}.")
    if not 1 <= port <= 65_535:
        raise ValueError(f"port must be between 1 and 65,535, got {port}")
    folder, page = (path, "/lab") if path.is_dir() else (path.parent, f"/lab/tree/{quote(os.fsencode(path.name))}")
    command = [sys.executable, "-m", "jupyterlab", f"--ServerApp.root_dir={folder.resolve()}"]
    command += [f"--LabApp.default_url={page}", f"--ServerApp.port={port}"]
    if not browser:
        command.append("--no-browser")
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command.append("--allow-root")  # in a container there is often nobody else
    return command


def quickstart() -> Path:
    """The quickstart notebook: of the checkout, else a small one that is written into this folder."""
    name = Path("notebooks") / "00_quickstart.ipynb"
    for root in (Path(), Path(__file__).parents[2]):
        if (root / name).is_file():
            return root / name
    starter = Path(STARTER)
    if not starter.exists():
        cells: list[dict[str, object]] = [
            {"cell_type": "code", "metadata": {}, "execution_count": None, "outputs": [], "source": source}
            for source in _STARTER_CELLS
        ]
        notebook = {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 4}
        starter.write_text(json.dumps(notebook, indent=1), encoding="utf-8")
        print(f"Wrote {starter.resolve()}")
    return starter
