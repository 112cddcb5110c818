"""The libraries that are compared with: imported where they are, skipped where they are not."""

from __future__ import annotations

import importlib
import importlib.util
import os
from typing import Any

import pytest


def peer(name: str) -> Any:
    """A module of another library.

    Skips the file that asks where the library is not installed, except in ``make test-peers``, where it has to be.
    An installed library that cannot be imported is a fault.
    """
    if "SAE_WIDGET_PEERS" not in os.environ and importlib.util.find_spec(name.split(".")[0]) is None:
        pytest.skip(f"{name} is in an environment of its own: make test-peers", allow_module_level=True)
    return importlib.import_module(name)
