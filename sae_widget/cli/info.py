"""``sae-widget info``: what is installed, and what would keep the widget from showing."""

from __future__ import annotations

import importlib.util
import platform
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from sae_widget import __version__

if TYPE_CHECKING:
    import argparse

LIBRARIES = (
    "torch",
    "transformers",
    "safetensors",
    "numpy",
    "ipywidgets",
    "bqplot",
    "anywidget",
    "ipykernel",
)


def run(_args: argparse.Namespace) -> int:
    """Print versions, memory and what is missing; the status is 1 when something is."""
    from sae_widget.memory import free_memory

    print(f"sae-widget     {__version__}")
    print(f"Python         {platform.python_version()} on {platform.system()} {platform.machine()}")
    for name in (*LIBRARIES, "jupyterlab"):
        print(f"{name:<14} {_version(name)}")
    print(f"free memory    {free_memory() / 1e9:.1f} GB (15 % of what there is kept free)")
    from sae_widget.activations.hub import gpt2_is_cached

    cached = "on this machine" if gpt2_is_cached() else "not on this machine; asking for it loads 548 MB"
    print(f"GPT-2          {cached}")
    problems = diagnose()
    for problem in problems:
        print(f"problem        {problem}")
    if not problems:
        print("problems       none found")
    return 1 if problems else 0


def diagnose() -> list[str]:
    """What would keep the widget from showing, each as a sentence with its remedy."""
    problems = [f"{name} is not installed. Run: pip install sae-widget" for name in LIBRARIES if not _found(name)]
    if _version("ipykernel").startswith("7.0."):
        problems.append("ipykernel 7.0 loses clicks while a cell runs. Run: pip install -U ipykernel")
    if not _found("jupyterlab"):
        problems.append("JupyterLab is not installed in this Python. Run: pip install 'sae-widget[lab]'")
    else:
        from jupyter_core.paths import jupyter_path

        for name in ("@jupyter-widgets/jupyterlab-manager", "bqplot", "anywidget"):
            if not any((Path(folder) / name).is_dir() for folder in jupyter_path("labextensions")):
                problems.append(
                    f"JupyterLab does not find the front end of {name}; its widgets would stay blank. "
                    "Install sae-widget into the same Python as JupyterLab, and start JupyterLab again."
                )
    model = Path(__file__).parents[1] / "bundled" / "model" / "config.json"
    if not model.is_file():
        problems.append("The bundled model is missing from this installation. Install sae-widget again.")
    return problems


def _found(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"
