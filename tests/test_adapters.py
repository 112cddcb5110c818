"""sae_widget.activations.adapters: each block equal to what transformers itself computes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from sae_widget.activations.adapters import ADAPTERS, adapter_for
from sae_widget.activations.base import ModelLoadError
from sae_widget.activations.families import FAMILIES


@pytest.fixture(autouse=True)
def own_random_numbers() -> Iterator[None]:
    """New models draw their weights from torch's global generator."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        yield


def gpt2(**changes: Any) -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    shape = {"vocab_size": 90, "n_positions": 40, "n_embd": 24, "n_layer": 4, "n_head": 3}
    return GPT2LMHeadModel(GPT2Config(**shape, **changes))


def gpt_neox(**changes: Any) -> Any:
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    shape = {
        "vocab_size": 90,
        "max_position_embeddings": 40,
        "hidden_size": 24,
        "num_hidden_layers": 4,
        "num_attention_heads": 3,
        "intermediate_size": 50,
    }
    return GPTNeoXForCausalLM(GPTNeoXConfig(**shape, **changes))


# Where transformers keeps the body of a model, its blocks and their attention.
NAMES = {
    "gpt2": ("transformer", "h", "attn"),
    "gpt_neox": ("gpt_neox", "layers", "attention"),
}
CASES: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "gpt2": (gpt2, {}),
    "gpt2, eager attention": (gpt2, {"attn_implementation": "eager"}),
    "gpt2, scaled by layer": (gpt2, {"scale_attn_by_inverse_layer_idx": True}),
    "gpt2, narrow MLP": (gpt2, {"n_inner": 20}),
    "gpt_neox, parallel": (gpt_neox, {"use_parallel_residual": True}),
    "gpt_neox, sequential": (gpt_neox, {"use_parallel_residual": False}),
    "gpt_neox, eager attention": (gpt_neox, {"attn_implementation": "eager"}),
}


@pytest.fixture(params=list(CASES))
def network(request: pytest.FixtureRequest) -> Any:
    make, changes = CASES[request.param]
    model = make(**changes).eval()
    for name, parameter in model.named_parameters():
        # Random biases and larger weights, so that no part is near zero.
        torch.nn.init.normal_(parameter, mean=1.0 if "norm" in name or "ln_" in name else 0.0, std=0.2)
    return model


@pytest.mark.parametrize("n_pos", [1, 11, 40])
def test_equal_to_output_hidden_states(network: Any, n_pos: int) -> None:
    ids = torch.arange(2 * n_pos).reshape(2, n_pos) * 7 % 90
    adapter = adapter_for(network)
    with torch.no_grad():
        expected = network(ids, output_hidden_states=True).hidden_states
        resid = adapter.embed(ids)
        for index in range(4):
            torch.testing.assert_close(resid, expected[index], atol=1e-5, rtol=1e-5)
            resid = adapter.block(index, resid).resid_post
        torch.testing.assert_close(adapter.final_norm(resid), expected[4], atol=1e-5, rtol=1e-5)
    assert len(expected) == 5


def test_parts_of_a_block_equal_hooks(network: Any) -> None:
    """In one thread hooks are sound, so they say what each part has to be."""
    body, blocks, attention = NAMES[network.config.model_type]
    block = getattr(getattr(network, body), blocks)[2]
    caught: dict[str, torch.Tensor] = {}
    handles = [
        getattr(block, attention).register_forward_hook(lambda m, i, o: caught.__setitem__("attn_out", o[0])),
        block.mlp.register_forward_hook(lambda m, i, o: caught.__setitem__("mlp_out", o)),
        block.register_forward_hook(lambda m, i, o: caught.__setitem__("post", o[0] if isinstance(o, tuple) else o)),
        block.register_forward_pre_hook(lambda m, i: caught.__setitem__("pre", i[0])),
    ]
    ids = torch.arange(14).reshape(2, 7)
    with torch.no_grad():
        network(ids)
        for handle in handles:
            handle.remove()
        parts = adapter_for(network).block(2, caught["pre"])
    for name, expected in (
        ("attn_out", caught["attn_out"]),
        ("mlp_out", caught["mlp_out"]),
        ("resid_mid", caught["pre"] + caught["attn_out"]),
        ("resid_post", caught["post"]),
    ):
        torch.testing.assert_close(getattr(parts, name), expected, atol=1e-5, rtol=1e-5)


def test_a_model_without_its_head(network: Any) -> None:
    body = getattr(network, NAMES[network.config.model_type][0])
    ids = torch.arange(6)[None]
    torch.testing.assert_close(adapter_for(body.eval()).embed(ids), adapter_for(network.eval()).embed(ids))


def test_another_family_is_refused_with_the_supported_ones() -> None:
    from transformers import BertConfig, BertModel

    shape = {"hidden_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    with pytest.raises(ModelLoadError, match=r"type 'bert' cannot be read. Supported: gpt2 \(.*gpt_neox \("):
        adapter_for(BertModel(BertConfig(vocab_size=20, **shape)))
    with pytest.raises(ModelLoadError, match="type Linear cannot be read"):
        adapter_for(torch.nn.Linear(2, 3))


def test_every_family_has_its_adapter() -> None:
    tried = {make().config.model_type for make, _ in CASES.values()}
    assert ADAPTERS.keys() == FAMILIES.keys() == NAMES.keys() == tried
