"""Texts of a data set that the ``datasets`` library streams, from the hub or from a folder of its files."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from sae_widget.activations.base import ModelLoadError
from sae_widget.activations.corpus import STREAM
from sae_widget.activations.hub import is_repo
from sae_widget.activations.probe import ask_hub

if TYPE_CHECKING:
    from collections.abc import Iterator

_OFFLINE = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE")
_TRUE = {"1", "ON", "YES", "TRUE"}
_LIKELY = ("text", "content", "document", "body")
"""Columns that are taken before any other when none is named."""


class Stream(NamedTuple):
    """The parts of ``datasets:owner/name[:config][:split][:column]``; what is empty is left to choose."""

    name: str
    config: str = ""
    split: str = "train"
    column: str = ""

    @property
    def folder(self) -> Path | None:
        """The folder on this machine, unless it is a name on the hub."""
        path = Path(self.name).expanduser()
        return path if path.is_dir() else None


def parse_stream(name: str) -> Stream:
    """Take the name of a stream apart; an empty part is the default: ``datasets:owner/name:::body``.

    Raises:
        ValueError: it cannot be one.
    """
    parts = name.removeprefix(STREAM).split(":")
    stream = Stream(parts[0], *(part or default for part, default in zip(parts[1:4], ("", "train", ""), strict=False)))
    if len(parts) > 4 or not parts[0].strip() or not (is_repo(stream.name) or stream.folder):
        raise ValueError(
            f"there is no corpus {name[:100]!r}: write 'datasets:owner/name', or with its parts "
            "'datasets:owner/name:config:split:column'."
        )
    return stream


def stream_texts(name: str) -> Iterator[str]:
    """The texts of a data set, one row after the other, without its download as a whole.

    Args:
        name: ``datasets:owner/name[:config][:split][:column]``. The split is ``train`` unless another is named, the
            column the first of text, content, document, body or any other that holds strings.

    Raises:
        ValueError: the library is not installed or the data set cannot be had or has no such column, in a sentence.
    """
    stream = parse_stream(name)
    column = stream.column
    for number, row in enumerate(_rows(stream)):
        column = column or _column_of(row, name)
        if column not in row:
            raise ValueError(f"{name} has no column {column!r}; it has {', '.join(map(repr, row))[:200]}.")
        text = row[column]
        if text is None:
            continue
        if not isinstance(text, str):
            kind = type(text).__name__
            raise ValueError(f"column {column!r} of {name} holds {kind} and not text, in row {number:,}.")
        yield text


def _column_of(row: dict[str, Any], name: str) -> str:
    columns = [*_LIKELY, *row]
    for column in columns:
        if isinstance(row.get(column), str):
            return column
    raise ValueError(f"{name} has no column of text; it has {', '.join(map(repr, row))[:200]}.")


def _rows(stream: Stream) -> Iterator[dict[str, Any]]:
    try:
        import datasets
    except ImportError as error:
        raise ValueError(
            "The library `datasets` is not installed, so its data sets cannot be read. Nothing was read; "
            'install it with `pip install "sae-widget[datasets]"`, or choose a text file.'
        ) from error
    if stream.folder is None:
        _reach(stream.name)
    try:
        found = datasets.load_dataset(stream.name, stream.config or None, split=stream.split, streaming=True)
        yield from found
    except GeneratorExit:
        raise
    except Exception as error:  # the library raises whatever its readers and the network do
        words = " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__
        raise ValueError(
            f"{stream.name} could not be read as a data set: {words}. "
            "Check its name, config and split, or choose another corpus."
        ) from error


def _reach(name: str) -> None:
    """Say within seconds that there is no network: the library itself waits for minutes."""
    if any(os.environ.get(variable, "").upper() in _TRUE for variable in _OFFLINE):
        raise ValueError(
            f"{name} cannot be streamed: {' or '.join(_OFFLINE)} forbids connections. Choose a text file instead."
        )
    try:
        ask_hub(name, threading.Event(), "dataset")
    except ModelLoadError as error:
        raise ValueError(str(error)) from error
