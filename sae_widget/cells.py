"""Which notebook cell is running, so that running it again closes what it made before."""

from __future__ import annotations

import sys
import weakref
from typing import Protocol


class Closable(Protocol):
    """What a cell makes."""

    def close(self) -> None:
        """Stop and free everything."""


_MADE: dict[str, list[tuple[weakref.ref[Closable], str]]] = {}


def replace_predecessor(made: Closable, name: str | None) -> None:
    """Close what the same cell (or name) made when it ran before; what this run made stays.

    Args:
        made: what takes its place; only a weak reference to it is kept.
        name: in place of the cell, None for the cell.
    """
    key, run = cell_and_run()
    if name is not None:
        key, run = f"name:{name}", ""
    if not key:
        return
    kept = []
    for reference, made_in in _MADE.get(key, []):
        old = reference()
        if old is not None and name is None and made_in == run:
            kept.append((reference, made_in))
        elif old is not None:
            old.close()
    _MADE[key] = [*kept, (weakref.ref(made), run)]


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
