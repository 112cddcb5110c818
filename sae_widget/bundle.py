"""Train the SAEs that ship with the bundled model: ``python -m sae_widget.bundle --corpus DIR``.

One SAE for each place of the residual stream, on the texts on which the model itself was trained (the
held-out books stay out), with the package's own trainer.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sae_widget.activations.base import layer_name
from sae_widget.activations.models import load_model
from sae_widget.bundled import sae_folder
from sae_widget.checkpoint import save_sae
from sae_widget.config import TrainConfig
from sae_widget.data import concatenate, pieces, read_corpus
from sae_widget.features import feature_stats
from sae_widget.pretrain import read_corpus as read_books
from sae_widget.training import Trainer

if TYPE_CHECKING:
    from sae_widget.activations.base import Activations, LanguageModel
    from sae_widget.features import FeatureStats


def sites(model: LanguageModel) -> list[tuple[int, str]]:
    """Every place of the residual stream once: the embeddings and after each block."""
    return [*((layer, "resid_pre") for layer in range(model.n_layer)), (model.n_layer - 1, "resid_post")]


def read(model: LanguageModel, texts: list[str], layer: int, hook_name: str, n_tokens: int) -> Activations:
    """Activations of ``n_tokens`` tokens from all over the texts, each window behind the start token."""
    return concatenate(
        list(read_corpus(model, pieces(texts), layer, hook_name, prepend_bos=True, max_tokens=n_tokens))
    )


def train_site(model: LanguageModel, corpus: Activations, config: TrainConfig) -> tuple[Any, FeatureStats]:
    """The SAE of one place and its statistics on the tokens it was trained on."""
    site = {"model_name": model.name, "layer": corpus.layer, "hook_name": corpus.hook_name, "prepend_bos": True}
    trainer = Trainer(corpus.values, corpus.position, config, metadata={**site, "training_tokens": corpus.n_tokens})
    for _ in trainer.run():
        pass
    sae = trainer.sae()
    return sae, feature_stats(sae, corpus.values[:200_000], corpus.position[:200_000])


def main(argv: list[str] | None = None) -> int:
    """Train, save and report every SAE."""
    parser = argparse.ArgumentParser(prog="sae_widget.bundle", description=__doc__)
    parser.add_argument("--corpus", type=Path, required=True, help="directory of UTF-8 .txt files")
    parser.add_argument("--tokens", type=int, default=600_000, help="tokens read at each place")
    parser.add_argument("--d-sae", type=int, default=1024)
    parser.add_argument("--k", type=int, default=16)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--report", type=Path, help="write the metrics of all SAEs here, as JSON")
    args = parser.parse_args(argv)
    model = load_model("bundled")
    train_texts, held_out = read_books(args.corpus)
    config = TrainConfig(architecture="topk", d_sae=args.d_sae, k=args.k, steps=args.steps)
    rows = []
    for layer, hook_name in sites(model):
        sae, stats = train_site(model, read(model, train_texts, layer, hook_name, args.tokens), config)
        held = read(model, held_out, layer, hook_name, 50_000)
        test = feature_stats(sae, held.values, held.position)
        folder = sae_folder(layer, hook_name, model.n_layer)
        folder.mkdir(parents=True, exist_ok=True)
        save_sae(sae, folder, stats.tensors(), dtype="float16")
        rows.append(
            {
                "place": layer_name(layer, hook_name, model.n_layer),
                "explained_variance": test.explained_variance,
                "explained_variance_with_first": test.explained_variance_with_first,
                "l0": test.l0,
                "dead": int(stats.dead.sum()),
                "d_sae": sae.d_sae,
            }
        )
        sys.stdout.write(json.dumps(rows[-1]) + "\n")
        sys.stdout.flush()
    if args.report is not None:
        args.report.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
