"""The published SAEs of GPT-2 small: what each release is called, where it lies, and what it was trained on.

The names, places and factors are those of SAELens 6.54.12 (``pretrained_saes.yaml``), with which a test compares them.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Release:
    """One group of published SAEs."""

    repo: str
    """Owner and name on the hub."""
    folders: dict[str, str]
    """Id of an SAE -> its folder in the repository."""
    centred: bool = False
    """Trained on a model whose writing weights were centred: it reads activations less their mean over the width."""
    factors: dict[str, float] = field(default_factory=dict)
    """Id -> what the activations were multiplied with in training, where that was not folded into the weights."""
    refused: str = ""
    """Why it cannot be read here."""


def _layers(site: str, folder: str, layers: range = range(12)) -> dict[str, str]:
    return {f"blocks.{layer}.hook_{site}": folder.format(layer) for layer in layers}


def _openai(site: str, width: str, folder: str = "") -> Release:
    """SAEs that OpenAI trained: TopK with 32 features, each token brought to mean 0 and deviation 1."""
    folders = _layers(site.replace("-", "_"), folder or f"v5_{width}_layer_{{}}")
    return Release(f"jbloom/GPT2-Small-OAI-v5-{width}-{site}-SAEs", folders)


_MLP_VERSIONS = "100000001002"  # the version in the folder's name, for each layer
_MLP_FACTORS = (
    1.049317316132615,
    2.3693984005104283,
    1.6411934982190302,
    1.8958522157897557,
    1.81673478700627,
    1.550234472245924,
    1.3237742807210804,
    1.1042905114723296,
    0.9123762783479742,
    0.6955335635232373,
    0.3619728926727644,
    0.2851548652550073,
)
_MLP = [f"blocks.{layer}.hook_mlp_out" for layer in range(12)]
_WIDTHS = (768, 1536, 3072, 6144, 12288, 24576, 49152, 98304)

RELEASES: dict[str, Release] = {
    "gpt2-small-res-jb": Release(
        "jbloom/GPT2-Small-SAEs-Reformatted",
        _layers("resid_pre", "blocks.{}.hook_resid_pre")
        | _layers("resid_post", "blocks.{}.hook_resid_post", range(11, 12)),
        centred=True,
    ),
    "gpt2-small-res-jb-feature-splitting": Release(
        "jbloom/GPT2-Small-Feature-Splitting-Experiment-Layer-8",
        {f"blocks.8.hook_resid_pre_{width}": f"blocks.8.hook_resid_pre_{width}" for width in _WIDTHS},
        centred=True,
    ),
    "gpt2-small-hook-z-kk": Release(
        "ckkissane/attn-saes-gpt2-small-all-layers",
        {f"blocks.{layer}.hook_z": "" for layer in range(12)},
        refused="it reads the heads of the attention (hook_z) and is kept as a pickle (.pt)",
    ),
    "gpt2-small-mlp-tm": Release(
        "tommmcgrath/gpt2-small-mlp-out-saes",
        {name: f"sae_group_gpt2_{name}_24576:v{version}" for name, version in zip(_MLP, _MLP_VERSIONS, strict=True)},
        centred=True,
        factors=dict(zip(_MLP, _MLP_FACTORS, strict=True)),
    ),
    "gpt2-small-resid-post-v5-32k": _openai("resid-post", "32k", "v5_32k_layer_{}.pt"),
    "gpt2-small-resid-post-v5-128k": _openai("resid-post", "128k"),
    "gpt2-small-resid-mid-v5-32k": _openai("resid-mid", "32k"),
    "gpt2-small-resid-mid-v5-128k": _openai("resid-mid", "128k"),
    "gpt2-small-attn-out-v5-32k": _openai("attn-out", "32k"),
    "gpt2-small-attn-out-v5-128k": _openai("attn-out", "128k"),
    "gpt2-small-mlp-out-v5-32k": _openai("mlp-out", "32k"),
    "gpt2-small-mlp-out-v5-128k": _openai("mlp-out", "128k"),
    **{
        f"gpt2-small-res_{kind}-ajt": Release(
            f"neuronpedia/gpt2-small__res_{kind}-ajt",
            {f"blocks.{layer}.hook_resid_pre": f"{layer}-res_{kind}-ajt" for layer in (2, 6, 10)},
        )
        for kind in ("sce", "scefr", "scl", "sle", "slefr", "sll")
    },
}
"""Name of a release -> where it is."""
