"""One explorer a notebook cell: when the cell runs again, the explorer that it made before is closed."""

from __future__ import annotations

import sys
import weakref
from typing import Any

_EXPLORERS: dict[str, list[tuple[weakref.ref[Any], str]]] = {}
"""Cell (or name) -> the explorers that were made there, each with the run of the cell that made it."""


def replace_predecessor(explorer: Any, name: str | None) -> None:
    """Close the explorer that the same cell (or name) made when it ran before; those of this run stay."""
    key, run = cell_and_run()
    if name is not None:
        key, run = f"name:{name}", ""
    if not key:
        return
    kept = []
    for reference, made_in in _EXPLORERS.get(key, []):
        old = reference()
        if old is not None and name is None and made_in == run:
            kept.append((reference, made_in))
        elif old is not None:
            old.close()
    _EXPLORERS[key] = [*kept, (weakref.ref(explorer), run)]


def cell_and_run() -> tuple[str, str]:
    """The notebook cell that is running and the number of this run, or two empty strings outside a kernel."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    kernel = getattr(shell, "kernel", None)
    if kernel is None:
        return "", ""
    parent = kernel.get_parent("shell") or {}
    cell = parent.get("metadata", {}).get("cellId") or parent.get("content", {}).get("code", "")
    return f"cell:{cell}", parent.get("header", {}).get("msg_id", "")
