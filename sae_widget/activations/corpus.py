"""Corpora to train on: the documentation that every Python ships, text files, folders of them, and streams."""

from __future__ import annotations

import codecs
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

PASSAGE_CHARS = 20_000
"""Longest passage that a corpus is cut into, so that a book is read a piece at a time."""
STREAM = "datasets:"
"""What the name of a stream begins with."""
READ_BYTES = 1_000_000
"""Of a file at a time."""
BOM = codecs.BOM_UTF8


def corpus_texts(name_or_path: str | Path) -> list[str]:
    """The passages of a corpus, in a fixed order, all at once; ``corpus_passages`` reads a large one bit by bit.

    Args:
        name_or_path: as in ``corpus_passages``, without the streams, of which nobody knows the end.

    Returns:
        Passages of at most ``PASSAGE_CHARS`` characters, cut between paragraphs where there are any;
        joined they are the corpus. None is only white space.

    Raises:
        TypeError: not a string or path.
        ValueError: nothing there, nothing in it, or not UTF-8; the message gives the byte at fault.
    """
    if is_stream(name_or_path):
        raise ValueError(f"{name_or_path} is a stream and not read as a whole: use sae_widget.data.open_corpus.")
    return list(corpus_passages(name_or_path))


def corpus_passages(name_or_path: str | Path) -> Iterator[str]:
    """The passages of a corpus one after the other; of a file no more than some of them are in memory.

    Args:
        name_or_path: ``"documentation"`` (the topics of ``pydoc_data``, offline everywhere), a UTF-8 text
            file, a folder whose ``.txt`` files are taken in alphabetical order, or a stream of the ``datasets``
            library: ``"datasets:owner/name[:config][:split][:column]"``.

    Yields:
        As ``corpus_texts`` returns them.

    Raises:
        TypeError: not a string or path.
        ValueError: as in ``corpus_texts``, and what ``streams.stream_texts`` says.
    """
    if not isinstance(name_or_path, (str, Path)):
        raise TypeError(f"name_or_path must be a string or a path, got {type(name_or_path).__name__}")
    if is_stream(name_or_path):
        from sae_widget.activations.streams import stream_texts

        texts = stream_texts(str(name_or_path))
        parts = (passage for text in texts for passage in passages([text]))
    elif name_or_path == "documentation":
        from pydoc_data.topics import topics

        parts = (passage for name in sorted(topics) for passage in passages([topics[name]]))
    else:
        parts = (passage for file in corpus_files(name_or_path) for passage in passages(decoded(file)))
    found = False
    for passage in parts:
        if passage.strip():
            found = True
            yield passage
    if not found:
        raise ValueError(f"{_shown(name_or_path)} has no text in it. Choose another corpus.")


def is_stream(name_or_path: object) -> bool:
    """Whether this names a data set of the ``datasets`` library."""
    return isinstance(name_or_path, str) and name_or_path.startswith(STREAM)


def _shown(name_or_path: str | Path) -> str:
    return str(name_or_path) if is_stream(name_or_path) else str(Path(name_or_path).expanduser())


def corpus_files(name_or_path: str | Path) -> list[Path]:
    """The files of a corpus in the order in which they are read; none of what is not in files. Reads nothing.

    Raises:
        ValueError: nothing is there that could be read, or the name of a stream cannot be one.
    """
    if name_or_path == "documentation":
        return []
    if is_stream(name_or_path):
        from sae_widget.activations.streams import parse_stream

        parse_stream(str(name_or_path))
        return []
    if not str(name_or_path).strip():  # to pathlib it is the working directory
        raise ValueError("corpus must be 'documentation', a text file or a folder of .txt files, got ''.")
    path = Path(name_or_path)
    try:
        path = path.expanduser()
        if path.is_dir():
            files = sorted(file for file in path.glob("*.txt") if file.is_file())
            if not files:
                raise ValueError(f"no .txt files in {path}. Choose a folder of UTF-8 text files.")
            return files
        if path.is_file():
            return [path]
        exists = path.exists()
    except (OSError, RuntimeError) as error:  # RuntimeError: "~" of a person who is not known here
        raise ValueError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.") from error
    if exists:
        raise ValueError(f"{path} is neither a file nor a folder.")
    raise ValueError(f"there is no corpus {str(path)!r}: give 'documentation', a text file or a folder of .txt files.")


def decoded(file: Path) -> Iterator[str]:
    """The text of a UTF-8 file in parts, as it is, without a byte-order mark.

    Raises:
        ValueError: it cannot be read, or which byte at which offset is no UTF-8.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        with file.open("rb") as source:
            at = len(BOM) if source.read(len(BOM)) == BOM else 0
            source.seek(at)
            while True:
                data = source.read(READ_BYTES)
                waiting = len(decoder.getstate()[0])  # the first bytes of a character whose last are in data
                try:
                    text = decoder.decode(data, final=not data)
                except UnicodeDecodeError as error:
                    raise _not_utf8(file, error.object[error.start], at - waiting + error.start) from error
                at += len(data)
                if text:
                    yield text
                if not data:
                    return
    except OSError as error:
        raise ValueError(f"{file} cannot be read: {error.strerror or error}.") from error


def _not_utf8(file: Path, byte: int, offset: int) -> ValueError:
    return ValueError(
        f"{file} is not UTF-8: byte {byte:#04x} at offset {offset:,}. "
        "Nothing was read; save the file as UTF-8 and try again."
    )


def passages(parts: Iterable[str], most: int = PASSAGE_CHARS) -> Iterator[str]:
    """Cut a text that comes in parts into passages; joined they are the text, white space among them.

    Args:
        parts: of one text.
        most: characters of a passage; it ends behind a paragraph, a line or a word where there is one.
    """
    text = ""
    for part in parts:
        text, at = text + part, 0
        while len(text) - at > most:
            end = at + most
            for separator in ("\n\n", "\n", " "):
                cut = text.rfind(separator, at + most // 2, end)
                if cut >= 0:
                    end = cut + len(separator)
                    break
            yield text[at:end]
            at = end
        text = text[at:]
    if text:
        yield text
