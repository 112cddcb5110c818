"""What every view is: a widget, the traits it reads, and one way of drawing."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from sae_widget.state import ExplorerState
from sae_widget.views.tree import close_everything

log = logging.getLogger("sae_widget")
_STATIC = Path(__file__).parent / "static"


class View:
    """A pane that draws the state.

    A subclass names the traits it ``reads``, builds ``self.widget`` in ``build`` and draws in ``draw``. The
    first drawing and every later one are the same call. A fault while drawing is shown in the pane and goes
    no further: observers run in the thread that set the trait, which may be the training's publisher.
    """

    name: ClassVar[str] = ""
    reads: ClassVar[tuple[str, ...]] = ()
    widget: Any
    unplaced: Sequence[Any] = ()
    """Widgets that are not always below the view's own, closed with it."""
    shared: Sequence[Any] = ()
    """Widgets below it that other views use as well: not closed with it."""

    def __init__(self, state: ExplorerState) -> None:
        self.state = state
        self.build()
        self._redraw(None)
        state.observe(self._redraw, names=list(self.reads))

    def build(self) -> None:
        """Make ``self.widget``; called once."""
        raise NotImplementedError  # every view has its own

    def draw(self) -> None:
        """Bring the widget to what the state says; called at any time, any number of times."""
        raise NotImplementedError  # every view has its own

    def show_fault(self, message: str) -> None:
        """Show a sentence in the pane (an empty one takes it away)."""
        raise NotImplementedError  # every view has its own

    def close(self) -> None:
        """Stop observing and close every widget of the pane, with its layouts and styles."""
        self.state.unobserve(self._redraw, names=list(self.reads))
        close_everything(self.widget, *self.unplaced, keep=self.shared)

    def _redraw(self, _change: Any) -> None:
        with self.state.lock:
            try:
                self.draw()
                self.show_fault(self.state.faults.get(self.name, ""))
            except Exception as fault:
                log.exception("view %s failed", self.name)
                self.show_fault(f"This pane could not be drawn ({type(fault).__name__}: {fault}). The rest goes on.")


def read_static(*names: str) -> str:
    """Front-end files of the package, joined into one module (a ``Path`` would leak every widget)."""
    return "\n".join((_STATIC / name).read_text(encoding="utf-8") for name in names)
