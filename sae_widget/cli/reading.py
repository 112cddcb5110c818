"""What a training reads: the language model, and the texts through it."""

from __future__ import annotations

import sys
import zlib
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sae_widget.cli.base import Refused, StopFlag, first_process
from sae_widget.config import CORPUS_TOKENS, MAX_TEXT_CHARS, START, TrainConfig

if TYPE_CHECKING:
    import argparse

    import torch

    from sae_widget.activations.base import LanguageModel
    from sae_widget.runs import SavedExplorer
    from sae_widget.training.mesh import Alone

SAMPLED = 4_096
"""Rows of the activations by which they are known again."""
MEASURED = 65_536
"""Tokens of a corpus in blocks on which its SAE is measured at the end."""
STREAMED = "datasets:"
"""How the name of a corpus begins that comes over the network."""


def load(name: str) -> LanguageModel:
    """The language model of this name, with a bar when it is fetched."""
    from tqdm import tqdm

    from sae_widget.activations.models import load_model

    hidden = not first_process()
    with tqdm(desc=f"Loading {name}", unit="B", unit_scale=True, leave=False, delay=0.5, disable=hidden) as bar:

        def progress(done: int, total: int | None) -> None:
            bar.total = total
            bar.update(done - bar.n)

        return load_model(name, progress=progress)


class Data:
    """What is trained on: activations in memory, or a corpus of any size in blocks."""

    def __init__(self, given: Any) -> None:
        self.given = given
        self.n_tokens, self.in_memory = given.n_tokens, hasattr(given, "values")
        self.for_trainer: Any = (given.values, given.position) if self.in_memory else (given, None)

    def sample(self, n_tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Values ``[n, d_in]`` and positions ``[n]`` of the first tokens, at most so many."""
        if self.in_memory:
            return self.given.values[:n_tokens], self.given.position[:n_tokens]
        values, position = self.given.sample(n_tokens)
        return values, position

    @property
    def most_measured(self) -> int:
        """On how many tokens the SAE is measured at the end."""
        return self.n_tokens if self.in_memory else MEASURED

    def known_by(self) -> dict[str, int]:
        """Numbers that are others when the texts, or the activations of them, are others."""
        values, position = self.sample(SAMPLED)
        if self.in_memory:
            values = self.given.values[:: max(1, self.n_tokens // SAMPLED)].contiguous()
            position = self.given.position
        texts = zlib.crc32(position.numpy().tobytes(), self.n_tokens)
        if self.in_memory:
            texts = zlib.crc32(self.given.token_ids.numpy().tobytes(), texts)
        return {"texts": texts, "values": zlib.crc32(values.numpy().tobytes())}


class _Stopped(Exception):
    """The flag was raised while a store was written."""


def read(model: LanguageModel, args: argparse.Namespace, layer: int, flag: StopFlag, mesh: Alone) -> Data | None:
    """Activations of the texts, or ``None`` when it was stopped before the last of them."""
    from tqdm import tqdm

    with tqdm(desc="Reading", total=args.tokens, unit=" tokens", leave=False, disable=not first_process()) as bar:
        if args.store is None and not _is_streamed(args):
            found = _in_memory(model, args, layer, flag, bar)
        else:
            found = _in_blocks(model, args, layer, flag, mesh, bar)
    for note in found.notes if found is not None and first_process() else ():
        print(note, file=sys.stderr)
    return None if found is None else Data(found)


def _in_memory(model: LanguageModel, args: argparse.Namespace, layer: int, flag: StopFlag, bar: Any) -> Any:
    from sae_widget.activations.corpus import corpus_texts
    from sae_widget.data import concatenate, pieces, read_corpus
    from sae_widget.memory import corpus_fits, free_memory

    texts = pieces(args.text or corpus_texts(args.corpus))
    parts, free, n_read = [], free_memory(), 0
    place = model, texts, layer, args.hook_name
    for part in read_corpus(*place, prepend_bos=args.prepend_bos, max_tokens=args.tokens):
        if flag.stopped:
            return None
        parts.append(part)
        n_read += part.n_tokens
        bar.update(part.n_tokens)
        if not corpus_fits(part.d_in, n_read, free):
            raise ValueError(
                f"The corpus does not fit into memory: {n_read:,} tokens were read. Ask for fewer --tokens, or give "
                "--store FOLDER, and its activations are read from the disk."
            )
    return concatenate(parts)


def _in_blocks(
    model: LanguageModel, args: argparse.Namespace, layer: int, flag: StopFlag, mesh: Alone, bar: Any
) -> Any:
    """A corpus in blocks; of several processes the first one writes the store, and the others open it then."""
    from sae_widget.data import open_corpus

    def progress(done: int, total: int) -> None:
        bar.total = total
        bar.update(done - bar.n)
        if flag.stopped:
            raise _Stopped

    found = None
    for mine in (mesh.rank == 0, mesh.rank > 0):
        if mine:
            place = model, args.text or args.corpus, layer, args.hook_name
            with suppress(_Stopped):
                found = open_corpus(
                    *place,
                    prepend_bos=args.prepend_bos,
                    max_tokens=args.tokens,
                    store=args.store,
                    progress=progress,
                )
        mesh.any(False)
    return found


def _is_streamed(args: argparse.Namespace) -> bool:
    return not args.text and args.corpus.startswith(STREAMED)


def what_to_show(args: argparse.Namespace, config: TrainConfig, model: str, layer: int) -> SavedExplorer:
    """What ``SuperpositionExplorer.load`` opens with: this place and recipe, and what was trained on."""
    from sae_widget.activations.text import check_texts
    from sae_widget.runs import describe

    if args.text:  # a run that goes on has no corpus then
        text, corpus = "\n".join(check_texts(args.text)[0])[:MAX_TEXT_CHARS], "text"
    else:
        text, corpus = START.text, absolute(args.corpus)
    return describe(
        config,
        model=model,
        layer=layer,
        hook_name=args.hook_name,
        prepend_bos=args.prepend_bos,
        text=text,
        corpus=corpus,
        corpus_tokens=min(max(args.tokens, CORPUS_TOKENS[0]), CORPUS_TOKENS[1]),
    )


def absolute(corpus: str) -> str:
    """A corpus by a name that holds in every folder, since it is opened from another, perhaps.

    Raises:
        Refused: a name that no file of a run can hold.
    """
    if corpus == START.corpus or corpus.startswith(STREAMED):
        return corpus
    found = str(Path(corpus).expanduser().absolute())
    if found != found.encode(errors="replace").decode():
        raise Refused(f"The name of the corpus is no UTF-8: {corpus!a}. Nothing was read; rename it.")
    return found
