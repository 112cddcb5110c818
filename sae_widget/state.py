"""The one state of an explorer: inputs that a person sets, results that only the runner sets."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

from traitlets import Bool, Dict, Enum, HasTraits, Instance, Int, Tuple, Unicode

from sae_widget.config import HOOK_NAMES, START, TrainConfig

PHASES = ("starting", "loading", "reading", "ready", "training", "paused", "stopping", "failed", "closed")
SORTS = ("activation", "frequency", "number")
MEASURES = ("mean", "max", "token")
ROWS = (16, 64, 256, 1024)
COMMANDS = (
    *("train", "pause", "resume", "stop", "reset", "read", "show", "save"),
    *("load_gpt2", "cancel", "restore", "retry", "load_anyway", "keep"),
)
OFFERS = ("retry", "cancel", "restore", "load_gpt2", "load_anyway", "keep")


@dataclass(frozen=True)
class Status:
    """What the explorer is doing, in words and in numbers."""

    phase: str = "starting"  # one of PHASES
    message: str = "Starting"  # one or two sentences: what happened, what was kept, what to do next
    step: int = 0
    total: int = 0  # 0: no progress to show
    tokens_per_second: float = 0.0
    seconds_left: float = 0.0
    trouble: bool = False  # the message tells of a fault or a refused input


@dataclass(frozen=True, eq=False)
class SaveAnswer:
    """What came of a wish to save what is shown: where it is and what it was, or why it is not."""

    saved: str = ""
    trouble: str = ""


class ExplorerState(HasTraits):
    """Every value of an explorer, once.

    Controls, clicks and user code write the inputs; ``Runner`` alone writes the results; views only read.
    Observers run under one lock, whichever thread set the trait.
    """

    # Inputs
    model = Unicode("auto", help="'auto', 'bundled', a hub name or a local directory")
    text = Unicode(START.text)
    layer = Int(0)
    hook_name = Enum(HOOK_NAMES, "resid_pre")
    prepend_bos = Bool(True, help="read each window behind the start token")
    corpus = Unicode(START.corpus, help="what to train on: 'documentation', 'text', a file or a folder")
    corpus_tokens = Int(START.corpus_tokens, help="tokens of the corpus that are read for training")
    settings = Instance(TrainConfig, ())
    folder = Unicode(help="of a saved SAE: what 'show' shows")
    save_as = Unicode(help="the name under which 'save' keeps what is shown")
    selected = Int(None, allow_none=True, min=0, help="the selected feature")
    token = Int(None, allow_none=True, min=0, help="the selected token of the text")
    sort = Enum(SORTS, "activation")
    hide_dense = Bool(True, help="leave features that fire on a tenth of all tokens out of bars and heatmap")
    page = Int(0, min=0)
    rows = Enum(ROWS, 64, help="features on one page of the heatmap")
    bar_page = Int(0, min=0)
    weights = Enum(("decoder", "encoder"), "decoder")
    layout = Enum(("strips", "grid"), "strips")
    measure = Enum(MEASURES, "mean")
    scale_to_text = Bool(False, help="colour tokens by the maximum in this text, not over the corpus")
    log_loss = Bool(True)
    feature_names = Dict(help="feature number -> the name a person gave it")
    command = Dict(help="the last button pressed: {'do': one of COMMANDS, 'n': a number that rises}")
    refused = Dict(help="input field -> a sentence saying why its last entry was refused")

    # Results
    language_model = Instance("sae_widget.activations.base.LanguageModel", allow_none=True)
    activations = Instance("sae_widget.activations.base.Activations", allow_none=True, help="of the text")
    features = Instance("sae_widget.features.Features", allow_none=True, help="SAE, statistics, text: one record")
    fidelity = Instance(
        "sae_widget.fidelity.Fidelity", allow_none=True, help="what the language model loses with the SAE that is shown"
    )
    unmeasured = Unicode(help="why it is not known what the model loses with the SAE that is shown, when it cannot be")
    history = Instance("sae_widget.training.History", allow_none=True)
    history_of = Unicode(help="the key that ``features`` have when they are of the SAE whose training that is")
    history_tick = Int(0, help="rises when the history has grown")
    status = Instance(Status, ())
    faults = Dict(help="pane name -> a sentence on what went wrong there; 'folder': with the one that was typed")
    save_answer = Instance(SaveAnswer, (), help="to the last 'save', a new one each time")
    beat = Int(0, help="rises every two seconds while the kernel lives")
    offers = Tuple(help="buttons shown beside the status, names among OFFERS")
    card = Instance("sae_widget.features.FeatureCardData", allow_none=True, help="of the selected feature")

    def __init__(self, **inputs: Any) -> None:
        self.lock = threading.RLock()
        super().__init__(**inputs)

    def notify_change(self, change: Any) -> None:
        """Run the observers of a change under the lock, so that two threads never draw at once."""
        with self.lock:
            super().notify_change(change)
