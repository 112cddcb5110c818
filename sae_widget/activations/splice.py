"""Running a language model with the activations at one place changed on the way."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from sae_widget.activations.base import LanguageModel, check_site

if TYPE_CHECKING:
    from collections.abc import Callable

    Edit = Callable[[torch.Tensor], torch.Tensor]


def spliced_logits(
    model: LanguageModel, token_ids: torch.Tensor, layer: int, hook_name: str, edit: Edit | None = None
) -> torch.Tensor:
    """The model's next-token logits when the activations at one place are replaced.

    Everything behind the place reads what ``edit`` gives back; nothing of the model is changed, and other threads
    that run it are not touched (no hooks).

    Args:
        model: what ``load_model`` returned.
        token_ids: ``[batch, pos]`` int64, at most ``n_positions`` each.
        layer: block, from 0 to ``n_layer - 1``; with ``final_norm`` any of them is the same.
        hook_name: one of ``HOOK_NAMES``.
        edit: from the activations ``[batch, pos, d_in]`` to what takes their place, same shape; None: the clean run.

    Returns:
        ``[batch, pos, vocab_size]`` on the model's device.

    Raises:
        TypeError: a layer that is no whole number.
        ValueError: a place that the model does not have, too many tokens, or an ``edit`` that changes the shape.
    """
    check_site(layer, hook_name, model.n_layer)
    if token_ids.ndim != 2 or not 1 <= token_ids.shape[1] <= model.n_positions:
        raise ValueError(f"token_ids must be [batch, 1 to {model.n_positions}], got shape {list(token_ids.shape)}")
    with torch.no_grad():
        resid = resid_before(model, token_ids.to(model.device), layer, hook_name)
        return head(model, normed_after(model, resid, layer, hook_name, edit))


def resid_before(model: LanguageModel, token_ids: torch.Tensor, layer: int, hook_name: str) -> torch.Tensor:
    """The residual stream as it enters the block of the place (behind the last one for ``final_norm``).

    ``[batch, pos]`` on the model's device to ``[batch, pos, d_in]``; what all runs with another ``edit`` share.
    """
    resid = model.adapter.embed(token_ids)
    for index in range(model.n_layer if hook_name == "final_norm" else layer):
        resid = model.adapter.block(index, resid).resid_post
    return resid


def normed_after(
    model: LanguageModel, resid: torch.Tensor, layer: int, hook_name: str, edit: Edit | None
) -> torch.Tensor:
    """From ``resid_before`` through the place to what the head reads. ``[batch, pos, d_in]``, both."""

    def change(name: str, values: torch.Tensor) -> torch.Tensor:
        if edit is None or name != hook_name:
            return values
        changed = edit(values)
        if changed.shape != values.shape:
            raise ValueError(f"edit must keep the shape {list(values.shape)}, gave {list(changed.shape)}")
        return changed

    if hook_name != "final_norm":
        resid = model.adapter.block(layer, change("resid_pre", resid), change).resid_post
        for index in range(layer + 1, model.n_layer):
            resid = model.adapter.block(index, resid).resid_post
    return change("final_norm", model.adapter.final_norm(resid))


def head(model: LanguageModel, normed: torch.Tensor) -> torch.Tensor:
    """Next-token logits from what comes out of the final norm. ``[..., d_in] -> [..., vocab_size]``."""
    return model.network.get_output_embeddings()(normed)
