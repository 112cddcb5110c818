"""What a training reads: the language model, and the texts through it."""

from __future__ import annotations

import sys
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

from sae_widget.cli.base import StopFlag, first_process
from sae_widget.config import CORPUS_TOKENS, MAX_TEXT_CHARS, START, TrainConfig

if TYPE_CHECKING:
    import argparse

    from sae_widget.activations.base import Activations, LanguageModel
    from sae_widget.runs import SavedExplorer

SAMPLED = 4_096
"""Rows of the activations by which they are known again."""


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


def read(model: LanguageModel, args: argparse.Namespace, layer: int, flag: StopFlag) -> Activations | None:
    """Activations of the texts, or ``None`` when it was stopped before the last of them."""
    from tqdm import tqdm

    from sae_widget.activations.corpus import corpus_texts
    from sae_widget.data import concatenate, pieces, read_corpus

    texts = pieces(args.text or corpus_texts(args.corpus))
    parts = []
    with tqdm(desc="Reading", total=args.tokens, unit=" tokens", leave=False, disable=not first_process()) as bar:
        for part in read_corpus(
            model, texts, layer, args.hook_name, prepend_bos=args.prepend_bos, max_tokens=args.tokens
        ):
            if flag.stopped:
                return None
            parts.append(part)
            bar.update(part.n_tokens)
    data = concatenate(parts)
    if first_process():
        for note in data.notes:
            print(note, file=sys.stderr)
    return data


def known_by(data: Activations) -> dict[str, int]:
    """Numbers that are others when the texts, or the activations of them, are others."""
    some = data.values[:: max(1, data.n_tokens // SAMPLED)].contiguous()
    texts = zlib.crc32(data.position.numpy().tobytes(), zlib.crc32(data.token_ids.numpy().tobytes()))
    return {"texts": texts, "values": zlib.crc32(some.numpy().tobytes())}


def what_to_show(args: argparse.Namespace, config: TrainConfig, model: str, layer: int) -> SavedExplorer:
    """What ``SuperpositionExplorer.load`` opens with: this place and recipe, and what was trained on."""
    from sae_widget.activations.text import check_texts
    from sae_widget.runs import describe

    text, corpus = START.text, absolute(args.corpus)
    if args.text:
        text, corpus = "\n".join(check_texts(args.text)[0])[:MAX_TEXT_CHARS], "text"
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
    """A corpus by a name that holds in every folder, since it is opened from another, perhaps."""
    return corpus if corpus == START.corpus else str(Path(corpus).expanduser().absolute())
