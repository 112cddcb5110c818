"""Every trained SAE goes to disk by itself, so that a restarted kernel or a new run loses nothing."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sae_widget.checkpoint import SaeFileError, load_sae, load_stats, save_sae

if TYPE_CHECKING:
    from sae_widget.config import TrainConfig
    from sae_widget.features import FeatureStats
    from sae_widget.sae.base import SAE

KEEP = 10
"""Saved runs that are kept; older ones are removed."""
_NUMBER = itertools.count(1)


@dataclass(frozen=True)
class SavedRun:
    """One automatically saved run: where it lies, when it was saved (seconds since 1970), what it was."""

    path: Path
    saved: float
    info: dict[str, Any]


def autosave_folder() -> Path:
    """Where runs are saved: ``$SAE_WIDGET_HOME``, else the user's data folder."""
    home = os.environ.get("SAE_WIDGET_HOME")
    if home:
        return Path(home) / "runs"
    from platformdirs import user_data_path

    return user_data_path("sae_widget", appauthor=False) / "runs"


def autosave(sae: SAE, stats: FeatureStats | None, settings: TrainConfig, name: str) -> Path:
    """Save one run, readable by its owner only, and remove the oldest beyond ``KEEP``.

    Args:
        sae: the trained SAE.
        stats: what its features do.
        settings: the recipe.
        name: of the run; saving again under the same name replaces it.
    """
    folder = autosave_folder()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = folder / name
    path.mkdir(exist_ok=True, mode=0o700)
    save_sae(sae, path, None if stats is None else stats.tensors())
    site = {key: sae.metadata.get(key) for key in ("model_name", "layer", "hook_name")}
    info = {"settings": asdict(settings), **site}
    temporary = path / "run.json.tmp"
    temporary.write_text(json.dumps(info), encoding="utf-8")
    temporary.replace(path / "run.json")
    for old in saved_runs()[KEEP:]:
        shutil.rmtree(old.path, ignore_errors=True)
    return path


def saved_runs() -> list[SavedRun]:
    """All automatically saved runs that can be read, the newest first."""
    found = []
    folder = autosave_folder()
    for path in folder.iterdir() if folder.is_dir() else ():
        try:
            info = json.loads((path / "run.json").read_text(encoding="utf-8"))
            found.append(SavedRun(path, (path / "run.json").stat().st_mtime, dict(info)))
        except (OSError, ValueError, TypeError):
            continue  # a run that is being written, or somebody else's folder
    return sorted(found, key=lambda run: run.saved, reverse=True)


def load_run(path: Path) -> tuple[SAE, FeatureStats | None]:
    """The SAE in a folder and its statistics, where they were saved.

    Raises:
        SaeFileError: when a file of it is damaged.
    """
    from sae_widget.features import FeatureStats

    sae, tensors = load_sae(path), load_stats(path)
    if tensors is None:
        return sae, None
    try:
        stats = FeatureStats.from_tensors(tensors)
    except KeyError as fault:
        raise SaeFileError(f"the saved statistics in {path} lack {fault}") from fault
    except (ValueError, RuntimeError) as fault:  # not four numbers
        raise SaeFileError(f"the saved statistics in {path} are damaged") from fault
    if any(vector.shape != (sae.d_sae,) for vector in (stats.frequency, stats.mean, stats.max)):
        raise SaeFileError(f"the saved statistics in {path} are not of its {sae.d_sae:,} features")
    return sae, stats


def run_name() -> str:
    """A name for a run of now that sorts by time and is no other run's, not even of the same second."""
    return time.strftime("%Y%m%d-%H%M%S") + f"-{os.getpid()}-{next(_NUMBER)}"
