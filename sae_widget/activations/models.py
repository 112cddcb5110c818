"""Language models by name: bundled, from a directory, or from the hub."""

from __future__ import annotations

import importlib.resources
import re
import threading
import weakref
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sae_widget.activations import hub
from sae_widget.activations.adapters import adapter_for
from sae_widget.activations.base import LanguageModel, LoadCancelled, ModelLoadError
from sae_widget.activations.families import FAMILIES, Family, Sizes, check_config, read_config
from sae_widget.activations.hub import gpt2_is_cached
from sae_widget.activations.weights import check_weights, weight_files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["gpt2_is_cached", "language_model", "load_model"]

BUNDLED_LABEL = "the bundled model"
MAX_UNUSED_IDS = (
    1024  # models pad their vocabulary to a round number, so it may be a little larger than the tokenizer's
)

_LOADED: weakref.WeakValueDictionary[tuple[Any, ...], LanguageModel] = weakref.WeakValueDictionary()
_BUILDING = threading.Lock()  # transformers keeps its progress bars and its log level for the whole process
_BLOCK_TENSOR = re.compile(r"(^|\.)(h|layers)\.\d+\.")


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
    except LoadCancelled:
        raise
    except ModelLoadError as error:
        if "damaged" not in str(error):
            raise
        raise ModelLoadError(
            f"The cached copy of {name} is damaged. Delete {snapshot.parent.parent} and load it again. ({error})"
        ) from error


def bundled_folder() -> Path:
    """Where the bundled model lies inside the installed package."""
    folder = Path(str(importlib.resources.files("sae_widget"))) / "bundled" / "model"
    if not (folder / "config.json").is_file():
        raise ModelLoadError("The bundled model is missing from this installation. Install sae_widget again.")
    return folder


def language_model(network: Any, tokenizer: Any, name: str, label: str | None = None) -> LanguageModel:
    """Wrap a ``transformers`` model and its tokenizer that are already in memory.

    Args:
        network: a causal language model of a supported family; it is put into eval mode.
        tokenizer: its tokenizer.
        name: what to call it; ``label`` is what a person sees.

    Raises:
        ModelLoadError: unknown family, or a tokenizer of another vocabulary.
    """
    label = label or name
    adapter = adapter_for(network)
    family, sizes = check_config(network.config.to_dict(), label)
    _check_vocabulary(tokenizer, sizes, label)
    network.eval()
    bos_id = tokenizer.bos_token_id
    if bos_id is None:
        bos_id = getattr(network.config, "bos_token_id", None)
    if not isinstance(bos_id, int) or not 0 <= bos_id < sizes.vocab_size:
        bos_id = None
    return LanguageModel(
        name=name,
        label=label,
        network=network,
        tokenizer=tokenizer,
        adapter=adapter,
        d_in=sizes.d_in,
        n_layer=sizes.n_layer,
        n_positions=sizes.n_positions,
        vocab_size=sizes.vocab_size,
        bos_id=bos_id,
        device=str(next(network.parameters()).device),
    )


def _local_folder(name_or_path: str | Path) -> Path | None:
    """The directory that is meant, or ``None`` for a name on the hub."""
    name = str(name_or_path)
    try:
        path = Path(name).expanduser()
        if path.is_dir():
            return path.resolve()
        is_file = path.is_file()
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelLoadError(f"{name[:100]!r} is not a path that can be read. Nothing was loaded.") from error
    if is_file:
        raise ModelLoadError(
            f"{name} is a file; give the directory that holds config.json and model.safetensors."
        )
    if (
        isinstance(name_or_path, Path)
        or name.startswith((".", "/", "~", "\\"))
        or name.count("/") > 1
        or "\\" in name
    ):
        raise ModelLoadError(f"There is no directory {name}. Check the path; nothing was loaded.")
    return None


