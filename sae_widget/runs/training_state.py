"""A stand-in for ``checkpoint.save_training_state`` and ``load_training_state``, of the same signature."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from sae_widget.checkpoint.base import unreadable

if TYPE_CHECKING:
    from pathlib import Path

    import torch


def save_training_state(path: Path, tensors: dict[str, torch.Tensor], info: dict[str, Any]) -> None:
    """Write the state of a trainer, whole or not at all."""
    from safetensors.torch import save

    temporary = path.with_name(f"{path.name}.tmp")
    with temporary.open("wb") as file:
        file.write(save(tensors, {"info": json.dumps(info)}))
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def load_training_state(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The state of a trainer and what was written beside it.

    Raises:
        SaeFileError: there is none, or it is damaged.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            info = json.loads((file.metadata() or {}).get("info", "{}"))
            return {name: file.get_tensor(name).clone() for name in file.keys()}, info
    except (OSError, ValueError, SafetensorError) as error:
        raise unreadable(path.name, "it is not there" if not path.exists() else "it is damaged") from error
