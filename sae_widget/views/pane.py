"""A view with a header, a place for its faults, its own pace, and an end that leaves no widget behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import ipywidgets as W
from traitlets import Int, Unicode

from sae_widget.state import ExplorerState
from sae_widget.views import palette
from sae_widget.views.base import View, log, read_static
from sae_widget.views.selection import GuardedWidget
from sae_widget.views.words import OFFER_WORDS


def theme_css() -> str:
    """The colours of the palette as CSS variables, for the light and the dark theme of every notebook."""
    plain = {
        "light": ("#ffffff", "#1f2328", "#57606a", "#c8ccd1"),
        "dark": ("#111418", "#e6e6e6", "#a8b0ba", "#3c434b"),
    }
    blocks = {}
    for theme in palette.THEMES:
        page, text, soft, line = plain[theme]
        pairs = {
            **palette.SERIES[theme],
            "bar": palette.BAR[theme],
            "selected": "#0b61c4" if theme == "light" else "#6db6ff",
            "missing": palette.MISSING[theme],
            "low": palette.SEQUENTIAL[theme][0],
            "high": palette.SEQUENTIAL[theme][4],
            "page": f"var(--jp-layout-color0, {page})",
            "text": f"var(--jp-content-font-color1, {text})",
            "soft": f"var(--jp-content-font-color2, {soft})",
            "line": f"var(--jp-border-color2, {line})",
            "good": "#14705f" if theme == "light" else "#74cdb9",
            "look": "#8a5a00" if theme == "light" else "#e8c547",
            "bad": "#b3261e" if theme == "light" else "#ff9d94",
        }
        blocks[theme] = " ".join(f"--sae-{name}: {value};" for name, value in pairs.items())
    unsaid = "body:not([data-jp-theme-light]):not([data-vscode-theme-kind])"
    return "\n".join(
        [
            f".sae-pane {{ {blocks['light']} }}",
            "@media (prefers-color-scheme: dark) {",
            f"  html:not([theme]) > {unsaid} .sae-pane {{ {blocks['dark']} }}",
            "}",
            f"[data-jp-theme-light='false'] .sae-pane, .vscode-dark .sae-pane, html[theme='dark'] .sae-pane "
            f"{{ {blocks['dark']} }}",
        ]
    )


class PaneHead(GuardedWidget):
    """The header of a pane: a question, a note at its right, a fault; it also names the pane for tests."""

    _esm = read_static("dom.js", "head.js")
    _css = theme_css() + "\n" + read_static("panes.css")
    pane = Unicode().tag(sync=True)
    question = Unicode().tag(sync=True)
    note = Unicode().tag(sync=True)
    fault = Unicode().tag(sync=True)
    summary = Unicode(help="what the pane shows, for screen readers").tag(sync=True)
    draws = Int(-1, help="drawings so far; -1: another widget of the pane tells it").tag(sync=True)


class Pane(View):
    """A view whose widget is a header over its content.

    ``pace`` says how many seconds must lie between two drawings caused by one trait; the last change is
    always drawn. Names of the traits that come with every training step belong there.
    """

    question: ClassVar[str] = ""
    pace: ClassVar[dict[str, float]] = {}
    counts_in_head: ClassVar[bool] = True

    def __init__(self, state: ExplorerState) -> None:
        self._timer: threading.Timer | None = None
        self._drawn_at = -1e9
        self._closed = False
        self.draws = 0
        super().__init__(state)

    def build(self) -> None:
        """Make the header and the content below it."""
        self.head = PaneHead(pane=self.name, question=self.question)
        self.widget = W.VBox([self.head, *self.build_content()], layout=W.Layout(width="100%"))
        for name in ("sae-pane", f"sae-{self.name}"):
            self.widget.add_class(name)

    def build_content(self) -> list[W.Widget]:
        """Make the widgets below the header; called once."""
        raise NotImplementedError  # every pane has its own

    def draw_content(self) -> None:
        """Bring the content to what the state says."""
        raise NotImplementedError  # every pane has its own

    def draw(self) -> None:
        """Draw the content and count it."""
        self.draws += 1
        self.draw_content()
        if self.counts_in_head:
            self.head.draws = self.draws

    def show_fault(self, message: str) -> None:
        """Show a sentence under the header; an empty one takes it away."""
        self.head.fault = message

    def press(self, do: str) -> None:
        """Ask the runner for something, one of ``state.COMMANDS``."""
        self.state.command = {"do": do, "n": int(self.state.command.get("n", 0)) + 1}

    def watch(self, widget: W.Widget, trait: str, handle: Callable[[Any], None]) -> None:
        """Call ``handle`` with the new value of a widget's trait; a fault in it is shown in the pane."""
        widget.observe(lambda change: self._handle(handle, change.new), names=[trait])

    def on_press(self, button: W.Button, handle: Callable[[], None]) -> None:
        """Call ``handle`` at a press of a button; a fault in it is shown in the pane."""
        button.on_click(lambda _button: self._handle(lambda _value: handle(), None))

    def offer_button(self, offer: str, **layout: str) -> W.Button:
        """A small button that takes up an offer, in its words."""
        words, tooltip = OFFER_WORDS[offer]
        button = W.Button(description=words, tooltip=tooltip, layout=W.Layout(width="auto", **layout))
        button.add_class("sae-small")
        self.on_press(button, partial(self.press, offer))
        return button

    def close(self) -> None:
        """Draw no more, then close as every view does."""
        with self.state.lock:
            self._closed = True
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
        super().close()

    def redraw(self) -> None:
        """Draw now, for instance to bring a refused field back to what the state says."""
        self._redraw(None)

    def urgent(self, change: Any) -> bool:
        """Whether a change of a paced trait must be drawn at once all the same."""
        return False

    def _handle(self, handle: Callable[[Any], None], value: Any) -> None:
        with self.state.lock:
            try:
                handle(value)
            except Exception as fault:  # noqa: BLE001  (it would be swallowed by the kernel, unseen)
                log.exception("an input of view %s failed", self.name)
                self.show_fault(f"That did not work ({type(fault).__name__}: {fault}). Nothing else was changed.")

    def _redraw(self, change: Any) -> None:
        with self.state.lock:
            if self._closed:
                return
            pace = 0.0 if change is None or self.urgent(change) else self.pace.get(change.name, 0.0)
            wait = self._drawn_at + pace - time.monotonic()
            if pace and wait > 0:
                self._draw_later(wait)
                return
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            self._drawn_at = time.monotonic()
            super()._redraw(change)

    def _draw_later(self, wait: float) -> None:
        if self._timer is None:
            self._timer = threading.Timer(wait, self._redraw, args=(None,))
            self._timer.daemon = True
            self._timer.start()
