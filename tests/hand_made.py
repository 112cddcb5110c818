"""Records made by hand for the tests of the panes: small, never square, every value known."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from ipywidgets import Widget
from ipywidgets.widgets.widget import _instances

from sae_widget.activations.base import Activations, LanguageModel
from sae_widget.features import Context, FeatureCardData, Features, FeatureStats, PromptFeatures
from sae_widget.sae import StandardSAE
from sae_widget.state import ExplorerState, Status
from sae_widget.training import History, TrainStep
from sae_widget.views.selection import Selection, selection_for

D_IN = 3
LABELS = ("<|endoftext|>", "·a", "·<b>", "·c")


def language_model(name: str = "bundled", n_layer: int = 6) -> LanguageModel:
    return LanguageModel(name, f"the {name} model", None, None, None, D_IN, n_layer, 64, 257, 0)  # type: ignore[arg-type]


def activations() -> Activations:
    """Four tokens; position 0 holds 12 of the 15 of squared norm."""
    n = len(LABELS)
    values = torch.zeros(n, D_IN)
    values[0, 0], values[1, 1], values[2, 2], values[3, 0] = 12**0.5, 1.0, 1.0, 1.0
    return Activations(
        values=values,
        token_ids=torch.arange(n),
        position=torch.arange(n),
        text_index=torch.zeros(n, dtype=torch.long),
        spans=torch.tensor([[0, 0], [0, 2], [2, 6], [6, 8]]),
        labels=LABELS,
        texts=(" a <b> c",),
        notes=(),
        model_name="bundled",
        layer=2,
        hook_name="resid_pre",
    )


def features(d_sae: int = 150, version: int = 1, *, stats: bool = True, prompt: bool = True) -> Features:
    """Feature 7 fires on tokens 1 and 2, feature 3 on token 3; the others are silent, the last ten dead."""
    W_dec = torch.zeros(d_sae, D_IN)
    W_dec[:, 0] = torch.arange(d_sae) / 10
    sae = StandardSAE(torch.ones(D_IN, d_sae), torch.zeros(d_sae), W_dec, torch.zeros(D_IN))
    frequency = np.full(d_sae, 0.004, np.float32)
    frequency[-10:] = 0
    largest = np.where(frequency > 0, 8.0, 0.0).astype(np.float32)
    record = FeatureStats(frequency, frequency * 2, largest, frequency == 0, 30_000, 15.75, 0.75, 0.99)
    mean, top = np.zeros(d_sae, np.float32), np.zeros(d_sae, np.float32)
    mean[7], mean[3], top[7], top[3] = 2.0, 0.5, 4.0, 1.5
    text = PromptFeatures(
        activations=activations(),
        indptr=np.array([0, 0, 1, 2, 3], np.uint32),
        ids=np.array([7, 7, 3], np.uint32),
        acts=np.array([2.0, 4.0, 1.5], np.float32),
        mean=mean,
        max=top,
        strongest=np.array([-1, 7, 7, 3], np.int32),
        counted=np.array([False, True, True, True]),
    )
    return Features(sae, record if stats else None, text if prompt else None, "by hand", version)


def step(number: int, **changes: Any) -> TrainStep:
    values: dict[str, Any] = {
        "step": number,
        "loss": 100.0 / number,
        "reconstruction": 90.0 / number,
        "sparsity": 10.0 / number,
        "l0": 16.0,
        "explained_variance": 0.5,
        "explained_variance_with_first": 0.9,
        "dead": 4,
        "learning_rate": 1e-3,
        "tokens_per_second": 31_234.0,
        "tokens": 1024 * number,
    }
    return TrainStep(**values | changes)


def history(n: int = 4, **changes: Any) -> History:
    made = History()
    for number in range(1, n + 1):
        made.append(step(number, **changes))
    return made


def card(feature: int = 7, version: int = 1) -> FeatureCardData:
    labels = tuple(f"t{i}" for i in range(30))
    acts = tuple(8.0 if i == 20 else 0.0 for i in range(30))
    return FeatureCardData(feature, (Context(labels, acts, 20),), ((3, 0.5), (149, -0.25)), version)


def fill(state: ExplorerState) -> None:
    """Everything that can be shown, set one trait after the other, as the runner does."""
    state.language_model = language_model()
    state.activations = activations()
    state.features = features()
    state.history = history()
    state.history_tick += 1
    state.selected, state.token = 7, 2
    state.card = card()
    state.feature_names = {7: "<b>seven</b>"}
    state.text, state.layer, state.hook_name = "another text", 4, "resid_post"
    state.settings = state.settings.changed(architecture="standard", l1_coefficient=0.3, d_sae=150)
    state.corpus, state.corpus_tokens, state.model = "/a/folder", 500, "/a/model"
    state.measure, state.sort, state.log_loss, state.hide_dense = "max", "number", False, False
    state.offers = ("retry", "cancel")
    state.refused = {"k": "k must be between 1 and 8, got 9. Kept 8."}
    state.status = Status("paused", "Paused at step 4.", 4, 10, 31_234.0, 2.0)


def looks(widget: Any, seen: tuple[int, ...] = ()) -> Any:
    """Everything that the page is told of a widget and what it holds, as plain values that can be compared."""
    if isinstance(widget, np.ndarray):
        return [widget.shape, [repr(float(v)) for v in widget.ravel()]]
    if isinstance(widget, dict):
        return {key: looks(value, seen) for key, value in widget.items()}
    if isinstance(widget, (list, tuple)):
        return [looks(value, seen) for value in widget]
    if isinstance(widget, Selection) or not isinstance(widget, Widget):
        return repr(widget) if not isinstance(widget, Selection) else "the selection"
    if id(widget) in seen:
        return "above"
    values = widget.trait_values(sync=True)
    told = {key: value for key, value in values.items() if key not in ("draws", "_esm", "_css", "_view_count")}
    return {"is": type(widget).__name__} | {key: looks(v, (*seen, id(widget))) for key, v in told.items()}


def open_widgets(state: ExplorerState) -> int:
    """Widgets that are open, the shared selection and its layout left out."""
    selection = selection_for(state)
    return len([w for w in _instances.values() if w is not selection and w is not selection.layout])
