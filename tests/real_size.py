"""A GPT-2 of real width and depth with random weights, with the real vocabulary where that lies beside the checkout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

REAL_TOKENIZER = Path(__file__).resolve().parents[2] / "shared" / "gpt2-tokenizer"


def random_gpt2() -> tuple[Any, Any]:
    """The network and its tokenizer, as transformers has them."""
    from tokenizers import pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel, GPT2TokenizerFast, PreTrainedTokenizerFast

    if REAL_TOKENIZER.is_dir():
        vocabulary = json.loads((REAL_TOKENIZER / "vocab.json").read_text(encoding="utf-8"))
        merges = (REAL_TOKENIZER / "merges.txt").read_text(encoding="utf-8").splitlines()
        pairs = [tuple(line.split(" ")) for line in merges if line and not line.startswith("#version")]
        tokenizer = GPT2TokenizerFast(vocab=vocabulary, merges=pairs)
    else:
        from tokenizers import Tokenizer, decoders, models

        alphabet = {char: i for i, char in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
        backend = Tokenizer(models.BPE(vocab=alphabet, merges=[]))
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.decoder = decoders.ByteLevel()
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<|endoftext|>")
    end = len(tokenizer) - 1
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = GPT2Config(vocab_size=len(tokenizer), bos_token_id=end, eos_token_id=end)
        network = GPT2LMHeadModel(config).eval().requires_grad_(False)
    return network, tokenizer
