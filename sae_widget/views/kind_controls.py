"""What the SAE is: its width, its kind, and how sparse it has to be."""

from __future__ import annotations

from typing import TYPE_CHECKING

import ipywidgets as W

from sae_widget.config import ARCHITECTURES
from sae_widget.sae import REGISTRY
from sae_widget.views.fields import Entry, LogSlider, described, number, sentence, setting, whole

if TYPE_CHECKING:
    from sae_widget.views.pane import Pane

KINDS = tuple((REGISTRY[name].words, name) for name in ARCHITECTURES)
HARD_PENALTY = ("jumprelu",)
"""Kinds whose penalty is hard to set by hand: they begin with how many features are to fire."""
BY_NUMBER, BY_PENALTY = True, False
HELP = {
    "d_sae": "Number of features of the SAE; more than dimensions, or nothing can be taken apart",
    "architecture": "How it is decided which features fire",
    "k": "k: features that fire on each token; how many truly do is not known, so compare several",
    "target_l0": "L0: features that fire on a token on average; the penalty is changed until it is reached",
    "l1_coefficient": "Weight of the penalty on activations: more makes fewer fire",
    "l0_coefficient": "Weight of the penalty on the number of features that fire: more makes fewer fire",
    "sparsity": "Say how many features fire on a token, or how much firing costs",
}
SPARSITY = ("k", "target_l0", "l1_coefficient", "l0_coefficient")
"""Settings of which the form shows one."""


class KindControls:
    """Width, kind with a sentence about it, and the one setting of its sparsity."""

    def __init__(self, pane: Pane) -> None:
        self.pane, self.state = pane, pane.state
        self._left: dict[str, float] = {}  # kind -> target with which it was left, for the way back
        self._number = 0.0  # the last target, for the way back from the penalty
        self.d_sae = setting(pane, "d_sae", "Features", HELP["d_sae"], is_whole=True, hint=self._width_words)
        self.architecture = described(W.Dropdown, "Kind", HELP["architecture"], options=KINDS)
        self.about = _hint()
        self.refusal = _hint()
        self.refusal.add_class("sae-refused")
        pane.watch(self.architecture, "value", self._choose_kind)
        self._make_sparsity()
        self.widgets = [
            self.d_sae.box, self.d_sae.below, self.architecture, self.refusal, self.about,
            self.mode, self.k.box, self.k.below, self.target.box, self.target.below,
            self.l1.row, self.l1.entry.below, self.l0.row, self.l0.entry.below,
        ]  # fmt: skip

    def _make_sparsity(self) -> None:
        pane = self.pane
        self.mode = described(
            W.ToggleButtons, "Sparsity", HELP["sparsity"],
            options=[("How many fire", BY_NUMBER), ("Penalty", BY_PENALTY)],
            tooltips=["Set how many features fire on a token; training finds the penalty for it", "Set the penalty"],
        )  # fmt: skip
        self.mode.style.button_width = "auto"
        self.mode.add_class("sae-choice")
        self.k = Entry(
            pane, "k", "Per token (k)", HELP["k"], self._shown_k, self._set_k, self._k_words,
        )  # fmt: skip
        self.target = Entry(
            pane, "target_l0", "Per token (L0)", HELP["target_l0"],
            lambda: f"{self.state.settings.target_l0:g}", self._set_target, self._target_words,
        )  # fmt: skip
        l1 = setting(pane, "l1_coefficient", "L1 penalty", HELP["l1_coefficient"], is_whole=False)
        l0 = setting(pane, "l0_coefficient", "L0 penalty", HELP["l0_coefficient"], is_whole=False)
        self.l1, self.l0 = LogSlider(pane, l1, -3, 2), LogSlider(pane, l0, -4, 1)
        pane.watch(self.mode, "value", self._choose_mode)

    def draw(self) -> None:
        """Bring the fields to what the state says, and show those of the chosen kind."""
        settings = self.state.settings
        own, aims = ARCHITECTURES[settings.architecture], settings.target_l0 > 0
        self.architecture.value = settings.architecture
        self.about.value = REGISTRY[settings.architecture].about
        refused = self.state.refused.get("architecture", "")
        self.refusal.value = f"⚠ {refused}" if refused else ""
        self.refusal.layout.display = "" if refused else "none"
        self.mode.value = BY_NUMBER if aims else BY_PENALTY
        by_k = "k" in own
        _show(self.mode, not by_k)
        _show(self.k.box, by_k)
        _show(self.target.box, aims and not by_k)
        for entry in (self.d_sae, self.k, self.target):
            entry.draw()
        for slider in (self.l1, self.l0):
            slider.draw()
            slider.show(slider.entry.name in own and not aims)

    def _choose_kind(self, kind: str) -> None:
        state, settings = self.state, self.state.settings
        if kind == settings.architecture:
            return
        first = min(settings.k, settings.d_sae) if kind in HARD_PENALTY else 0
        target = float(min(self._left.get(kind, first), settings.d_sae))
        try:
            changed = settings.changed(architecture=kind, target_l0=target)
        except (ValueError, TypeError) as fault:
            kept = REGISTRY[settings.architecture].words
            state.refused = {**state.refused, "architecture": sentence(fault, "architecture", "Kind", kept)}
        else:
            self._left[settings.architecture] = settings.target_l0
            self._forgive()
            state.settings = changed
        self.pane.redraw()

    def _choose_mode(self, by_number: bool) -> None:
        settings = self.state.settings
        if by_number == (settings.target_l0 > 0):
            return
        self._number = settings.target_l0 or self._number
        target = min(self._number or settings.k, settings.d_sae) if by_number else 0
        self._forgive()
        self.state.settings = settings.changed(target_l0=float(target))

    def _forgive(self) -> None:
        hidden = ("architecture", *SPARSITY)
        self.state.refused = {name: text for name, text in self.state.refused.items() if name not in hidden}

    def _shown_k(self) -> str:
        return f"{self.state.settings.wanted_k:,}"

    def _set_k(self, typed: str) -> None:
        self.state.settings = self.state.settings.changed(k=whole(typed, self.k.label), target_l0=0.0)

    def _set_target(self, typed: str) -> None:
        value = number(typed, self.target.label)
        if value == 0:
            raise ValueError("target_l0 must be above 0; choose Penalty to set none")
        self.state.settings = self.state.settings.changed(target_l0=value)

    def _width_words(self) -> str:
        model, d_sae = self.state.language_model, self.state.settings.d_sae
        if model is None:
            return ""
        ratio = d_sae / model.d_in
        times = f"= {ratio:.2g}" if ratio < 10 else f"= {ratio:,.0f}"
        times += f" × {model.d_in:,}"
        return f"{times}: {'overcomplete' if d_sae > model.d_in else 'too few to unmix anything'}"

    def _k_words(self) -> str:
        settings = self.state.settings
        average = "" if settings.architecture == "topk" else ", on average"
        return f"of {settings.d_sae:,} features fire{average}"

    def _target_words(self) -> str:
        return f"of {self.state.settings.d_sae:,} features fire; training finds the penalty"


def _hint() -> W.Label:
    label = W.Label()
    label.add_class("sae-hint")
    return label


def _show(widget: W.Widget, shown: bool) -> None:
    widget.layout.display = "" if shown else "none"
