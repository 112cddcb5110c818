"""The text as a strip of tokens, coloured by the feature in focus, whichever it is, without asking Python."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
from traitlets import Bool, Bytes, Dict, List, Unicode

from sae_widget.views.base import View
from sae_widget.views.selection import PaneWidget, pane_code, selection_for
from sae_widget.views.words import sendable

if TYPE_CHECKING:
    from sae_widget.activations.base import Activations
    from sae_widget.features import Features, PromptFeatures

LEFT_OUT, LINE_END, NEW_WINDOW = 1, 2, 4
"""Marks of a token: does not count, ends a line, begins a text or a window of it."""
MOST_FIRINGS = 250_000
"""Firings sent for one text (2 MB); of a longer text each token keeps its strongest."""
BYTES_PER_SECOND = 60_000
"""What this pane sends at most while training goes on."""
SHORTEST_WAIT = 0.4
"""Seconds between two pushes while training goes on."""
_LABEL_CHARS = 80
_MOST_NAMES = 2_000


class TokensWidget(PaneWidget):
    """The strip: tokens once a text, and the sparse activations of all features on them (rows are tokens)."""

    _esm = pane_code("tokens_data.js", "tokens_parts.js", "tokens.js")
    from_browser = ("scale_to_text",)

    scale_to_text = Bool(False).tag(sync=True)
    labels = List(Unicode(), help="what is drawn for each token").tag(sync=True)
    marks = Bytes(b"", help="uint8 [n_tokens], LEFT_OUT | LINE_END | NEW_WINDOW").tag(sync=True)
    indptr = Bytes(b"", help="uint32 [n_tokens + 1]").tag(sync=True)
    ids = Bytes(b"", help="uint32 [n_firings], the strongest of a token first").tag(sync=True)
    acts = Bytes(b"", help="float32 [n_firings]").tag(sync=True)
    fired = Bytes(b"", help="uint32 [n], the features among ids, rising").tag(sync=True)
    maxima = Bytes(b"", help="float32 [n], their maxima over the corpus; nothing without statistics").tag(sync=True)
    hidden = Bytes(b"", help="uint32 [n], features that are hidden as dense").tag(sync=True)
    names = Dict(help="feature number as text -> the name a person gave it").tag(sync=True)
    facts = Dict(help="d_sae, n_tokens of the corpus, kept firings of a token (0: all)").tag(sync=True)
    notes = List(Unicode(), help="sentences about the text").tag(sync=True)
    stale = Unicode("", help="why the strip does not show the text in the box").tag(sync=True)
    empty = Unicode("", help="why there is nothing to draw").tag(sync=True)


class TokenStrip(View):
    """The tokens of the text; colour is the activation of the feature in focus, on its own scale."""

    name = "tokens"
    reads = (
        "features",
        "activations",
        "status",
        "faults",
        "text",
        "scale_to_text",
        "hide_dense",
        "feature_names",
        "selected",
    )

    def build(self) -> None:
        """Make the widget."""
        self.shared = [selection_for(self.state)]
        self.widget = TokensWidget(selection=self.shared[0], asked=self._asked, guard=self.state.lock)
        self._clock = time.monotonic
        self._text: Activations | None = None
        self._drawn: Features | None = None
        self._hidden_of: Features | None = None
        self._pushed_at = -1e9
        self._bytes = 0

    def show_fault(self, message: str) -> None:
        """Show a sentence above the tokens."""
        self.widget.fault = message

    def draw(self) -> None:
        """Send the tokens when the text changed, and the activations when the features did."""
        state, widget = self.state, self.widget
        features = state.features
        prompt = features.prompt if features is not None else None
        if prompt is None and state.activations is not None:
            prompt = silent(state.activations)
        with widget.hold_sync():
            widget.scale_to_text = state.scale_to_text
            widget.names = {str(i): str(name)[:60] for i, name in list(state.feature_names.items())[:_MOST_NAMES]}
            if prompt is None:
                self._clear()
                return
            widget.empty = ""
            new = features is not self._drawn or prompt.activations is not self._text
            if new and self._may_push(prompt):
                self._push(features, prompt)
            self._send_hidden(self._drawn)
            widget.stale = self._why_stale()

    def _may_push(self, prompt: PromptFeatures) -> bool:
        if prompt.activations is not self._text or self.state.status.phase != "training":
            return True
        return self._clock() - self._pushed_at >= max(SHORTEST_WAIT, self._bytes / BYTES_PER_SECOND)

    def _push(self, features: Features | None, prompt: PromptFeatures) -> None:
        widget, activations = self.widget, prompt.activations
        indptr, ids, acts, kept = strongest_firings(prompt)
        fired = np.unique(ids)
        stats = features.stats if features is not None else None
        maxima = np.zeros(0, np.float32) if stats is None else stats.max[fired]
        if activations is not self._text:
            widget.labels = [label[:_LABEL_CHARS] for label in activations.labels]
            widget.notes = list(activations.notes)
        widget.marks = token_marks(prompt).tobytes()
        widget.indptr = indptr.astype(np.uint32).tobytes()
        widget.ids = ids.astype(np.uint32).tobytes()
        widget.acts = acts.astype(np.float32).tobytes()
        widget.fired = fired.astype(np.uint32).tobytes()
        widget.maxima = maxima.astype(np.float32).tobytes()
        n_corpus = 0 if stats is None else stats.n_tokens
        widget.facts = {"d_sae": 0 if features is None else features.sae.d_sae, "n_corpus": n_corpus, "kept": kept}
        self._text, self._drawn, self._pushed_at = activations, features, self._clock()
        self._bytes = sum(len(part) for part in (widget.indptr, widget.ids, widget.acts, widget.fired, widget.maxima))

    def _send_hidden(self, features: Features | None) -> None:
        wanted = features if self.state.hide_dense else None
        if wanted is not self._hidden_of:
            self._hidden_of = wanted
            hidden = np.zeros(0) if wanted is None else np.flatnonzero(wanted.dense)
            self.widget.hidden = hidden.astype(np.uint32).tobytes()

    def _why_stale(self) -> str:
        status, shown = self.state.status, self._text
        if shown is None or not status.trouble or sendable(self.state.text) in shown.texts:
            return ""
        return status.message

    def _clear(self) -> None:
        self._text = self._drawn = self._hidden_of = None
        widget = self.widget
        widget.labels, widget.notes, widget.facts, widget.stale = [], [], {}, ""
        widget.marks = widget.indptr = widget.ids = widget.acts = widget.fired = widget.maxima = widget.hidden = b""
        phase = self.state.status.phase
        if phase in ("starting", "loading", "reading"):
            widget.empty = "The tokens of the text are drawn here as soon as the model has read it."
        else:
            widget.empty = "No text has been read yet. Type one above and press Read."

    def _asked(self, _name: str, value: Any) -> None:
        self.state.scale_to_text = value


def silent(activations: Activations) -> PromptFeatures:
    """A text on which nothing fires, because there is no SAE yet."""
    from sae_widget.features import PromptFeatures

    n, none = activations.n_tokens, np.zeros(0, np.float32)
    return PromptFeatures(
        activations=activations,
        indptr=np.zeros(n + 1, np.uint32),
        ids=np.zeros(0, np.uint32),
        acts=none,
        mean=none,
        max=none,
        strongest=np.full(n, -1, np.int32),
        counted=(activations.spans[:, 1] > activations.spans[:, 0]).numpy(),
    )


def strongest_firings(prompt: PromptFeatures) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Rows of firings cut so that all of them fit into ``MOST_FIRINGS``.

    Returns:
        ``indptr [n_tokens + 1]``, ``ids`` and ``acts``, and how many firings a token keeps at most (0: all).
    """
    ends = prompt.indptr.astype(np.int64)
    lengths = ends[1:] - ends[:-1]
    if len(prompt.ids) <= MOST_FIRINGS:
        return prompt.indptr, prompt.ids, prompt.acts, 0
    most = max(1, MOST_FIRINGS // max(1, len(lengths)))
    place = np.arange(len(prompt.ids)) - np.repeat(ends[:-1], lengths)
    indptr = np.concatenate([[0], np.minimum(lengths, most).cumsum()])
    return indptr, prompt.ids[place < most], prompt.acts[place < most], most


def token_marks(prompt: PromptFeatures) -> np.ndarray:
    """``LEFT_OUT | LINE_END | NEW_WINDOW`` of each token. ``[n_tokens]`` uint8."""
    activations = prompt.activations
    marks = np.where(prompt.counted, 0, LEFT_OUT).astype(np.uint8)
    marks[activations.position.numpy() == 0] |= NEW_WINDOW
    for i, (text, (start, end)) in enumerate(
        zip(activations.text_index.tolist(), activations.spans.tolist(), strict=True)
    ):
        if "\n" in activations.texts[text][start:end]:
            marks[i] |= LINE_END
    return marks
