"""The names that a person gave to features: each belongs to one SAE, since numbers do not carry over to another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sae_widget.state import ExplorerState


class NameBook:
    """Keeps ``state.feature_names`` those of the SAE that is shown, and puts the others aside until it comes back."""

    def __init__(self, state: ExplorerState) -> None:
        self._state, self._key = state, ""
        self._aside: dict[str, dict[int, str]] = {}
        state.observe(self._follow, names=["features"])

    def expect(self, key: str, names: dict[int, str]) -> None:
        """Have names ready for an SAE that will be shown, by its ``Features.key``; those given here go before."""
        self._aside.setdefault(key, dict(names))

    def _follow(self, change: Any) -> None:
        features, state = change["new"], self._state
        if features is None or features.key == self._key:
            return
        self._aside[self._key] = dict(state.feature_names)
        self._key = features.key
        state.feature_names = self._aside.pop(features.key, {})
