"""SAEs on disk, in SAELens' layout: ``cfg.json`` and ``sae_weights.safetensors`` in one folder."""

from sae_widget.checkpoint.base import SaeFileError
from sae_widget.checkpoint.folder import load_sae, load_stats, save_sae

__all__ = ["SaeFileError", "load_sae", "load_stats", "save_sae"]
