"""Corpora to train on: the documentation that every Python ships, a text file, or a folder of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

PASSAGE_CHARS = 20_000
"""Longest passage that a corpus is cut into, so that a book is read a piece at a time."""


def corpus_texts(name_or_path: str | Path) -> list[str]:
    """The passages of a corpus, in a fixed order.

    Args:
        name_or_path: ``"documentation"`` (the topics of ``pydoc_data``, offline everywhere), a UTF-8 text
            file, or a folder whose ``.txt`` files are taken in alphabetical order.

    Returns:
        Passages of at most ``PASSAGE_CHARS`` characters, cut between paragraphs where there are any;
        joined they are the corpus. None is only white space.

    Raises:
        TypeError: not a string or path.
        ValueError: nothing there, nothing in it, or not UTF-8; the message gives the byte at fault.
    """
    if not isinstance(name_or_path, (str, Path)):
        raise TypeError(f"name_or_path must be a string or a path, got {type(name_or_path).__name__}")
    if name_or_path == "documentation":
        from pydoc_data.topics import topics

        return [passage for name in sorted(topics) for passage in _passages(topics[name])]
    texts = [passage for file in corpus_files(name_or_path) for passage in _passages(_read(file))]
    if not texts:
        raise ValueError(f"{Path(name_or_path).expanduser()} has no text in it. Choose another corpus.")
    return texts


def corpus_files(name_or_path: str | Path) -> list[Path]:
    """The files of a corpus in the order in which they are read; none for ``"documentation"``. Reads nothing.

    Raises:
        ValueError: nothing is there that could be read.
    """
    if name_or_path == "documentation":
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


def _read(file: Path) -> str:
    try:
        data = file.read_bytes()
    except OSError as error:
        raise ValueError(f"{file} cannot be read: {error.strerror or error}.") from error
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # error.start counts from behind a byte-order mark
        offset = error.start + (3 if data.startswith(b"\xef\xbb\xbf") else 0)
        raise ValueError(
            f"{file} is not UTF-8: byte {data[offset]:#04x} at offset {offset:,}. "
            "Nothing was read; save the file as UTF-8 and try again."
        ) from error


def _passages(text: str) -> Iterator[str]:
    at = 0
    while at < len(text):
        end = min(at + PASSAGE_CHARS, len(text))
        if end < len(text):
            for separator in ("\n\n", "\n", " "):
                cut = text.rfind(separator, at + PASSAGE_CHARS // 2, end)
                if cut >= 0:
                    end = cut + len(separator)
                    break
        if text[at:end].strip():
            yield text[at:end]
        at = end
