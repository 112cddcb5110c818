"""A clock in the page that asks the kernel for news, where updates from threads are not shown (Colab)."""

from __future__ import annotations

import os
import sys

import anywidget
from traitlets import Int

from sae_widget.views.base import read_static


class PageClock(anywidget.AnyWidget):
    """Has no face; ``ticks`` rises five times a second while the page is open and not hidden."""

    _esm = read_static("clock.js")
    ticks = Int(0, help="set by the page").tag(sync=True)
    period = Int(200, help="milliseconds").tag(sync=True)


def is_polled() -> bool:
    """Whether the page has to ask for news: Colab does not show updates from threads."""
    return "google.colab" in sys.modules or os.environ.get("SAE_WIDGET_POLL") == "1"
