"""SAEs, and folders with them as this and other programs write them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from sae_widget.sae import SAE, StandardSAE

CFG, WEIGHTS = "cfg.json", "sae_weights.safetensors"
MINIMAL = {
    "architecture": "standard",
    "d_in": 6,
    "d_sae": 10,
    "dtype": "float32",
    "metadata": {
        "sae_lens_version": "6.0.0",
        "model_name": "gpt2-small",
        "hook_name": "blocks.8.hook_resid_pre",
    },
}


def an_sae(seed: int = 1, **changes: Any) -> SAE:
    g = torch.Generator().manual_seed(seed)
    parts = {"W_enc": (6, 10), "b_enc": (10,), "W_dec": (10, 6), "b_dec": (6,)}
    return StandardSAE(**{name: torch.randn(shape, generator=g) for name, shape in parts.items()}, **changes)


def some_x() -> torch.Tensor:
    return torch.randn(5, 6, generator=torch.Generator().manual_seed(2))


def foreign(folder: Path, config: dict[str, Any] | None = None, **tensors: torch.Tensor) -> Path:
    """A folder as another program writes it."""
    sae = an_sae()
    weights = {name: getattr(sae, name) for name in ("W_enc", "b_enc", "W_dec", "b_dec")} | tensors
    folder.mkdir(exist_ok=True)
    save_file(weights, folder / WEIGHTS)
    (folder / CFG).write_text(json.dumps(MINIMAL | (config or {})))
    return folder
