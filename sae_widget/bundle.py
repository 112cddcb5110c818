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

from sae_widget import bundled
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
    return concatenate(list(read_corpus(model, pieces(texts), layer, hook_name, prepend_bos=True, max_tokens=n_tokens)))


def train_site(model: LanguageModel, corpus: Activations, config: TrainConfig) -> tuple[Any, FeatureStats]:
    """The SAE of one place and its statistics on the tokens it was trained on."""
    site = {"model_name": model.name, "layer": corpus.layer, "hook_name": corpus.hook_name, "prepend_bos": True}
    trainer = Trainer(corpus.values, corpus.position, config, metadata={**site, "training_tokens": corpus.n_tokens})
    for _ in trainer.run():
        pass
    sae = trainer.sae()
    return sae, feature_stats(sae, corpus.values[:200_000], corpus.position[:200_000])


def model_card(model: dict[str, Any], saes: dict[str, Any]) -> str:
    """The card of the bundled model and its SAEs, from the reports of the two trainings.

    Args:
        model: ``pretrain_report.json``.
        saes: ``report.json`` of the SAEs.
    """
    config, used = model["config"], saes["settings"]
    precision = "" if config.get("precision", "float32") == "float32" else f" --precision {config['precision']}"
    rows = "\n".join(
        f"| {row['place']} | {row['explained_variance']:.3f} | {row['explained_variance_with_first']:.3f} "
        f"| {row['l0']:.1f} | {row['dead']} |"
        for row in saes["saes"]
    )
    return f"""# The bundled model

A small GPT-2 with its own byte-level BPE, so that the explorer shows real features on a machine without a network.
It writes no useful text and knows no facts: it is there to be taken apart.

| | |
|---|---|
| architecture | GPT-2, {config["n_layer"]} blocks, {config["n_embd"]} wide, {config["n_head"]} heads, {config["n_positions"]} positions |
| vocabulary | {config["vocab_size"]:,} byte-level BPE tokens, trained on the same texts |
| parameters | {model["parameters"]:,}, stored as fp16 safetensors |
| training data | {model["train_tokens"]:,} tokens: 32 English books in the public domain, and the documentation that ships with Python (`pydoc_data.topics`) |
| tokens read | {model["tokens_read"]:,} ({model["tokens_read"] / model["train_tokens"]:.1f} passes) |
| held out | "Peter Pan" and "A Christmas Carol", whole: {model["held_out_tokens"]:,} tokens |
| held-out loss | {model["held_out_loss"]:.3f} nats a token, perplexity **{model["held_out_perplexity"]:.1f}** |
| baseline | interpolated Kneser-Ney trigram on the same tokens: perplexity **{model["trigram_perplexity"]:.1f}** (ratio {model["ratio"]:.2f}) |
| licence | MIT, as the package; the books are in the public domain, Python's documentation is under the PSF licence |

Train it again (a folder of plain-text books, two of them named `peter-pan.txt` and `a-christmas-carol.txt`):

    python -m sae_widget.pretrain --corpus BOOKS --out RUN --tokens {config["tokens"]}{precision} --export sae_widget/bundled/model

The run is seeded and goes on from its last checkpoint when the command is given again. Every token of the validation
is read with at least half a context before it; the trigram is asked for the same tokens. {model.get("remark", "")}

# Its SAEs

One TopK SAE for each place of the residual stream: {saes["saes"][0]["d_sae"]:,} features, k = {used["k"]}, {used["steps"]:,} steps on
{used["tokens"]:,} tokens of the training texts, each window behind the start token, position 0 left out. Numbers are on
the held-out books; "dead" counts features that never fired on 200,000 training tokens.

| place | explained variance | with position 0 | L0 | dead |
|---|---|---|---|---|
{rows}

Train them again:

    python -m sae_widget.bundle --corpus BOOKS --tokens {used["tokens"]} --steps {used["steps"]} --d-sae {used["d_sae"]} --k {used["k"]}
"""


def main(argv: list[str] | None = None) -> int:
    """Train, save and report every SAE."""
    parser = argparse.ArgumentParser(prog="sae_widget.bundle", description=__doc__)
    parser.add_argument("--corpus", type=Path, required=True, help="directory of UTF-8 .txt files")
    parser.add_argument("--tokens", type=int, default=600_000, help="tokens read at each place")
    parser.add_argument("--d-sae", type=int, default=1024)
    parser.add_argument("--k", type=int, default=16)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--report", type=Path, help="write the metrics here, as JSON (beside the SAEs)")
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
                "folder": folder.name,
                "explained_variance": test.explained_variance,
                "explained_variance_with_first": test.explained_variance_with_first,
                "l0": test.l0,
                "dead": int(stats.dead.sum()),
                "d_sae": sae.d_sae,
            }
        )
        sys.stdout.write(json.dumps(rows[-1]) + "\n")
        sys.stdout.flush()
    report = args.report or bundled.FOLDER / "report.json"
    model_report = bundled.FOLDER.parent / "model" / "pretrain_report.json"
    made = {"settings": {key: getattr(args, key) for key in ("tokens", "d_sae", "k", "steps")}, "saes": rows}
    report.write_text(json.dumps(made, indent=1), encoding="utf-8")
    if model_report.exists():
        card = model_card(json.loads(model_report.read_text(encoding="utf-8")), made)
        (bundled.FOLDER.parent / "README.md").write_text(card, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
