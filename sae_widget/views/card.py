"""What one feature is: its name, its numbers, its neighbours, and where it fires most."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anywidget
import ipywidgets as W
import numpy as np
from traitlets import Dict, Int

from sae_widget.views.base import read_static
from sae_widget.views.pane import Pane
from sae_widget.views.selection import GuardedWidget, selection_for
from sae_widget.views.words import sendable

if TYPE_CHECKING:
    from sae_widget.features import Context, FeatureCardData, Features
    from sae_widget.state import ExplorerState

MAX_NAME_CHARS = 80
TOKENS_SHOWN = 8
"""Strongest tokens of the text on the card."""
AROUND = 8
"""Tokens of a context shown on each side of its peak."""
OLDER = "The SAE has trained on since these were found; they are looked up again when it pauses or ends."
NOTHING_SELECTED = "Click a bar, a strip or a token to see what its feature is."


class CardBody(GuardedWidget):
    """The card in the page; it sends back the name that a person gives."""

    _esm = read_static("dom.js", "card.js")
    from_browser = ("named",)
    selection = anywidget.WidgetTrait().tag(sync=True)
    data = Dict().tag(sync=True)
    named = Dict(help="{'feature': number, 'name': text, 'n': a number that rises}").tag(sync=True)
    draws = Int(0).tag(sync=True)


class FeatureCard(Pane):
    """The selected feature: name box, statistics, nearest features, strongest tokens, top contexts."""

    name = "card"
    question = "What is this feature?"
    reads = ("selected", "features", "card", "feature_names", "faults")
    counts_in_head = False

    def build_content(self) -> list[W.Widget]:
        """The card's body."""
        selection = selection_for(self.state)
        self.shared = [selection]
        self.body = CardBody(guard=self.state.lock, selection=selection)
        self.watch(self.body, "named", self._name)
        return [self.body]

    def draw_content(self) -> None:
        """Send everything about the selected feature as plain numbers and text."""
        with self.body.hold_sync():
            self.body.data = card_data(self.state)
            self.body.draws = self.draws

    def _name(self, named: dict[str, Any]) -> None:
        feature, name = named.get("feature"), named.get("name")
        n_features = self.state.features.sae.d_sae if self.state.features is not None else 0
        if isinstance(feature, bool) or not isinstance(feature, int) or not 0 <= feature < n_features:
            raise ValueError(f"feature must be between 0 and {n_features - 1}, got {str(feature)[:40]}")
        if not isinstance(name, str):
            raise TypeError(f"a name must be text, got {type(name).__name__}")
        kept = {known: text for known, text in self.state.feature_names.items() if known != feature}
        name = clean_name(name)
        self.state.feature_names = {**kept, feature: name} if name else kept


def clean_name(name: str) -> str:
    """A name of one line and at most ``MAX_NAME_CHARS``, without characters that cannot be sent or shown."""
    return " ".join("".join(c if c.isprintable() else " " for c in sendable(name)).split())[:MAX_NAME_CHARS].strip()


def card_data(state: ExplorerState) -> dict[str, Any]:
    """The card of the selected feature as it goes to the page; only ``empty`` when nothing is selected."""
    features, selected = state.features, state.selected
    if features is None or selected is None or not 0 <= selected < features.sae.d_sae:
        return {"empty": NOTHING_SELECTED}
    card = state.card
    known = card is not None and card.feature == selected and card.key == features.key
    older = known and card.version != features.version
    top = float(features.stats.max[selected]) if features.stats is not None else 0.0
    return {
        "empty": "",
        "feature": selected,
        "name": _shown(state.feature_names.get(selected, "")),
        "max_name": MAX_NAME_CHARS,
        "facts": [list(fact) for fact in facts(features, selected)],
        "tokens": strongest_tokens(features, selected),
        "neighbours": _neighbours(state, card) if known else [],
        "contexts": [_context(context) for context in card.contexts or ()] if known else [],
        "top": top if np.isfinite(top) else 0.0,
        "waiting": "" if known else "Looking where else it fires …",
        "older": OLDER if older else "",
        "nothing": "It fires nowhere in the corpus that was read." if known and card.contexts == () else "",
    }


def facts(features: Features, feature: int) -> tuple[tuple[str, str, str], ...]:
    """What is measured of a feature: ``(label, value, what it means)``."""
    found = []
    stats = features.stats
    if stats is not None:
        share = float(stats.frequency[feature])
        fires = "never fired" if stats.dead[feature] else f"fires on {percent(share)}"
        found.append((f"{fires} of {stats.n_tokens:,} tokens", "", "Share of the corpus on which it is above zero"))
        found.append(("max", f"{float(stats.max[feature]):.3g}", "Its largest activation in the corpus"))
    if features.prompt is not None:
        found.append(("max here", f"{float(features.prompt.max[feature]):.3g}", "Its largest activation in the text"))
    norm = float(features.sae.W_dec[feature].norm())
    found.append(("decoder norm", f"{norm:.3g}", "Length of what it writes; 1 with a unit-norm decoder"))
    return tuple(found)


def strongest_tokens(features: Features, feature: int) -> list[list[Any]]:
    """The tokens of the text on which a feature fires: ``[index, label, activation]``, strongest first."""
    if features.prompt is None:
        return []
    acts = features.prompt.of_feature(feature)  # [n_tokens]
    order = np.argsort(-acts, kind="stable")[:TOKENS_SHOWN]
    labels = features.prompt.activations.labels
    return [[int(i), _shown(labels[i]), round(float(acts[i]), 4)] for i in order if acts[i] > 0]


def percent(share: float) -> str:
    """A share in per cent, with a digit more when it is small: ``12%``, ``0.4%``, ``< 0.01%``."""
    if share <= 0:
        return "0%"
    if share < 0.0001:
        return "< 0.01%"
    return f"{share:.0%}" if share >= 0.1 else f"{100 * share:.2g}%"


def _neighbours(state: ExplorerState, card: FeatureCardData) -> list[list[Any]]:
    names = state.feature_names
    return [[int(i), round(float(cosine), 3), _shown(names.get(i, ""))] for i, cosine in card.neighbours]


def _context(context: Context) -> dict[str, Any]:
    first = max(0, context.centre - AROUND)
    window = slice(first, context.centre + AROUND + 1)
    acts = np.nan_to_num(np.asarray(context.acts[window], dtype=np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    return {
        "labels": [_shown(label) for label in context.labels[window]],
        "acts": [round(float(act), 4) for act in acts],
        "centre": context.centre - first,
    }


def _shown(text: Any) -> str:
    """Text that can be sent: lone surrogates replaced."""
    return str(text).encode("utf-16", "surrogatepass").decode("utf-16", "replace")
