"""Form fields that refuse a bad entry in words: the old value stays, the field turns red."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import ipywidgets as W
from traitlets import Bool, Int, Unicode

from sae_widget.views.base import read_static
from sae_widget.views.selection import GuardedWidget
from sae_widget.views.words import sendable

if TYPE_CHECKING:
    from sae_widget.views.pane import Pane

LABEL_WIDTH = "92px"
MAX_PATH = 1000  # characters
STOP_FIRST = "Stop the training first to change this."
OTHER_LABELS = {"target_l0": "Per token (L0)"}
"""How the form calls settings that an entry in another field can be refused for."""
MAX_TYPED = 40
"""Characters of a refused entry that are repeated in the message."""


def described(kind: type[W.DescriptionWidget], label: str, tooltip: str, **traits: Any) -> Any:
    """A widget of the form: label at the left, the whole width, a sentence on hover."""
    style = {"description_width": LABEL_WIDTH}
    layout = W.Layout(width="auto", min_width="0", flex="1 1 auto")
    return kind(description=label, tooltip=tooltip, style=style, layout=layout, **traits)


def whole(typed: str, label: str) -> int:
    """A whole number as a person types it (``1,024``, ``2e3``).

    Raises:
        TypeError: saying what was typed.
    """
    plain = typed.strip().replace(",", "").replace("_", "").replace(" ", "")
    try:
        value = float(plain) if 0 < len(plain) <= MAX_TYPED else math.nan
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value != int(value):
        raise TypeError(f"{label} must be a whole number, got {_quoted(typed)}")
    return int(plain) if plain.lstrip("+-").isdigit() else int(value)


def number(typed: str, label: str) -> float:
    """A number as a person types it; nan and infinity pass, for the settings to refuse with the range.

    Raises:
        TypeError: saying what was typed.
    """
    plain = typed.strip().replace(" ", "")
    try:
        if 0 < len(plain) <= MAX_TYPED:
            return float(plain)
    except ValueError:
        pass
    raise TypeError(f"{label} must be a number, got {_quoted(typed)}")


def sentence(fault: Exception, name: str, label: str, kept: str) -> str:
    """A refusal as a sentence: the setting's own words under the field's label, and what was kept."""
    words = str(fault)
    for known, told in (OTHER_LABELS | {name: label}).items():
        if words.startswith(f"{known} "):
            words = told + words[len(known) :]
    return f"{words}. Kept {kept}." if kept else f"{words}. Nothing was changed."


class AskBox(GuardedWidget):
    """A field with a button; Enter and the button send what is typed, and nothing else does."""

    _esm = read_static("dom.js", "ask.js")
    from_browser = ("draft", "asks")
    text = Unicode(help="what was asked for last").tag(sync=True)
    draft = Unicode(help="what is in the field").tag(sync=True)
    asks = Int(0, help="rises when the person asks for it").tag(sync=True)
    label = Unicode(help="what the field is for, for screen readers").tag(sync=True)
    placeholder = Unicode().tag(sync=True)
    action = Unicode(help="the button's word").tag(sync=True)
    help = Unicode(help="of the field, on hover").tag(sync=True)
    hint = Unicode(help="of the button, on hover").tag(sync=True)
    limit = Int(MAX_PATH).tag(sync=True)
    told = Unicode(help="what stands below").tag(sync=True)
    trouble = Unicode(help="what stands there instead when it was refused").tag(sync=True)
    locked = Unicode(help="why nothing can be asked for now").tag(sync=True)
    busy = Bool(False, help="whether an answer is awaited").tag(sync=True)

    def _fits(self, name: str, value: Any) -> bool:
        fits = super()._fits(name, value)
        return fits and (name != "draft" or (len(value) <= self.limit and value == sendable(value)))

    def show(self, text: str) -> None:
        """Put a text into the field, unless it is what was asked for last: what is typed since then stays."""
        if text != self.text:
            self.text = self.draft = text

    def take(self) -> str:
        """What is in the field, which with this is asked for."""
        self.text = self.draft
        return self.draft


class Locks:
    """Widgets that cannot be changed while training runs, and say so on hover."""

    def __init__(self, *widgets: Any) -> None:
        self._tooltips = [(widget, widget.tooltip) for widget in widgets]

    def draw(self, busy: bool) -> None:
        """Disable or enable them."""
        for widget, tooltip in self._tooltips:
            widget.disabled = busy
            widget.tooltip = STOP_FIRST if busy else tooltip


class Entry:
    """A text field for one value, with a line below it for a hint or a refusal.

    Args:
        pane: the pane that it is in.
        name: key in ``state.refused``.
        label: what stands at its left.
        tooltip: what it means, in a sentence.
        show: the value as text, from the state.
        write: sets the state from what was typed; raises ``ValueError``/``TypeError`` to refuse it.
        hint: words below the field, from the state.
    """

    def __init__(
        self,
        pane: Pane,
        name: str,
        label: str,
        tooltip: str,
        show: Callable[[], str],
        write: Callable[[str], None],
        hint: Callable[[], str] | None = None,
    ) -> None:
        self.pane, self.name, self.label, self.tooltip = pane, name, label, tooltip
        self.show, self.write, self.hint = show, write, hint
        self.box = described(W.Text, label, tooltip, continuous_update=False)
        self.below = W.Label(layout=W.Layout(display="none"))
        self.below.add_class("sae-hint")
        pane.watch(self.box, "value", self._entered)

    def draw(self) -> None:
        """Show the value of the state, and why the last entry was refused."""
        self.box.value = self.show()
        refused = self.pane.state.refused.get(self.name, "")
        for widget in (self.box, self.below):
            (widget.add_class if refused else widget.remove_class)("sae-refused")
        text = f"⚠ {refused}" if refused else self.hint() if self.hint else ""
        self.below.value = text
        self.below.tooltip = text
        self.below.layout.display = "" if text and self.box.layout.display != "none" else "none"

    def _entered(self, typed: str) -> None:
        kept = self.show()
        if typed == kept:
            return
        state = self.pane.state
        try:
            self.write(typed)
        except (ValueError, TypeError) as fault:
            message = sentence(fault, self.name, self.label or self.name, kept)
            state.refused = {**state.refused, self.name: message}
        else:
            state.refused = {name: text for name, text in state.refused.items() if name != self.name}
        self.pane.redraw()


def setting(pane: Pane, name: str, label: str, tooltip: str, *, is_whole: bool, **more: Any) -> Entry:
    """An entry for one field of ``state.settings``; the limits are those of ``TrainConfig``."""
    state = pane.state

    def show() -> str:
        value = getattr(state.settings, name)
        return f"{value:,}" if is_whole and name != "seed" else f"{value:g}" if not is_whole else str(value)

    def write(typed: str) -> None:
        value = whole(typed, label) if is_whole else number(typed, label)
        state.settings = state.settings.changed(**{name: value})

    return Entry(pane, name, label, tooltip, show, write, **more)


class LogSlider:
    """A slider over powers of ten beside the text field of one setting; the field holds the exact value.

    Args:
        entry: the field.
        low: exponent of the slider's left end.
        high: exponent of its right end.
    """

    def __init__(self, pane: Pane, entry: Entry, low: float, high: float) -> None:
        self.pane, self.entry, self.low, self.high = pane, entry, low, high
        entry.box.description = ""
        entry.box.layout.width, entry.box.layout.flex = "72px", "0 0 auto"
        self.slider = described(
            W.FloatLogSlider, entry.label, entry.tooltip, base=10, min=low, max=high, step=0.05, readout=False
        )
        self.row = W.HBox([self.slider, entry.box], layout=W.Layout(width="auto"))
        pane.watch(self.slider, "value", self._moved)

    def draw(self) -> None:
        """Put the knob where the value is, or at the end that is nearest."""
        self.entry.draw()
        place = self._place()
        if not math.isclose(self.slider.value, place, rel_tol=0.02):
            self.slider.value = place

    def show(self, shown: bool) -> None:
        """Show or hide the row."""
        self.row.layout.display = "" if shown else "none"
        if not shown:
            self.entry.below.layout.display = "none"

    def _place(self) -> float:
        value = getattr(self.pane.state.settings, self.entry.name)
        return float(min(10**self.high, max(10**self.low, value)))

    def _moved(self, value: float) -> None:
        if not math.isclose(value, self._place(), rel_tol=0.02):
            self.pane.state.settings = self.pane.state.settings.changed(**{self.entry.name: float(f"{value:.2g}")})


def _quoted(typed: str) -> str:
    return repr(typed if len(typed) <= MAX_TYPED else typed[:MAX_TYPED] + "…")
