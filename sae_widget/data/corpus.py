"""The way from a corpus of any size to something that a trainer can be fed with."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from sae_widget.activations.extract import encode_text
from sae_widget.data.store import ShardedActivations, write_store
from sae_widget.data.stream import ModelActivations
from sae_widget.data.texts import TextPieces

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from sae_widget.activations.base import LanguageModel


def open_corpus(
    model: LanguageModel,
    corpus: str | Path | Sequence[str],
    layer: int,
    hook_name: str,
    *,
    prepend_bos: bool,
    max_tokens: int,
    buffer_tokens: int | None = None,
    store: str | Path | None = None,
    dtype: str = "float16",
    progress: Callable[[int, int], None] | None = None,
) -> ModelActivations | ShardedActivations:
    """Activations of a corpus, for ``Trainer(source, config=...)``, which holds a part of them at a time.

    Args:
        model: what ``load_model`` returned.
        corpus: ``"documentation"``, a text file, a folder of them, ``"datasets:owner/name[:config][:split][:column]"``,
            or a list of texts.
        layer: of the read point.
        hook_name: of the read point.
        prepend_bos: read each window behind the start token.
        max_tokens: how much of the corpus is taken; its pieces are shuffled first, so it comes from everywhere.
        buffer_tokens: rows that a trainer holds at once; None takes 256 MB of them.
        store: a folder to write the activations to, once; they are read back from there, mapped into memory. An
            unfinished one is gone on with. None computes them again in each epoch, with nothing on the disk.
        dtype: of the store: ``"float16"``, ``"bfloat16"`` or ``"float32"``.
        progress: called now and then with the tokens that are written and those that will be; what it raises ends
            the reading, and a store stays as far as it is.

    Raises:
        TypeError: an argument of another type.
        ValueError: nothing there, nothing in it, not UTF-8, a place that the model does not have.
        SaeFileError: the store cannot be written, or holds something else.
    """
    for name, value in (("max_tokens", max_tokens), ("buffer_tokens", buffer_tokens)):
        if value is not None and (type(value) is not int or value < 1):
            raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
    tell = progress or (lambda _done, _total: None)
    texts = TextPieces(corpus, enough=Enough(model, max_tokens), later=True)
    for _ in texts.reading():
        tell(0, max_tokens)
    read = model, texts, layer, hook_name
    source = ModelActivations(*read, prepend_bos=prepend_bos, max_tokens=max_tokens, buffer_tokens=buffer_tokens)
    if store is None:
        return source
    name = corpus if isinstance(corpus, str) else "" if isinstance(corpus, (list, tuple)) else str(corpus)
    planned = min(max_tokens, source.n_tokens)
    with closing(write_store(source, store, corpus=name, digest=texts.digest(), dtype=dtype)) as written:
        for done in written:
            tell(done, max(done, planned))
    return ShardedActivations(store, buffer_tokens)


class Enough:
    """Counts the tokens of the pieces of a stream, so that no more of it is copied than is read.

    Args:
        model: whose tokens.
        max_tokens: how many are needed.
    """

    def __init__(self, model: LanguageModel, max_tokens: int) -> None:
        self._model, self._left = model, max_tokens

    def __call__(self, piece: str) -> bool:
        """Whether this piece brings them to as many as are needed."""
        self._left -= len(encode_text(self._model.tokenizer, piece)[1])
        return self._left <= 0
