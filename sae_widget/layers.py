"""The layer that a person asked for, kept through models that do not have it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from sae_widget.state import ExplorerState


class LayerKeeper:
    """Brings ``state.layer`` to what the language model has, and says so beside the layer in the form.

    Args:
        state: of the explorer.
        asked: the layer that was asked for, None for the one that ``layer_of`` says.
        layer_of: the layer from the number of blocks.
    """

    def __init__(self, state: ExplorerState, asked: int | None, layer_of: Callable[[int], int]) -> None:
        self._state, self._asked, self._layer_of = state, asked, layer_of
        self._fitting = False
        state.observe(self._fit, names=["language_model"])
        state.observe(self._chosen, names=["layer"])

    def _fit(self, change: Any) -> None:
        model = change["new"]
        if model is None:
            return
        asked = self._layer_of(model.n_layer) if self._asked is None else self._asked
        last = model.n_layer - 1
        self._fitting = True
        self._state.layer = min(asked, last)
        self._fitting = False
        there = f"layers 0 to {last}" if last else "only layer 0"
        words = f"This model has {there}: layer {last} is shown instead of {asked}."
        self._say(words if asked > last else "")

    def _chosen(self, change: Any) -> None:
        if not self._fitting:
            self._asked = change["new"]
            self._say("")

    def _say(self, words: str) -> None:
        others = {name: said for name, said in self._state.refused.items() if name != "layer"}
        self._state.refused = others | ({"layer": words} if words else {})
