"""sae_widget.activations.build: what a network and its tokenizer must be, and that building leaves nothing changed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from sae_widget.activations.base import LanguageModel, ModelLoadError
from sae_widget.activations.build import MAX_UNUSED_IDS, build_model, language_model
from sae_widget.activations.families import check_config

KNOWN = 257  # tokens of the tiny tokenizer


@pytest.fixture
def folder(tiny_gpt2_dir: Path, tmp_path: Path) -> Path:
    """A copy of the tiny GPT-2 that a test may spoil."""
    return Path(shutil.copytree(tiny_gpt2_dir, tmp_path / "my-model"))


def network(vocab_size: int = KNOWN, **changes: Any) -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    shape = {"n_positions": 9, "n_embd": 8, "n_layer": 1, "n_head": 2}
    with torch.random.fork_rng():
        return GPT2LMHeadModel(GPT2Config(vocab_size=vocab_size, **shape, **changes))


def tokenizer(folder: Path, **changes: Any) -> Any:
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast.from_pretrained(folder, **changes)


def build(folder: Path, **changes: Any) -> LanguageModel:
    config = json.loads((folder / "config.json").read_text()) | changes
    return build_model(folder, config, check_config(config, "mine")[0], name="mine", label="mine")


def rewrite(folder: Path, **more: torch.Tensor) -> None:
    weights = load_file(folder / "model.safetensors") | more
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def test_a_network_in_training_is_put_into_eval_mode(tiny_gpt2: Any) -> None:
    made = network().train()
    wrapped = language_model(made, tiny_gpt2.tokenizer, "mine")
    assert wrapped.network is made and not made.training
    assert (wrapped.d_in, wrapped.n_layer, wrapped.n_positions, wrapped.vocab_size) == (8, 1, 9, KNOWN)


@pytest.mark.parametrize("more", [0, MAX_UNUSED_IDS])
def test_a_vocabulary_may_be_rounded_up(more: int, tiny_gpt2: Any) -> None:
    assert language_model(network(KNOWN + more), tiny_gpt2.tokenizer, "mine").vocab_size == KNOWN + more


@pytest.mark.parametrize("more", [-1, MAX_UNUSED_IDS + 1])
def test_a_vocabulary_that_is_not_the_tokenizers_is_refused(more: int, tiny_gpt2: Any) -> None:
    said = f"My model: the tokenizer knows 257 tokens and the model {KNOWN + more:,}, so they do not belong together"
    with pytest.raises(ModelLoadError, match=said):
        language_model(network(KNOWN + more), tiny_gpt2.tokenizer, "mine", "My model")


def test_a_tokenizer_without_character_positions_is_refused() -> None:
    from transformers import ByT5Tokenizer

    with pytest.raises(ModelLoadError, match="mine has a tokenizer that gives no character positions"):
        language_model(network(512), ByT5Tokenizer(), "mine")


@pytest.mark.parametrize(
    ("token", "told", "bos_id"),
    [("<|endoftext|>", 5, 256), (None, 5, 5), (None, None, None), (None, KNOWN, None), (None, -1, None)],
)
def test_the_start_token_is_the_tokenizers_then_the_configs_and_one_of_the_model(
    token: str | None, told: int | None, bos_id: int | None, tiny_gpt2_dir: Path
) -> None:
    made = network()
    made.config.bos_token_id = told
    assert language_model(made, tokenizer(tiny_gpt2_dir, bos_token=token), "mine").bos_id == bos_id


def test_a_role_that_no_token_can_have_stays_empty(folder: Path) -> None:
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"bos_token": None, "eos_token": None}))
    model = build(folder, bos_token_id=KNOWN, eos_token_id=0)
    assert (model.bos_id, model.tokenizer.bos_token) == (None, None)
    assert model.tokenizer.eos_token == model.tokenizer.convert_ids_to_tokens(0)


def test_what_old_files_keep_beside_the_weights_is_left_alone(folder: Path, tiny_gpt2: Any) -> None:
    """The mask of each block, and parts outside the blocks; a part of a block that nobody reads is another network."""
    rewrite(folder, **{"transformer.h.1.attn.bias": torch.ones(1, 1, 64, 64), "score.weight": torch.ones(2, 32)})
    rewrite(folder, **{"transformer.h.1.attn.masked_bias": torch.tensor(-1e4)})
    weights = build(folder).network.state_dict()
    assert all(torch.equal(weights[name], own) for name, own in tiny_gpt2.network.state_dict().items())
    rewrite(folder, **{"transformer.h.1.attn.q_norm": torch.ones(8)})
    with pytest.raises(ModelLoadError, match=r"mine: 1 of its weights are left over, transformer\.h\.1\.attn\.q_norm"):
        build(folder)


@pytest.fixture
def settings() -> Iterator[Callable[[], tuple[int, bool]]]:
    """Settings of ``transformers`` that are nobody's defaults, and the function that looks at them."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity(logging.DEBUG)
    logging.disable_progress_bar()
    yield lambda: (logging.get_verbosity(), logging.is_progress_bar_enabled())
    logging.set_verbosity(before)
    logging.enable_progress_bar()


def test_settings_of_transformers_are_put_back(folder: Path, settings: Callable[[], tuple[int, bool]]) -> None:
    from transformers.utils import logging

    quiet = settings()
    build(folder)
    assert settings() == quiet
    logging.enable_progress_bar()
    with pytest.raises(ModelLoadError, match=r"the weights do not fit config\.json"):
        build(folder, n_embd=36)
    assert settings() == (quiet[0], True)
