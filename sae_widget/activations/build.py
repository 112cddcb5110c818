"""From a checked model directory to a ``LanguageModel``, with nothing said and nothing left changed."""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sae_widget.activations.adapters import adapter_for
from sae_widget.activations.base import DamagedModelError, LanguageModel, ModelLoadError
from sae_widget.activations.families import Family, Sizes, check_config

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MAX_UNUSED_IDS = 1024
"""Models round their vocabulary up, so it may be this much larger than the tokenizer's."""

_MASK = re.compile(r"\.(masked_bias|attn\.bias)$")
"""The causal mask, which old files have among the weights."""
_BLOCK_TENSOR = re.compile(r"(^|\.)(h|layers)\.\d+\.")


def language_model(network: Any, tokenizer: Any, name: str, label: str | None = None) -> LanguageModel:
    """Wrap a ``transformers`` model and its tokenizer that are already in memory.

    Args:
        network: a causal language model of a supported family; it is put into eval mode.
        tokenizer: its fast tokenizer.
        name: what to call it in records.
        label: what a person sees; the name if it is left out.

    Raises:
        ModelLoadError: unknown family, or a tokenizer of another vocabulary.
    """
    label = label or name
    adapter = adapter_for(network)
    _, sizes = check_config(network.config.to_dict(), label)
    _check_vocabulary(tokenizer, sizes, label)
    network.eval()
    bos_id = tokenizer.bos_token_id
    if bos_id is None:
        bos_id = getattr(network.config, "bos_token_id", None)
    if not isinstance(bos_id, int) or not 0 <= bos_id < sizes.vocab_size:
        bos_id = None
    return LanguageModel(
        name=name,
        label=label,
        network=network,
        tokenizer=tokenizer,
        adapter=adapter,
        d_in=sizes.d_in,
        n_layer=sizes.n_layer,
        n_positions=sizes.n_positions,
        vocab_size=sizes.vocab_size,
        bos_id=bos_id,
        device=str(next(network.parameters()).device),
    )


def build_model(folder: Path, config: dict[str, Any], family: Family, *, name: str, label: str) -> LanguageModel:
    """Build the network of a directory in float32 on the CPU; only safetensors, no code of the model's own.

    Args:
        folder: a directory whose config and weight files have been checked.
        config: the content of its ``config.json``.
        family: which class to build.
        name: see ``language_model``.
        label: see ``language_model``.

    Raises:
        ModelLoadError: weights missing or left over, which ``transformers`` would fill at random or drop.
        DamagedModelError: files that cannot be read.
    """
    import torch
    import transformers

    network_class = getattr(transformers, family.class_name)
    try:
        with _quiet_transformers(), torch.random.fork_rng(devices=[]):
            network, info = network_class.from_pretrained(
                str(folder),
                config=network_class.config_class.from_dict(config),
                dtype=torch.float32,
                attn_implementation="sdpa",
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
                output_loading_info=True,
            )
    except Exception as error:
        raise ModelLoadError(
            f"{label}: the weights do not fit config.json ({_why(error)}). Nothing was loaded."
        ) from error
    _check_loading_info(info, label)
    tokenizer = _load_tokenizer(folder, config, label)
    return language_model(network.requires_grad_(False), tokenizer, name, label)


def _check_loading_info(info: Any, label: str) -> None:
    """Refuse what ``transformers`` only warns about: missing weights (filled at random), left-over ones."""
    missing = sorted(info["missing_keys"])
    mismatched = sorted(str(key) for key in info.get("mismatched_keys") or ())
    left_over = sorted(key for key in info["unexpected_keys"] if _BLOCK_TENSOR.search(key) and not _MASK.search(key))
    for keys, what in ((mismatched, "of another shape"), (missing, "missing"), (left_over, "left over")):
        if keys:
            raise ModelLoadError(
                f"{label}: {len(keys)} of its weights are {what}, {keys[0]} first, so the files are not this "
                "architecture's or not complete. Nothing was loaded."
            )


def _load_tokenizer(folder: Path, config: dict[str, Any], label: str) -> Any:
    import transformers

    if (folder / "tokenizer.json").is_file():
        tokenizer_class = transformers.PreTrainedTokenizerFast
    elif (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
        tokenizer_class = transformers.GPT2TokenizerFast
    else:
        raise ModelLoadError(f"{label} has no tokenizer (tokenizer.json, or vocab.json and merges.txt).")
    try:
        with _quiet_transformers():
            tokenizer = tokenizer_class.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except Exception as error:
        raise DamagedModelError(f"{label}: its tokenizer is damaged ({_why(error)}). Nothing was loaded.") from error
    for role in ("bos_token", "eos_token"):
        token_id = config.get(f"{role}_id")
        if getattr(tokenizer, role) is None and isinstance(token_id, int):
            token = tokenizer.convert_ids_to_tokens(token_id) if 0 <= token_id < len(tokenizer) else None
            setattr(tokenizer, role, token)
    return tokenizer


def _check_vocabulary(tokenizer: Any, sizes: Sizes, label: str) -> None:
    if not getattr(tokenizer, "is_fast", False):
        raise ModelLoadError(f"{label} has a tokenizer that gives no character positions. Nothing was loaded.")
    known = max(tokenizer.get_vocab().values(), default=-1) + 1
    if not sizes.vocab_size - MAX_UNUSED_IDS <= known <= sizes.vocab_size:
        raise ModelLoadError(
            f"{label}: the tokenizer knows {known:,} tokens and the model {sizes.vocab_size:,}, so they "
            "do not belong together. Nothing was loaded."
        )


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """No progress bars and no warnings of ``transformers``; its settings are put back afterwards."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _why(error: BaseException) -> str:
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0][:160]}" if lines else type(error).__name__
