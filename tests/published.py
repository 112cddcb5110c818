"""An SAE of the width of the tiny GPT-2, and its folder as SAELens publishes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

D_IN, D_SAE = 32, 40


def tensors(d_in: int = D_IN, seed: int = 3) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = {"W_enc": (d_in, D_SAE), "b_enc": (D_SAE,), "W_dec": (D_SAE, d_in), "b_dec": (d_in,)}
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def published(folder: Path, d_in: int = D_IN, changes: dict[str, Any] | None = None, **told: Any) -> Path:
    """A folder as SAELens publishes it: two files, and nothing of ours."""
    folder.mkdir()
    save_file(tensors(d_in), folder / "sae_weights.safetensors")
    metadata = {"sae_lens_version": "6.0.0"} | told
    config = {"architecture": "standard", "d_in": d_in, "d_sae": D_SAE, "dtype": "float32", "metadata": metadata}
    (folder / "cfg.json").write_text(json.dumps(config | (changes or {})))
    return folder
