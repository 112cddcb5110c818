"""What a kernel imports before a test asks for anything, so that it does so while the page loads.

These seconds are no test's subject, apart from the quickstart's: its kernel is cold, as a person's is.
"""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path

# A notebook with this in front of its name has a warm kernel.
WARM = "warm-"
# All that an explorer has imported by the end of its first training; each takes a second or so.
HEAVY = ("torch._dynamo", "transformers.models.gpt2.modeling_gpt2", "sae_widget.explorer", "sae_widget.views")
# Jupyter's server tells the kernel in JPY_SESSION_NAME which notebook it is for. A file of IPython's start-up runs in
# the person's namespace: this leaves no name there.
STARTUP = f"__import__({__name__!r}, fromlist=['warm']).warm_up()\n"


def warm_up() -> None:
    """Import what is heavy, in the kernel of a notebook that is to be warm."""
    if Path(os.environ.get("JPY_SESSION_NAME", "")).name.startswith(WARM):
        for name in HEAVY:
            import_module(name)
