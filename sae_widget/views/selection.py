"""The shared selection, one model in the browser that every pane looks at; and the panes' base widget."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any, ClassVar

import anywidget
from traitlets import Bool, Int, TraitError, Unicode

from sae_widget.views.base import read_static
from sae_widget.views.palette import as_javascript

if TYPE_CHECKING:
    from collections.abc import Callable

    from sae_widget.state import ExplorerState

log = logging.getLogger("sae_widget")
_LIMIT = 2**31 - 1


class GuardedWidget(anywidget.AnyWidget):
    """An anywidget that takes from the browser only what it named, and only if it fits.

    Anything else is dropped, and the value that Python holds is sent back, so that both sides agree again.
    The ``refused`` counter rises, for the pane to say so. ``asked(name, value)`` is called for each value
    that was taken from the browser, and only then, so that a pane can tell a person's wish from its own
    drawing. Updates are taken under ``guard``, the state's lock: a drawing thread never meets half of one.
    """

    from_browser: ClassVar[tuple[str, ...]] = ()
    """Traits that the browser may set."""

    refused = Int(0).tag(sync=True)

    def __init__(self, asked: Callable[[str, Any], None] | None = None, guard: Any = None, **traits: Any) -> None:
        self._on_asked = asked
        self._guard = guard if guard is not None else threading.RLock()
        super().__init__(**traits)

    def set_state(self, sync_data: dict[str, Any]) -> None:
        """Take an update of the browser (called by ipywidgets)."""
        with self._guard:
            self._take(sync_data)

    def _take(self, sync_data: dict[str, Any]) -> None:
        fitting: dict[str, Any] = {}
        refused = []
        for name, value in sync_data.items():
            if name in self.from_browser and self._fits(name, value):
                fitting[name] = value
            elif name in self.keys:
                refused.append(name)
        if fitting:
            super().set_state(fitting)
            for name, value in fitting.items():
                if self._on_asked is not None:
                    self._on_asked(name, value)
        if refused:
            log.info("refused from the browser: %s", ", ".join(sorted(refused)))
            self.refused += 1
            self.send_state(refused)

    def _fits(self, name: str, value: Any) -> bool:
        trait = self.traits()[name]
        if isinstance(value, bool) != isinstance(trait, Bool):
            return False
        if isinstance(value, float) and isinstance(trait, Int):
            return False
        try:
            trait._validate(self, value)
        except (TraitError, TypeError, ValueError):
            return False
        return True

    def close(self) -> None:
        """Close the widget and its layout, which ipywidgets would leave behind."""
        if self.comm is not None:
            self.layout.close()
            super().close()


def pane_code(*names: str) -> str:
    """The browser's code of a pane as one module: the palette, ``base.js``, then the named files."""
    return as_javascript() + "\n" + read_static("base.js", *names)


class PaneWidget(GuardedWidget):
    """What the widget of every pane has besides its own data."""

    selection = anywidget.WidgetTrait().tag(sync=True)  # the shared ``Selection``
    fault = Unicode("", help="a sentence about what went wrong in this pane").tag(sync=True)
    _css = read_static("style.css")


class Selection(GuardedWidget):
    """The selected feature and token of one explorer; a model without a view.

    Panes set ``selected`` and ``token`` in the browser, where the highlight is made; Python is told
    afterwards. What is hovered lives in the browser alone: an attribute that Python's model does not have.
    """

    _esm = "export default {};"
    from_browser = ("selected", "token")

    selected = Int(None, allow_none=True, min=0, max=_LIMIT).tag(sync=True)
    token = Int(None, allow_none=True, min=0, max=_LIMIT).tag(sync=True)

    def __init__(self, state: ExplorerState) -> None:
        self._state = state
        super().__init__(guard=state.lock, selected=state.selected, token=state.token)
        state.observe(self._from_state, names=["selected", "token"])
        state.observe(self._drop_what_is_gone, names=["features"])
        self.observe(self._to_state, names=["selected", "token"])

    def close(self) -> None:
        """Stop following the state; ipywidgets calls this again when the object is collected."""
        if self.comm is None:
            return
        state = self._state
        state.unobserve(self._from_state, names=["selected", "token"])
        state.unobserve(self._drop_what_is_gone, names=["features"])
        self.unobserve_all()
        super().close()

    def _fits(self, name: str, value: Any) -> bool:
        if not super()._fits(name, value):
            return False
        return value is None or value < _count(self._state, name)

    # The value is read when the lock is held, not taken from the change: whichever thread comes last, both
    # sides then hold the same. Each trait moves alone: a feature and its token that come together would
    # otherwise undo each other.
    def _to_state(self, change: Any) -> None:
        with self._state.lock:
            setattr(self._state, change.name, getattr(self, change.name))

    def _from_state(self, change: Any) -> None:
        with self._state.lock:
            setattr(self, change.name, getattr(self._state, change.name))

    def _drop_what_is_gone(self, _change: Any) -> None:
        for name in ("selected", "token"):
            value = getattr(self._state, name)
            if value is not None and self._state.features is not None and value >= _count(self._state, name):
                setattr(self._state, name, None)


def selection_for(state: ExplorerState) -> Selection:
    """The one selection of an explorer, made when it is first asked for and again after it was closed.

    Whoever closes the views closes it too: ``selection_for(state).close()``.
    """
    with state.lock:
        known: Selection | None = getattr(state, "_selection", None)
        if known is None or known.comm is None:
            known = Selection(state)
            state._selection = known
        return known


def _count(state: ExplorerState, name: str) -> int:
    """How many features or tokens there are to select; no limit while there is nothing."""
    features = state.features
    if features is None:
        return _LIMIT
    if name == "selected":
        return int(features.sae.d_sae)
    return _LIMIT if features.prompt is None else int(features.prompt.activations.n_tokens)
