"""The error and the names that every part of reading and writing shares."""

from __future__ import annotations

CONFIG, WEIGHTS, STATS = "cfg.json", "sae_weights.safetensors", "stats.safetensors"


class SaeFileError(Exception):
    """A folder with an SAE could not be read or written; the message is a sentence for the person."""


def unreadable(what: str, why: str) -> SaeFileError:
    """The error of a file that cannot be loaded."""
    return SaeFileError(f"{what}: {why}. Nothing was loaded, and what you have is unchanged.")
