"""Published SAEs by the name of their release: from the hub's cache, or downloaded into it."""

from __future__ import annotations

import difflib
import re
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

from sae_widget.activations.base import LoadCancelled, ModelLoadError
from sae_widget.activations.hub import cached_folder, download_folder, is_repo
from sae_widget.activations.probe import RETRY
from sae_widget.checkpoint.base import CONFIG, WEIGHTS, SaeFileError
from sae_widget.checkpoint.dictionaries import DICTIONARY, DICTIONARY_CONFIG
from sae_widget.checkpoint.folder import load_sae
from sae_widget.checkpoint.releases import RELEASES, Release
from sae_widget.checkpoint.sparsify import SPARSIFY_WEIGHTS

if TYPE_CHECKING:
    from collections.abc import Callable

    from sae_widget.sae import SAE

LAYOUTS = ((CONFIG, WEIGHTS), (CONFIG, SPARSIFY_WEIGHTS), (DICTIONARY_CONFIG, DICTIONARY))
"""Files that a folder with an SAE has, settings first."""
_FOLDER = re.compile(r"[\w.:+=-]{1,128}(/[\w.:+=-]{1,128}){0,7}", re.ASCII)
_KEPT = "Nothing was loaded, and what you have is unchanged."


def load_release(
    release: str,
    sae_id: str = "",
    *,
    d_in: int | None = None,
    deadline: float = 60.0,
    progress: Callable[[int, int | None], None] | None = None,
    cancel: threading.Event | None = None,
) -> SAE:
    """Read a published SAE by the names that SAELens uses.

    ``load_release("gpt2-small-res-jb", "blocks.8.hook_resid_pre")`` is one of 24,576 features.
    A release that was trained on centred activations (``gpt2-small-res-jb`` and others) comes with
    ``normalize_activations="center"``, so that it can be given a model's activations as they are. Only the files of
    the one SAE are downloaded; what is in the hub's cache is read without a connection.

    Args:
        release: a name in ``RELEASES``, or ``owner/name`` of any repository on the hub.
        sae_id: the id of the SAE in the release; in a repository, the folder that it lies in.
        d_in: width of the model that it is for, when that is known.
        deadline: seconds without a byte after which a download is given up.
        progress: called about five times a second with the bytes that have come and their total.
        cancel: ends the download at once when set.

    Raises:
        SaeFileError: no such release or SAE, the hub cannot be reached, or the file is damaged.
        LoadCancelled: ``cancel`` was set.
    """
    known, folder = _find(release, sae_id)
    try:
        found = cached_folder(known.repo, folder, LAYOUTS) or download_folder(
            known.repo, folder, LAYOUTS, deadline=deadline, progress=progress, cancel=cancel or threading.Event()
        )
    except LoadCancelled:
        raise
    except ModelLoadError as error:
        raise SaeFileError(str(error).replace(RETRY, "Try again when the network is back.")) from error
    return _as_released(load_sae(found, d_in=d_in), release, sae_id, known)


def _find(release: str, sae_id: str) -> tuple[Release, str]:
    """Where an SAE lies: its release, and the folder in its repository."""
    known = RELEASES.get(release)
    if known is None:
        if "/" not in release or not is_repo(release):
            near = difflib.get_close_matches(release, RELEASES, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(RELEASES)}, and owner/name."
            raise SaeFileError(f"There is no release {release[:80]!r}: {hint} {_KEPT}")
        if sae_id and (not _FOLDER.fullmatch(sae_id) or set(sae_id.split("/")) & {".", ".."}):
            raise SaeFileError(f"{sae_id[:80]!r} is no folder of a repository. {_KEPT}")
        return Release(release, {}), sae_id
    if known.refused:
        raise SaeFileError(f"{release} cannot be read: {known.refused}. {_KEPT}")
    if sae_id not in known.folders:
        near = difflib.get_close_matches(sae_id, known.folders, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(known.folders)}."
        raise SaeFileError(f"{release} has no SAE {sae_id[:80]!r}: {hint} {_KEPT}")
    return known, known.folders[sae_id]


def _as_released(sae: SAE, release: str, sae_id: str, known: Release) -> SAE:
    """The SAE with what its release says besides the file."""
    metadata = {**sae.metadata, "release": release, "sae_id": sae_id}
    if known.folders:
        metadata.setdefault("model_name", "gpt2")
    way = "center" if known.centred and sae.normalize_activations == "none" else sae.normalize_activations
    scale = sae.scale * known.factors.get(sae_id, 1.0)
    return replace(sae, normalize_activations=way, scale=scale, metadata=metadata)
