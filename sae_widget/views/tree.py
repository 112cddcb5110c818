"""All widgets of a pane, wherever they are held: closed together, and answered where the page asks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import ipywidgets as W


def every_widget(*roots: W.Widget, keep: Iterable[W.Widget] = ()) -> Iterator[W.Widget]:
    """Widgets and every widget that they hold in any trait, each once.

    Args:
        roots: where to begin.
        keep: widgets that are passed over, with what they hold.
    """
    known, waiting = {id(widget) for widget in keep}, list(roots)
    while waiting:
        widget = waiting.pop()
        if id(widget) in known:
            continue
        known.add(id(widget))
        yield widget
        for name in widget.keys:
            waiting.extend(_widgets_in(widget._trait_values.get(name)))


def close_everything(*roots: W.Widget, keep: Iterable[W.Widget] = ()) -> None:
    """Close widgets and every widget that they hold in any trait, and drop their observers; not those in ``keep``."""
    for widget in list(every_widget(*roots, keep=keep)):
        widget.unobserve_all()
        widget.close()


def answer_the_page(*roots: W.Widget) -> None:
    """Let each message from a page be handled in the subshell that the page names in it, for these and what they hold.

    A page asks a kernel for a subshell, so that widgets answer while a cell runs. ipykernel 7.4 sends a message to
    the one that the widget last answered instead, and takes what a thread of ours sends for an answer to whatever
    message came last. That one may be from a page that has gone, with its subshell: the next click then went nowhere.
    Kernels without such a rule (before 7.4), and those without subshells (before 7), are left as they are.
    """
    for widget in every_widget(*roots):
        if hasattr(widget.comm, "_reply_subshell_for"):
            widget.comm._reply_subshell_for = None


def _widgets_in(value: Any) -> list[W.Widget]:
    if isinstance(value, W.Widget):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    return [item for item in value if isinstance(item, W.Widget)] if isinstance(value, (list, tuple)) else []
