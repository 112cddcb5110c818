"""Language models by name: bundled, from a directory, or from the hub."""

from __future__ import annotations

import importlib.resources
import threading
import weakref
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sae_widget.activations import hub
from sae_widget.activations.base import DamagedModelError, LanguageModel, ModelLoadError
from sae_widget.activations.build import build_model
from sae_widget.activations.families import check_config, read_config
from sae_widget.activations.hub import gpt2_is_cached
from sae_widget.activations.weights import check_weights, weight_files

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["bundled_folder", "gpt2_is_cached", "load_model"]

BUNDLED_LABEL = "the bundled model"

_LOADED: weakref.WeakValueDictionary[tuple[Any, ...], LanguageModel] = weakref.WeakValueDictionary()
_BUILDING = threading.Lock()  # transformers keeps its progress bars and its log level for the whole process


def load_model(
    name_or_path: str | Path,
    *,
    deadline: float = 60.0,
    progress: Callable[[int, int | None], None] | None = None,
    cancel: threading.Event | None = None,
) -> LanguageModel:
    """Load a language model; the same files give the same network as long as somebody holds it.

    Args:
        name_or_path: ``"bundled"``, a directory in the hub's layout, or a name on the hub such as ``"gpt2"``.
            A copy in the hub's cache is used without a connection. Weights are turned to float32.
        deadline: seconds without a byte after which a download is given up.
        progress: called with the bytes that have come and their total (``None``: not known yet).
        cancel: when set, loading ends within a second.

    Raises:
        TypeError: ``name_or_path`` is neither a string nor a path.
        LoadCancelled: ``cancel`` was set.
        ModelLoadError: with a sentence for every other reason.
    """
    if not isinstance(name_or_path, (str, Path)):
        raise TypeError(f"name_or_path must be a string or a path, got {type(name_or_path).__name__}")
    name = str(name_or_path)
    cancel = cancel or threading.Event()
    if name == "bundled":
        return _load_folder(bundled_folder(), name, BUNDLED_LABEL, cancel)
    folder = _local_folder(name_or_path)
    if folder is not None:
        return _load_folder(folder, name, folder.name or name, cancel)
    repo = hub.check_repo(name)
    snapshot = hub.cached_snapshot(repo)
    if snapshot is None:
        snapshot = hub.download(repo, deadline=deadline, progress=progress, cancel=cancel)
    try:
        return _load_folder(snapshot, name, name, cancel)
    except DamagedModelError as error:
        copy = snapshot.parent.parent
        raise DamagedModelError(
            f"The cached copy of {name} is damaged. Delete {copy} and load it again. ({error})"
        ) from error


def known_blocks(name: str) -> int | None:
    """Number of blocks of a model that is on this machine, from its ``config.json`` alone.

    Args:
        name: as ``load_model`` takes it, or ``"auto"``: GPT-2 when it is in the hub's cache, else the bundled model.

    Returns:
        The number, or None where only loading can tell it; what is wrong with a model is said there as well.
    """
    try:
        if name == "auto":
            folder = hub.cached_snapshot("gpt2") or bundled_folder()
        elif name == "bundled":
            folder = bundled_folder()
        else:
            found = _local_folder(name) or hub.cached_snapshot(hub.check_repo(name))
            if found is None:
                return None
            folder = found
        return check_config(read_config(folder / "config.json", name), name)[1].n_layer
    except ModelLoadError:
        return None


def bundled_folder() -> Path:
    """Where the bundled model lies inside the installed package; ``ModelLoadError`` when it is missing."""
    folder = Path(str(importlib.resources.files("sae_widget"))) / "bundled" / "model"
    if not (folder / "config.json").is_file():
        raise ModelLoadError("The bundled model is missing from this installation. Install sae_widget again.")
    return folder


def _local_folder(name_or_path: str | Path) -> Path | None:
    """The directory that is meant, or ``None`` for a name on the hub."""
    name = str(name_or_path)
    if not name.strip():
        return None  # to pathlib it is the working directory
    is_path = isinstance(name_or_path, Path) or name.startswith((".", "/", "~")) or "\\" in name
    is_path = is_path or name.count("/") > 1 or Path(name).is_absolute()
    try:
        path = Path(name).expanduser()
        if path.is_dir() and (is_path or (path / "config.json").exists() or not hub.is_repo(name)):
            return path.resolve()
        is_file = path.is_file()
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelLoadError(f"{name[:100]!r} is not a path that can be read. Nothing was loaded.") from error
    if is_file:
        raise ModelLoadError(f"{name} is a file; give the directory of config.json and model.safetensors.")
    if is_path:
        raise ModelLoadError(f"There is no directory {name}. Check the path; nothing was loaded.")
    return None


def _load_folder(folder: Path, name: str, label: str, cancel: threading.Event) -> LanguageModel:
    """Check a model directory, then build it once for everybody who asks for it."""
    try:
        config = read_config(folder / "config.json", label)
        family, sizes = check_config(config, label)
        tokenizer_config = folder / "tokenizer_config.json"
        if tokenizer_config.is_file() and read_config(tokenizer_config, label).get("auto_map"):
            raise ModelLoadError(f"{label} brings its own tokenizer code, which is never run. Choose another.")
        check_weights(weight_files(folder, label), sizes, label)
        files = [(file.name, file.stat()) for file in sorted(folder.iterdir())]
    except OSError as error:
        raise ModelLoadError(f"{label} cannot be read: {error.strerror or error}. Nothing was loaded.") from error
    key = (str(folder), *((file, stat.st_size, stat.st_mtime_ns) for file, stat in files))

    def build() -> LanguageModel:
        with _BUILDING:
            found = _LOADED.get(key)
            if found is None and not cancel.is_set():
                found = _LOADED[key] = build_model(folder, config, family, name=name, label=label)
        if found is None:
            raise hub.cancelled(label)
        return found

    found = _LOADED.get(key) or _abandonable(build, cancel, label)
    return found if (found.name, found.label) == (name, label) else replace(found, name=name, label=label)


def _abandonable(build: Callable[[], LanguageModel], cancel: threading.Event, label: str) -> LanguageModel:
    """Run ``build`` in a thread of its own that is left to itself when the person cancels."""
    outcome: list[LanguageModel | BaseException] = []

    def work() -> None:
        try:
            outcome.append(build())
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that asked
            outcome.append(error)

    thread = threading.Thread(target=work, name="sae_widget-load", daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(0.05)
        if cancel.is_set() and thread.is_alive():
            raise hub.cancelled(label)
    if isinstance(outcome[0], BaseException):
        raise outcome[0]
    return outcome[0]
