"""The SAEs that ship with the bundled model, one for each place of its residual stream."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sae_widget.activations.base import layer_name
from sae_widget.checkpoint import load_sae, load_stats
from sae_widget.features import FeatureStats

if TYPE_CHECKING:
    from sae_widget.sae.base import SAE

FOLDER = Path(__file__).parent / "bundled" / "saes"


def sae_folder(layer: int, hook_name: str, n_layer: int) -> Path:
    """Where the SAE of a read point lies; ``resid_pre`` of a block and ``resid_post`` of the one before share one."""
    return FOLDER / layer_name(layer, hook_name, n_layer).replace(" ", "-")


def bundled_sae(layer: int, hook_name: str, n_layer: int) -> tuple[SAE, FeatureStats] | None:
    """The bundled model's SAE for a read point with its statistics, or None where none ships.

    Args:
        layer: block, counted from 0.
        hook_name: only ``resid_pre`` and ``resid_post`` have SAEs.
        n_layer: number of blocks of the bundled model.
    """
    folder = sae_folder(layer, hook_name, n_layer)
    if hook_name not in ("resid_pre", "resid_post") or not (folder / "cfg.json").exists():
        return None
    stats = load_stats(folder)
    if stats is None:
        return None
    return load_sae(folder), FeatureStats.from_tensors(stats)
