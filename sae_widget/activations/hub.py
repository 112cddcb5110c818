"""Model files of the hub: found in its cache without a connection, or downloaded with deadlines and Cancel."""

from __future__ import annotations

import os
import re
from pathlib import Path

from sae_widget.activations.base import ModelLoadError
from sae_widget.activations.weights import INDEX, WEIGHTS, shard_names

KNOWN_SIZES = {
    "gpt2": 548_000_000,
    "gpt2-medium": 1_520_000_000,
    "gpt2-large": 3_250_000_000,
    "gpt2-xl": 6_430_000_000,
    "distilgpt2": 353_000_000,
    "EleutherAI/pythia-70m": 166_000_000,
    "EleutherAI/pythia-160m": 375_000_000,
    "EleutherAI/pythia-410m": 911_000_000,
    "EleutherAI/pythia-1b": 2_090_000_000,
    "EleutherAI/pythia-1.4b": 2_930_000_000,
}
"""Bytes of the weights of some models, rounded: what "Load" will download."""

_ORGANISATIONS = {"distilgpt2": "distilbert"}
_REPO = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}(/[A-Za-z0-9._-]{1,96})?")


def check_repo(name: str) -> str:
    """A name on the hub, or ``ModelLoadError`` when it cannot be one."""
    if not _REPO.fullmatch(name) or ".." in name or "--" in name:
        raise ModelLoadError(
            f"{name[:100]!r} is neither 'bundled', nor a directory, nor a name on the hub such as 'gpt2'. "
            "Nothing was loaded."
        )
    return name


def cache_folder() -> Path:
    """The hub's cache, from the same variables that ``huggingface_hub`` reads."""
    for variable, below in (("HF_HUB_CACHE", ""), ("HUGGINGFACE_HUB_CACHE", ""), ("HF_HOME", "hub")):
        if os.environ.get(variable):
            return Path(os.path.expandvars(os.environ[variable])).expanduser() / below
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.path.expandvars(base)).expanduser() / "huggingface" / "hub"


def cached_snapshot(repo: str) -> Path | None:
    """The directory of a complete cached copy, or ``None``. Opens no connection."""
    for name in _names(repo):
        folder = cache_folder() / ("models--" + name.replace("/", "--"))
        try:
            reference = folder / "refs" / "main"
            snapshots = [folder / "snapshots" / reference.read_text().strip()] if reference.is_file() else []
            snapshots += sorted(
                (folder / "snapshots").glob("*"), key=lambda p: p.stat().st_mtime, reverse=True
            )
            for snapshot in snapshots:
                if is_complete(snapshot):
                    return snapshot
        except OSError:
            continue
    return None


def is_complete(snapshot: Path) -> bool:
    """Whether config, tokenizer and safetensors weights are all there (their content is not looked at)."""
    has_tokenizer = (snapshot / "tokenizer.json").is_file() or (
        (snapshot / "vocab.json").is_file() and (snapshot / "merges.txt").is_file()
    )
    if not (snapshot / "config.json").is_file() or not has_tokenizer:
        return False
    if (snapshot / WEIGHTS).is_file():
        return True
    try:
        return (snapshot / INDEX).is_file() and all(
            (snapshot / n).is_file() for n in shard_names(snapshot / INDEX, "")
        )
    except ModelLoadError:
        return False


def gpt2_is_cached() -> bool:
    """Whether GPT-2 (small) can be loaded without a connection."""
    return cached_snapshot("gpt2") is not None


def _names(repo: str) -> tuple[str, ...]:
    """The ids under which the hub may have stored a model: GPT-2's short names are moved ones."""
    if "/" in repo:
        owner, short = repo.split("/", 1)
        is_moved = short in KNOWN_SIZES and owner == _ORGANISATIONS.get(short, "openai-community")
        return (repo, short) if is_moved else (repo,)
    if repo in KNOWN_SIZES:
        return (repo, f"{_ORGANISATIONS.get(repo, 'openai-community')}/{repo}")
    return (repo,)


def download(repo: str, *, deadline: float, progress: object, cancel: object) -> Path:
    """Say that nothing is downloaded."""
    raise ModelLoadError(f"{repo} is not on this machine; give a directory instead.")
