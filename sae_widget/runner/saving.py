"""What is shown, written into a folder: any that Python names, or a new one by a name that was typed in the page."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from sae_widget.checkpoint import SaeFileError, save_sae
from sae_widget.checkpoint.base import reason
from sae_widget.runs import FORM, describe_shown, write_explorer

if TYPE_CHECKING:
    from sae_widget.features import Features
    from sae_widget.state import ExplorerState

SAVED = "saes"
"""The folder, beside the notebook, that the page saves in; it reaches no other."""
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,78}[A-Za-z0-9_-])?")
_DEVICES = {"con", "prn", "aux", "nul", *(f"{kind}{n}" for kind in ("com", "lpt") for n in range(1, 10))}
"""Names that Windows gives to no file, whatever ending they have."""


def write_shown(state: ExplorerState, folder: str | os.PathLike[str]) -> Features:
    """Write the SAE that is shown, its statistics, the text, the recipe and the names; returns what was shown.

    Args:
        state: of the explorer.
        folder: made when it does not exist.

    Raises:
        ValueError: there is no SAE yet.
        SaeFileError: it could not be written.
    """
    features = state.features
    if features is None:
        raise ValueError("there is no SAE to save yet: train one first")
    form = {name: getattr(state, name) for name in FORM}
    saved = describe_shown(features, state.activations, state.settings, state.feature_names, form)
    path = Path(folder)
    save_sae(features.sae, path, None if features.stats is None else features.stats.tensors())
    write_explorer(path, saved)
    return features


def save_named(state: ExplorerState) -> str:
    """Write what is shown into a new folder in ``saes``, named as the page asks; returns where and what, in words.

    Raises:
        SaeFileError: for a name that is none or that is taken, without an SAE, or when it could not be written.
    """
    name = state.save_as.strip()
    if state.features is None:
        raise SaeFileError("There is no SAE to save yet: train one first.")
    if not name:
        raise SaeFileError("Type a name first. Nothing was saved.")
    if not _NAME.fullmatch(name):
        raise SaeFileError(
            "A name has 1 to 80 letters (a to z), digits, dots, dashes and underscores; it begins with a letter or a "
            "digit and does not end with a dot. Nothing was saved."
        )
    if name.split(".")[0].lower() in _DEVICES:
        raise SaeFileError(f"Windows keeps the name {name} for a device: choose another. Nothing was saved.")
    folder = Path(SAVED) / name
    try:
        folder.parent.mkdir(exist_ok=True)
        if os.path.lexists(folder):
            raise SaeFileError(f"There is something named {folder} already. It was kept: choose another name.")
        folder.mkdir()
    except OSError as error:
        raise SaeFileError(f"{folder} could not be made: {reason(error)}. Nothing was saved.") from error
    try:
        features = write_shown(state, folder)
    except BaseException as error:
        shutil.rmtree(folder, ignore_errors=True)  # it was new, and holds at most a part
        if isinstance(error, SaeFileError) and isinstance(error.__cause__, OSError):
            why = reason(error.__cause__)
            raise SaeFileError(f"{folder} could not be written: {why}. Nothing was saved: save it again.") from error
        raise
    return f"{folder}: {features.source}"