def _load_folder(folder: Path, name: str, label: str, cancel: threading.Event) -> LanguageModel:
    """Check a model directory, then build it once for everybody who asks for it."""
    try:
        config = read_config(folder / "config.json", label)
        family, sizes = check_config(config, label)
        tokenizer_config = folder / "tokenizer_config.json"
        if tokenizer_config.is_file() and read_config(tokenizer_config, label).get("auto_map"):
            raise ModelLoadError(
                f"{label} brings its own tokenizer code, which is never run. Choose another model."
            )
        files = weight_files(folder, label)
        check_weights(files, sizes, label)
        key = (
            str(folder),
            *((f.name, s.st_size, s.st_mtime_ns) for f in sorted(folder.iterdir()) for s in [f.stat()]),
        )
    except OSError as error:
        raise ModelLoadError(
            f"{label} cannot be read: {error.strerror or error}. Nothing was loaded."
        ) from error

    def build() -> LanguageModel:
        with _BUILDING:
            found = _LOADED.get(key)
            if found is None and not cancel.is_set():
                found = _LOADED[key] = _build(folder, config, family, name, label)
        if found is None:
            raise LoadCancelled(f"Loading {label} was cancelled.")
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
            raise LoadCancelled(f"Loading {label} was cancelled. What was loaded before is kept.")
    if isinstance(outcome[0], BaseException):
        raise outcome[0]
    return outcome[0]


def _build(folder: Path, config: dict[str, Any], family: Family, name: str, label: str) -> LanguageModel:
    import torch
    import transformers

    network_class = getattr(transformers, family.class_name)
    try:
        with _quiet_transformers(), torch.random.fork_rng(devices=[]):
            network, info = network_class.from_pretrained(
                str(folder),
                config=network_class.config_class.from_dict(config),
                dtype=torch.float32,
                attn_implementation="sdpa",
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
                output_loading_info=True,
            )
    except Exception as error:
        raise ModelLoadError(
            f"{label}: the weights do not fit config.json ({_why(error)}). Nothing was loaded."
        ) from error
    _check_loading_info(info, label)
    tokenizer = _load_tokenizer(folder, config, label)
    return language_model(network.eval().requires_grad_(False), tokenizer, name, label)


def _check_loading_info(info: Any, label: str) -> None:
    """Refuse what ``transformers`` only warns about: weights that are missing (filled at random) or left over."""
    missing = sorted(info["missing_keys"])
    mismatched = sorted(str(key) for key in info.get("mismatched_keys") or ())
    left_over = sorted(key for key in info["unexpected_keys"] if _BLOCK_TENSOR.search(key))
    for keys, what in ((mismatched, "of another shape"), (missing, "missing"), (left_over, "left over")):
        if keys:
            raise ModelLoadError(
                f"{label}: {len(keys)} of its weights are {what}, {keys[0]} first, so the files are not this "
                "architecture's or not complete. Nothing was loaded."
            )


def _load_tokenizer(folder: Path, config: dict[str, Any], label: str) -> Any:
    import transformers

    if (folder / "tokenizer.json").is_file():
        tokenizer_class = transformers.PreTrainedTokenizerFast
    elif (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
        tokenizer_class = transformers.GPT2TokenizerFast
    else:
        raise ModelLoadError(f"{label} has no tokenizer (tokenizer.json, or vocab.json and merges.txt).")
    try:
        with _quiet_transformers():
            tokenizer = tokenizer_class.from_pretrained(
                str(folder), local_files_only=True, trust_remote_code=False
            )
    except Exception as error:
        raise ModelLoadError(
            f"{label}: its tokenizer is damaged ({_why(error)}). Nothing was loaded."
        ) from error
    for role in ("bos_token", "eos_token"):
        token_id = config.get(f"{role}_id")
        if getattr(tokenizer, role) is None and isinstance(token_id, int):
            setattr(tokenizer, role, tokenizer.convert_ids_to_tokens(token_id))
    return tokenizer


def _check_vocabulary(tokenizer: Any, sizes: Sizes, label: str) -> None:
    if not getattr(tokenizer, "is_fast", False):
        raise ModelLoadError(
            f"{label} has a tokenizer without character positions (not a fast one), which cannot be read."
        )
    known = max(tokenizer.get_vocab().values(), default=-1) + 1
    if known > sizes.vocab_size or known < sizes.vocab_size - MAX_UNUSED_IDS:
        raise ModelLoadError(
            f"{label}: the tokenizer knows {known:,} tokens and the model {sizes.vocab_size:,}, so they do not belong "
            "together. Nothing was loaded."
        )


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """No progress bars and no warnings of ``transformers``; its settings are put back afterwards."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _why(error: BaseException) -> str:
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0][:160]}" if lines else type(error).__name__
