"""The error and the names that every part of reading and writing shares."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError

CONFIG, WEIGHTS, STATS = "cfg.json", "sae_weights.safetensors", "stats.safetensors"
TRAINING, TRAINING_INFO = "training_state.safetensors", "training_state.json"


class SaeFileError(Exception):
    """A folder with an SAE could not be read or written; the message is a sentence for the person."""


def printable(words: str) -> str:
    """Words out of a file that stay on one line and mean nothing to a terminal."""
    return "".join(sign if sign.isprintable() else "?" for sign in words)


def unreadable(what: str, why: str) -> SaeFileError:
    """The error of a file that cannot be loaded."""
    return SaeFileError(f"{printable(f'{what}: {why}')}. Nothing was loaded, and what you have is unchanged.")


def first_fault(error: ValidationError) -> str:
    """The first field that is wrong and why, without what was given: that may be anything."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    where = ".".join(str(part) for part in first["loc"]) or "the file"
    message = first["msg"].removeprefix("Value error, ")
    return f"{where[:80]}: {message[:1].lower()}{message[1:160].rstrip('.')}"


def folder_of(path: str | Path) -> Path:
    """A folder's path, or ``SaeFileError`` for one that no system can have."""
    if "\0" in str(path):
        raise SaeFileError("The path has a NUL character in it. Nothing was read or written.")
    try:
        os.fsencode(path)
    except UnicodeEncodeError as error:
        raise SaeFileError("The path has half a character in it. Nothing was read or written.") from error
    return Path(path)


def reason(error: OSError) -> str:
    """What the system says, with the name of the file and nothing of where it is."""
    name = f" ({Path(error.filename).name})" if isinstance(error.filename, str) and error.filename else ""
    return f"{(error.strerror or str(error)).lower()}{name}"
