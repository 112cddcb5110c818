"""SAEs and trainings on disk; the layout of an SAE is SAELens': ``cfg.json`` and ``sae_weights.safetensors``."""

from sae_widget.checkpoint.base import SaeFileError
from sae_widget.checkpoint.folder import load_sae, load_stats, save_sae
from sae_widget.checkpoint.hub import load_release
from sae_widget.checkpoint.training import load_training_state, save_training_state

__all__ = [
    "SaeFileError",
    "load_release",
    "load_sae",
    "load_stats",
    "load_training_state",
    "save_sae",
    "save_training_state",
]
