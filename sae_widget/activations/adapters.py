"""One adapter for each family of language models: its blocks, called one after another.

Blocks are called rather than hooked: forward hooks on a shared model would catch the activations of
every other thread that runs it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from sae_widget.activations.base import Adapter, BlockParts, ModelLoadError, unchanged
from sae_widget.activations.families import family_names

if TYPE_CHECKING:
    from collections.abc import Callable

    from sae_widget.activations.base import Change

ADAPTERS: dict[str, Callable[[Any], Adapter]] = {}


def adapter_for(network: Any) -> Adapter:
    """The adapter of a ``transformers`` model, with or without its head.

    Raises:
        ModelLoadError: no adapter for this family; the message names those that there are.
    """
    model_type = getattr(getattr(network, "config", None), "model_type", None)
    if model_type not in ADAPTERS:
        kind = repr(model_type) if model_type else type(network).__name__
        raise ModelLoadError(f"A model of type {kind} cannot be read. Supported: {family_names()}.")
    return ADAPTERS[model_type](network)


class GPT2Adapter:
    """GPT-2: pre-norm blocks, attention then MLP, learned positions added to the embeddings.

    Args:
        network: ``GPT2LMHeadModel`` or ``GPT2Model`` in eval mode.
    """

    def __init__(self, network: Any) -> None:
        self.body = getattr(network, "transformer", network)

    def embed(self, token_ids: torch.Tensor) -> torch.Tensor:
        """``[batch, pos]`` ids to ``[batch, pos, d_in]``: token plus position."""
        positions = torch.arange(token_ids.shape[1], device=token_ids.device)
        return self.body.drop(self.body.wte(token_ids) + self.body.wpe(positions))

    def block(self, index: int, resid_pre: torch.Tensor, change: Change = unchanged) -> BlockParts:
        """The read points of block ``index``, each ``[batch, pos, d_in]``; ``change`` as in ``Adapter``."""
        block = self.body.h[index]
        attended = block.attn(block.ln_1(resid_pre), attention_mask=_causal_mask(self.body, resid_pre))[0]
        attn_out = change("attn_out", attended)
        resid_mid = change("resid_mid", attn_out + resid_pre)
        mlp_out = change("mlp_out", block.mlp(block.ln_2(resid_mid)))
        return BlockParts(attn_out, resid_mid, mlp_out, change("resid_post", resid_mid + mlp_out))

    def final_norm(self, resid: torch.Tensor) -> torch.Tensor:
        """``ln_f``, whose output the head reads."""
        return self.body.ln_f(resid)


class GPTNeoXAdapter:
    """GPT-NeoX and Pythia: rotary positions; attention and MLP in parallel, or one after the other.

    With the parallel residual the MLP reads the block's input, not ``resid_mid``; ``resid_mid`` is then the
    input plus the attention's output, the partial sum on the way to ``resid_post``.

    Args:
        network: ``GPTNeoXForCausalLM`` or ``GPTNeoXModel`` in eval mode.
    """

    def __init__(self, network: Any) -> None:
        self.body = getattr(network, "gpt_neox", network)

    def embed(self, token_ids: torch.Tensor) -> torch.Tensor:
        """``[batch, pos]`` ids to ``[batch, pos, d_in]``: the tokens alone."""
        return self.body.emb_dropout(self.body.embed_in(token_ids))

    def block(self, index: int, resid_pre: torch.Tensor, change: Change = unchanged) -> BlockParts:
        """The read points of block ``index``, each ``[batch, pos, d_in]``; ``change`` as in ``Adapter``."""
        layer = self.body.layers[index]
        positions = torch.arange(resid_pre.shape[1], device=resid_pre.device)[None]  # [1, pos]
        attended = layer.attention(
            layer.input_layernorm(resid_pre),
            attention_mask=_causal_mask(self.body, resid_pre),
            position_embeddings=self.body.rotary_emb(resid_pre, position_ids=positions),
        )
        attn_out = change("attn_out", layer.post_attention_dropout(attended[0]))
        resid_mid = change("resid_mid", attn_out + resid_pre)
        mlp_input = resid_pre if layer.use_parallel_residual else resid_mid
        mlp_out = layer.post_mlp_dropout(layer.mlp(layer.post_attention_layernorm(mlp_input)))
        mlp_out = change("mlp_out", mlp_out)
        return BlockParts(attn_out, resid_mid, mlp_out, change("resid_post", resid_mid + mlp_out))

    def final_norm(self, resid: torch.Tensor) -> torch.Tensor:
        """``final_layer_norm``, whose output the head reads."""
        return self.body.final_layer_norm(resid)


ADAPTERS["gpt2"] = GPT2Adapter
ADAPTERS["gpt_neox"] = GPTNeoXAdapter


def _causal_mask(body: Any, resid: torch.Tensor) -> torch.Tensor | None:
    """Hides the future: ``None`` for "sdpa", which does so itself, or additive ``[1, 1, pos, pos]``."""
    if body.config._attn_implementation == "sdpa":
        return None
    n_pos = resid.shape[1]
    mask = torch.full((n_pos, n_pos), torch.finfo(resid.dtype).min, dtype=resid.dtype, device=resid.device)
    return mask.triu(1)[None, None]
