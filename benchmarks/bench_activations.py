"""Reading one layer of GPT-2: the original tutorial's way against ``get_activations``, in one run.

The original runs the whole model with its vocabulary head and keeps every layer. Both read the same text with
the same random-weight GPT-2 of real size; turns alternate, and the median of each is taken.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Any

import torch

LAYER = 6
ROUNDS = 7
SENTENCE = "It was the best of times, it was the worst of times."
REAL_TOKENIZER = Path(__file__).resolve().parents[2] / "shared" / "gpt2-tokenizer"


def random_gpt2() -> Any:
    """GPT-2 small with random weights; the real vocabulary if its files lie beside the checkout."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    from sae_widget.activations import language_model

    if REAL_TOKENIZER.is_dir():
        bpe = models.BPE.from_file(str(REAL_TOKENIZER / "vocab.json"), str(REAL_TOKENIZER / "merges.txt"))
    else:
        letters = sorted(pre_tokenizers.ByteLevel.alphabet())
        unused = [f"unused{i}" for i in range(50_256 - len(letters))]
        bpe = models.BPE(vocab={token: i for i, token in enumerate([*letters, *unused])}, merges=[])
    backend = Tokenizer(bpe)
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<|endoftext|>")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = GPT2LMHeadModel(GPT2Config()).eval().requires_grad_(False)
    return language_model(network, tokenizer, "random GPT-2")


def original(model: Any, text: str) -> torch.Tensor:
    """What the tutorial does: tokenise, run all of the model, keep all of the layers, take one."""
    inputs = model.tokenizer(text, return_tensors="pt")
    with torch.no_grad():
        outputs = model.network(input_ids=inputs["input_ids"], output_hidden_states=True)
    return outputs.hidden_states[LAYER].squeeze(0)


def ours(model: Any, text: str) -> torch.Tensor:
    """The same rows through ``get_activations``."""
    from sae_widget.activations import get_activations

    return get_activations(model, text, LAYER).values


def compare(model: Any, text: str) -> tuple[float, float, int]:
    """Median seconds of the original and of ours, and the number of tokens; the rows must be equal."""
    rows = ours(model, text)
    torch.testing.assert_close(rows, original(model, text), atol=1e-5, rtol=0)
    times: dict[Any, list[float]] = {original: [], ours: []}
    for _ in range(ROUNDS):
        for way, taken in times.items():
            started = time.perf_counter()
            way(model, text)
            taken.append(time.perf_counter() - started)
    return statistics.median(times[original]), statistics.median(times[ours]), len(rows)


def run() -> list[tuple[str, str, str]]:
    """Rows of (what, measured, target), with one thread, so that other work on the machine matters less."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _rows(random_gpt2())
    finally:
        torch.set_num_threads(threads)


def _rows(model: Any) -> list[tuple[str, str, str]]:
    rows = []
    for text in (SENTENCE, SENTENCE * 40):
        theirs, mine, n_tokens = compare(model, text)
        what = f"activations at layer {LAYER} of 12, {n_tokens} tokens"
        measured = f"{theirs / mine:.1f} times faster ({theirs * 1e3:.0f} ms -> {mine * 1e3:.0f} ms)"
        rows.append((what, measured, "at least 2 times"))
    return rows


if __name__ == "__main__":
    for row in run():
        print(" | ".join(row))
