"""Where an SAE reads a model, in the names of others and in ours."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sae_widget.sae import SAE

FINAL_NORM = "ln_final.hook_normalized"
_SITES = "resid_pre|resid_mid|resid_post|attn_out|mlp_out"
_HEADS = re.compile(r"hook_(z|q|k|v|pattern|attn_scores|result)(_|$)")
_KEPT = ("prepend_bos", "context_size", "dataset_path", "neuronpedia_id", "seqpos_slice")
_OTHER_NAMES = {
    "gpt2-small": "gpt2",
    "openai-community/gpt2": "gpt2",
    "distilbert/distilgpt2": "distilgpt2",
    "distillgpt2": "distilgpt2",
    **{f"openai-community/gpt2-{size}": f"gpt2-{size}" for size in ("medium", "large", "xl")},
    **{f"pythia-{size}": f"EleutherAI/pythia-{size}" for size in ("70m", "160m", "410m", "1b", "1.4b")},
    **{f"pythia-{size}-deduped": f"EleutherAI/pythia-{size}-deduped" for size in ("70m", "160m", "410m", "1b", "1.4b")},
}
"""What other libraries call models that ``load_model`` knows by another name."""


def our_model_name(name: str) -> str:
    """The name by which ``load_model`` knows a model: ``gpt2-small`` is ``gpt2``."""
    return _OTHER_NAMES.get(name, name)


def our_site(hook_name: str) -> dict[str, Any]:
    """Layer and place that TransformerLens' name of a hook means; empty for one that we have no name for."""
    if hook_name == FINAL_NORM:
        return {"hook_name": "final_norm"}
    found = re.fullmatch(rf"blocks\.(\d{{1,4}})\.hook_({_SITES})", hook_name)
    return {"layer": int(found[1]), "hook_name": found[2]} if found else {}


def is_of_heads(hook_name: str) -> bool:
    """Whether a hook is inside the attention, where each head has its own activations."""
    return _HEADS.search(hook_name) is not None


def shared_names(metadata: dict[str, Any]) -> dict[str, Any]:
    """Model, hook and what else SAELens keeps of our metadata, by the names that other readers know."""
    names = {key: metadata[key] for key in _KEPT if metadata.get(key) is not None}
    if isinstance(metadata.get("model_name"), str):
        names["model_name"] = metadata["model_name"]
    layer, hook = metadata.get("layer"), metadata.get("hook_name")
    if hook == "final_norm":
        names["hook_name"] = FINAL_NORM
    elif isinstance(layer, int) and isinstance(hook, str):
        names["hook_name"] = f"blocks.{layer}.hook_{hook}"
    elif isinstance(hook, str) and "hook_" in hook:  # a name of theirs that we have no other for
        names["hook_name"] = hook
    return names


def mismatch(sae: SAE, model_name: str, layer: int, hook_name: str) -> str | None:
    """A sentence naming both places when an SAE says that it was trained at another; None when they agree.

    What an SAE does not say agrees with everything; ``final_norm`` is one place, whatever the layer.
    """
    told = tuple(sae.metadata.get(key) for key in ("model_name", "layer", "hook_name"))
    model, at, hook = told
    here = (
        model is None or our_model_name(str(model)) == our_model_name(model_name),
        at is None or at == layer or hook == hook_name == "final_norm",
        hook is None or hook == hook_name,
    )
    if all(here):
        return None
    made = " ".join(str(part) for part in (model, hook, at) if part is not None)
    return f"this SAE was trained on {made}, the explorer reads {model_name} {hook_name} {layer}"
