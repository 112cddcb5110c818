"""The pieces of a corpus in a shuffled order, of which only the places are in memory."""

from __future__ import annotations

import hashlib
import random
import tempfile
import threading
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, overload

from sae_widget.activations.corpus import BOM, corpus_files, corpus_passages, decoded, is_stream, passages
from sae_widget.data.pieces import cut, pieces

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LOOK_EVERY = 256  # pieces between two breaths
SAMPLED = 64  # pieces that tell one corpus from another


class TextPieces(Sequence[str]):
    """Texts in pieces of about ``PIECE_CHARS`` characters, shuffled; the same order as ``pieces``.

    Files are read once to find the places of their pieces, which takes 20 bytes a piece, and again at those places
    when a piece is asked for. A stream is copied into a temporary file, as far as it is needed.

    Args:
        corpus: a name or path as in ``corpus_passages``, or texts.
        seed: of the order.
        enough: told each piece of a stream; true ends the copying. None copies all of it.
        later: leave the first reading to ``reading``.

    Raises:
        TypeError: ``corpus`` is no name, path or list of strings.
        ValueError: what ``corpus_passages`` says.
    """

    def __init__(
        self,
        corpus: str | Path | Sequence[str],
        seed: int = 0,
        *,
        enough: Callable[[str], bool] | None = None,
        later: bool = False,
    ) -> None:
        self._texts: list[str] = []
        self._files: list[Path] = []
        self._spool: BinaryIO | None = None
        self._file, self._start, self._size = array("I"), array("Q"), array("I")
        self._order = array("I")
        self._lock = threading.Lock()  # the temporary file has one place at which it is read
        self._reading = self._read_through(corpus, seed, enough or (lambda _: False))
        if not later:
            for _ in self.reading():
                pass

    def reading(self) -> Iterator[None]:
        """Read the corpus through for the first time, with breaths; there are no pieces before its end."""
        for number, _ in enumerate(self._reading):
            if number % LOOK_EVERY == 0:
                yield

    def __len__(self) -> int:
        return len(self._texts) or len(self._order)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[at] for at in range(*index.indices(len(self)))]
        return self._texts[index] if self._texts else self._read(self._order[index])

    def digest(self) -> str:
        """Tells this corpus from another one: of the number of pieces, and of some of them."""
        found = hashlib.sha256(str(len(self)).encode())
        for at in range(0, len(self), max(1, len(self) // SAMPLED)):
            piece = self[at].encode("utf-8", "surrogatepass")
            found.update(f"{len(piece)}:".encode() + piece)  # or ["ab", "c"] would be ["a", "bc"]
        return found.hexdigest()[:32]

    def _read_through(
        self, corpus: str | Path | Sequence[str], seed: int, enough: Callable[[str], bool]
    ) -> Iterator[None]:
        """Note the pieces of a corpus; a breath after each piece of a large one."""
        if not isinstance(corpus, (str, Path)):
            self._texts = pieces(corpus, seed)
        elif corpus == "documentation":
            self._texts = pieces(corpus_passages(corpus), seed)
        elif is_stream(corpus):
            yield from self._copy(str(corpus), enough)
        else:
            yield from self._find(corpus)
        self._order = array("I", range(len(self._start)))
        random.Random(seed).shuffle(self._order)

    def _add(self, file: int, start: int, piece: str, size: int) -> None:
        if piece.strip():
            self._file.append(file)
            self._start.append(start)
            self._size.append(size)

    def _find(self, corpus: str | Path) -> Iterator[None]:
        """Note the places of the pieces in the files, which are read part by part."""
        self._files = corpus_files(corpus)
        for number, path in enumerate(self._files):
            at = _begin(path)
            for passage in passages(decoded(path)):
                for piece in cut(passage):
                    size = len(piece.encode())
                    self._add(number, at, piece, size)
                    at += size
                    yield
        if not self._start:
            raise ValueError(f"{Path(corpus).expanduser()} has no text in it. Choose another corpus.")

    def _copy(self, corpus: str, enough: Callable[[str], bool]) -> Iterator[None]:
        """Copy a stream's pieces into a temporary file until there are enough."""
        self._spool = tempfile.TemporaryFile(prefix="sae_widget.")
        at = 0
        for passage in corpus_passages(corpus):
            for piece in cut(passage):
                data = piece.encode("utf-8", "replace")
                self._spool.write(data)
                self._add(0, at, piece, len(data))
                at += len(data)
                if enough(piece):
                    return
                yield

    def _read(self, number: int) -> str:
        start, size = self._start[number], self._size[number]
        if self._spool is not None:
            with self._lock:
                self._spool.seek(start)
                return self._spool.read(size).decode()
        path = self._files[self._file[number]]
        try:
            with path.open("rb") as file:
                file.seek(start)
                data = file.read(size)
            if len(data) < size:
                raise EOFError
            return data.decode()
        except (OSError, EOFError, UnicodeDecodeError) as error:
            raise ValueError(f"{path} was changed or removed while it was being read. Start again.") from error


def _begin(path: Path) -> int:
    """Where the text of a file begins: behind its byte-order mark, if it has one."""
    try:
        with path.open("rb") as file:
            return len(BOM) if file.read(len(BOM)) == BOM else 0
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or error}.") from error
