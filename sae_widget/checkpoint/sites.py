"""Where an SAE reads a model, in the names of others and in ours."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any

from sae_widget.checkpoint.base import printable
from sae_widget.config import HOOK_NAMES

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
    elif isinstance(hook, str) and "hook_" in hook:  # a name of theirs that we have no other for
        names["hook_name"] = hook
    elif type(layer) is int and isinstance(hook, str):
        names["hook_name"] = f"blocks.{layer}.hook_{hook}"
    return names


def mismatch(sae: SAE, model_name: str, layer: int, hook_name: str) -> str | None:
    """A sentence naming both places when an SAE says that it was trained at another; None when they agree.

    What an SAE does not say agrees with everything; ``final_norm`` is one place, whatever the layer, and so are
    ``resid_post`` of a block and ``resid_pre`` of the next.
    """
    model, at, hook = (sae.metadata.get(key) for key in ("model_name", "layer", "hook_name"))
    here = at is None or at == layer or hook == hook_name == "final_norm"
    here = here and (hook is None or hook == hook_name)
    between = type(at) is int and _between(at, hook) is not None and _between(at, hook) == _between(layer, hook_name)
    if (here or between) and (model is None or our_model_name(str(model)) == our_model_name(model_name)):
        return None
    return f"this SAE was trained on {trained_on(sae)}, the explorer reads {model_name} {hook_name} {layer}"


def _between(layer: int, hook: object) -> int | None:
    """Of the residual stream between two blocks, the number of the one behind; None for any other place."""
    return {"resid_pre": layer, "resid_post": layer + 1}.get(str(hook))


def trained_on(sae: SAE) -> str:
    """Model, hook and layer of an SAE as it names them; empty when it names none."""
    told = (sae.metadata.get(key) for key in ("model_name", "hook_name", "layer"))
    return " ".join(printable(str(part)[:200]) for part in told if part is not None)


def place_for(sae: SAE, n_layer: int, layer: int, hook_name: str) -> tuple[int, str]:
    """The layer and hook at which to read a model of ``n_layer`` blocks for an SAE: what it does not say stays.

    So does what it says and we or the model do not have; ``mismatch`` tells of it.
    """
    told, hook = sae.metadata.get("layer"), sae.metadata.get("hook_name")
    if type(told) is int and 0 <= told < n_layer:
        layer = told
    return layer, str(hook) if hook in HOOK_NAMES else hook_name


def reading_notes(sae: SAE, *, prepend_bos: bool, length: int) -> str:
    """What is otherwise than in the training of an SAE, in sentences; empty where nothing is, or nothing is known.

    Args:
        sae: whose metadata tell of ``prepend_bos``, ``context_size`` and ``seqpos_slice``, by SAELens' names.
        prepend_bos: whether windows are read behind the start token.
        length: tokens of the longest window that is read.
    """
    notes = []
    told = sae.metadata.get("prepend_bos")
    if isinstance(told, bool) and told is not prepend_bos:
        notes.append(f"It was trained {'with' if told else 'without'} a start token in front.")
    known = _positions(sae.metadata, length)
    if len(known) and any(place not in known for place in range(1, length)):
        notes.append(f"It was trained on positions {known[0]} to {known[-1]} of a window; this text has others.")
    return " ".join(notes)


def _positions(metadata: dict[str, Any], length: int) -> range:
    """The places of a window that an SAE was trained on; all of them where that is not said, or not clearly."""
    size, part = metadata.get("context_size"), metadata.get("seqpos_slice")
    window = range(min(size, sys.maxsize)) if type(size) is int and size > 0 else range(length)
    if not isinstance(part, (list, tuple)) or not 1 <= len(part) <= 3:
        return window
    said = all(at is None or type(at) is int for at in part) and 0 not in part[2:]
    return window[slice(*part)] if said else window
