"""The program that downloads a model or one folder of a repository, in a process of its own that can be killed.

``huggingface_hub`` has calls without a time limit. This process reports in JSON lines on its standard output:
``{"total": bytes}``, then ``{"snapshot": path}``, or ``{"fault": kind, ...}``; it ends when its standard
input is closed, so that it never outlives who started it. It never imports torch.
"""

from __future__ import annotations

import errno
import json
import os
import sys
import threading
from pathlib import Path
from typing import Any

from sae_widget.activations.base import ModelLoadError
from sae_widget.activations.families import check_config, read_config
from sae_widget.activations.weights import INDEX, PICKLE_SUFFIXES, WEIGHTS, pickle_sentence, shard_names

SMALL_FILES = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
)

PINNED = dict.fromkeys(("gpt2", "openai-community/gpt2"), "607a30d783dfa663caf39e06633721c8d4cfcd7e")
"""The commit of the models that the interface itself offers, so that everybody who asks for one gets the same."""

FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
"""What a full disk says, and one of which nobody may take more."""

CHUNK_BYTES = 65_536
"""Written at a time; with the library's 10 MB a slow network looks like a silent one for minutes."""


def main(repo: str, folder: str = "", layouts: str = "") -> None:
    """Download ``repo``, or with ``layouts`` the files of one of them in ``folder``, into the hub's cache; report."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        report(snapshot=str(_fetch_folder(repo, folder, json.loads(layouts)) if layouts else _fetch(repo)))
    except ModelLoadError as error:
        report(fault="refused", sentence=str(error))
    except Exception as error:  # noqa: BLE001 - whatever it is, the other process has to be told
        report(**describe(error))


def describe(error: BaseException) -> dict[str, Any]:
    """What happened, found in an exception or in what caused it; no text that could hold a token."""
    seen: BaseException | None = error
    while seen is not None:
        response = getattr(seen, "response", None)
        if response is not None:
            return {
                "fault": "http",
                "status": response.status_code,
                "code": response.headers.get("X-Error-Code", ""),
            }
        if isinstance(seen, OSError) and seen.errno is not None and seen.filename is not None:
            return {"fault": "disk", "errno": seen.errno, "words": seen.strerror or ""}
        if isinstance(seen, OSError) and seen.errno in FULL:  # on write it carries no file name
            return {"fault": "disk", "errno": seen.errno, "words": seen.strerror or ""}
        seen = seen.__cause__ or seen.__context__
    return {"fault": "network", "words": type(error).__name__}


def report(**line: Any) -> None:
    """One JSON line for the process that waits."""
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def _fetch(repo: str) -> Path:
    from huggingface_hub import HfApi, constants, hf_hub_download

    constants.DOWNLOAD_CHUNK_SIZE = CHUNK_BYTES
    commit = PINNED.get(repo)
    files = HfApi().model_info(repo, revision=commit, files_metadata=True, timeout=10).siblings or []
    sizes = {file.rfilename: file.size or 0 for file in files}
    if "config.json" not in sizes:
        raise ModelLoadError(f"{repo} has no config.json, so it is not a language model. Nothing was loaded.")
    config = Path(hf_hub_download(repo, "config.json", revision=commit))
    check_config(read_config(config, repo), repo)
    weights = _weights(repo, sizes, commit)
    wanted = [name for name in SMALL_FILES if name in sizes] + weights
    report(total=sum(sizes[name] for name in wanted))
    for name in wanted:
        hf_hub_download(repo, name, revision=commit)
    return config.parent


def _fetch_folder(repo: str, folder: str, layouts: list[list[str]]) -> Path:
    from huggingface_hub import HfApi, constants, hf_hub_download

    constants.DOWNLOAD_CHUNK_SIZE = CHUNK_BYTES
    files = HfApi().model_info(repo, files_metadata=True, timeout=10).siblings or []
    sizes = {file.rfilename: file.size or 0 for file in files}
    below = f"{folder}/" if folder else ""
    for names in layouts:
        wanted = [f"{below}{name}" for name in names]
        if all(name in sizes for name in wanted):
            report(total=sum(sizes[name] for name in wanted))
            return [Path(hf_hub_download(repo, name)) for name in wanted][-1].parent
    raise ModelLoadError(_nothing_there(repo, folder, sorted(name for name in sizes if name.startswith(below)), sizes))


def _nothing_there(repo: str, folder: str, found: list[str], sizes: dict[str, int]) -> str:
    if not found:
        folders = sorted({name.rpartition("/")[0] for name in sizes} - {""})
        told = ", ".join(folders[:8]) + (f" and {len(folders) - 8} more" if len(folders) > 8 else "")
        return f"{repo} has no folder {folder!r}; it has {told or 'no folders'}. Nothing was loaded."
    where = f"{repo}/{folder}" if folder else repo
    if any(Path(name).suffix in PICKLE_SUFFIXES for name in found):
        return f"{where} has its SAE only as a pickle, which can run code; it is not read. Nothing was loaded."
    return f"{where} has no SAE in a layout that is known; it has {', '.join(found[:6])}. Nothing was loaded."


def _weights(repo: str, sizes: dict[str, int], commit: str | None) -> list[str]:
    from huggingface_hub import hf_hub_download

    if WEIGHTS in sizes:
        return [WEIGHTS]
    if INDEX in sizes:
        names = shard_names(Path(hf_hub_download(repo, INDEX, revision=commit)), repo)
        if all(name in sizes for name in names):
            return [INDEX, *names]
    elif any(Path(name).suffix in PICKLE_SUFFIXES for name in sizes):
        raise ModelLoadError(pickle_sentence(repo))
    raise ModelLoadError(f"{repo} has no complete safetensors weights. Nothing was loaded.")


def _end_with_parent() -> None:
    try:
        # Not through the buffer: its lock would be held when this process ends.
        while os.read(sys.stdin.fileno(), 1024):
            pass
    finally:
        os._exit(1)
