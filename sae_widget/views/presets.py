"""Ready-made starting points: each sets text, corpus, read point and recipe in one go."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sae_widget.config import TrainConfig

if TYPE_CHECKING:
    from sae_widget.state import ExplorerState

SENTENCES = {
    "best of times": "It was the best of times, it was the worst of times.",
    "to be or not to be": "To be or not to be, that is the question.",
    "a hobbit": "In a hole in the ground there lived a hobbit.",
}
"""The texts of the original tutorial."""
PYTHON_TEXT = "The for statement is used to iterate over the elements of a sequence (such as a string, tuple or list)."


@dataclass(frozen=True)
class Preset:
    """A name, a sentence for the newcomer, and the values of the state that it sets."""

    label: str
    tooltip: str
    values: dict[str, Any]
    layer: Callable[[int], int] = field(default=lambda n_layer: n_layer // 2)  # from the number of blocks

    def changes(self, n_layer: int | None) -> dict[str, Any]:
        """What it sets; the layer only when the number of blocks is known."""
        return self.values if n_layer is None else {**self.values, "layer": self.layer(n_layer)}

    def apply(self, state: ExplorerState) -> None:
        """Set everything, and tell observers afterwards."""
        with state.lock, state.hold_trait_notifications():
            for name, value in self.changes(blocks(state)).items():
                setattr(state, name, value)
            state.refused = {}

    def fits(self, state: ExplorerState) -> bool:
        """Whether the state is as this preset would make it."""
        return all(getattr(state, name) == value for name, value in self.changes(blocks(state)).items())


def blocks(state: ExplorerState) -> int | None:
    """Number of blocks of the language model, None while there is none."""
    return state.language_model.n_layer if state.language_model is not None else None


def _tutorial(words: str) -> Preset:
    return Preset(
        f"Original tutorial: {words}",
        "One sentence, 16 features, 500 epochs, exactly as the tutorial had it: see why it is not enough",
        {
            "text": SENTENCES[words],
            "corpus": "text",
            "hook_name": "final_norm",
            "prepend_bos": False,
            "settings": TrainConfig.original_tutorial(),
            "weights": "encoder",
            "layout": "grid",
            "rows": 16,
            "measure": "mean",
        },
        layer=lambda n_layer: n_layer - 1,
    )


def _documentation(words: str, settings: TrainConfig, tooltip: str) -> Preset:
    return Preset(
        f"Documentation: {words}",
        tooltip,
        {
            "text": PYTHON_TEXT,
            "corpus": "documentation",
            "hook_name": "resid_pre",
            "prepend_bos": True,
            "settings": settings,
            "weights": "decoder",
            "layout": "strips",
            "rows": 64,
            "measure": "mean",
        },
    )


PRESETS = (
    *(_tutorial(words) for words in SENTENCES),
    _documentation(
        "TopK, 1,024 wide",
        TrainConfig(),
        "Enough tokens, more features than dimensions, position 0 left out: the recipe that works",
    ),
    _documentation(
        "ReLU + L1, 1,024 wide",
        TrainConfig(architecture="standard"),
        "The same with a penalty on the sum of activations instead of a fixed number of them",
    ),
)
