"""Loading a language model behind the painted explorer: in a thread of its own, with progress and Cancel."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from sae_widget.activations.base import ModelLoadError
from sae_widget.activations.models import gpt2_is_cached, load_model

if TYPE_CHECKING:
    from collections.abc import Callable

    from sae_widget.activations.base import LanguageModel


class ModelLoading:
    """One attempt to load a model.

    Args:
        name: as ``load_model`` takes it, or ``"auto"``: GPT-2 when it is on this machine, else the bundled model.
        wake: called when the attempt has ended.
    """

    def __init__(self, name: str, wake: Callable[[], None]) -> None:
        self.name = name
        self.model: LanguageModel | None = None
        self.fault = ""
        self.done = False
        self.megabytes = ""
        self._wake = wake
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._load, name="sae_widget-loader", daemon=True)

    @property
    def remote(self) -> bool:
        """Whether this may take long or fail for want of a network."""
        return self.name not in ("auto", "bundled")

    @property
    def words(self) -> str:
        """What is going on, for the status line."""
        what = (
            "the bundled model" if self.name == "bundled" else "a language model" if self.name == "auto" else self.name
        )
        return f"Loading {what}{self.megabytes}"

    @staticmethod
    def bundled() -> LanguageModel:
        """The model that is always there."""
        return load_model("bundled")

    @property
    def cancelled(self) -> bool:
        """Whether the person gave up, which is no fault."""
        return self._stop.is_set()

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def cancel(self) -> None:
        """Give up; the attempt ends within a second."""
        self._stop.set()

    def _load(self) -> None:
        try:
            name = self.name
            if name == "auto":
                name = "gpt2" if gpt2_is_cached() else "bundled"
            self.model = load_model(name, progress=self._progress, cancel=self._stop)
        except ModelLoadError as fault:
            self.fault = str(fault)
        except Exception as fault:  # noqa: BLE001  (whatever a library raises here, the person gets a sentence)
            self.fault = f"{self.name} could not be loaded ({type(fault).__name__}: {fault})."
        self.done = True
        self._wake()

    def _progress(self, done: int, total: Any) -> None:
        self.megabytes = f": {done / 1e6:,.0f} MB" + (f" of {total / 1e6:,.0f}" if total else "")
        self._wake()
