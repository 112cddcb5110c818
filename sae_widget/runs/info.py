"""``run.json``: what a training is doing, on what and with which recipe, for whoever looks from another process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sae_widget.checkpoint.base import first_fault, folder_of, unreadable
from sae_widget.config import HOOK_NAMES, MAX_STEPS, TrainConfig
from sae_widget.runs.saved import Settings

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

RUN = "run.json"
MAX_BYTES = 50_000_000
MAX_SENTENCE = 10_000
FORMAT_VERSION = 1
BEAT = 2.0
"""Seconds between two signs of life in ``run.json``."""
PLACE = ("model", "layer", "hook_name", "prepend_bos", "corpus", "texts", "tokens", "store")
"""Fields that say what is read; with the settings they decide the run."""


class RunInfo(BaseModel):
    """One look at a run. Raises ``pydantic.ValidationError`` when a field has another type or is out of its range."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    format_version: int = Field(default=FORMAT_VERSION, ge=1)
    state: Literal["running", "finished", "stopped", "failed"] = "running"
    sentence: str = Field(default="", max_length=MAX_SENTENCE)  # how it ended
    step: int = Field(default=0, ge=0)
    total: int = Field(ge=1, le=MAX_STEPS)
    sae_step: int = Field(default=0, ge=0)  # of the SAE that lies in the folder; 0: it is of before this run
    started: float = Field(default=0.0, allow_inf_nan=False)  # seconds since 1970
    heartbeat: float = Field(default=0.0, allow_inf_nan=False)  # the same; changes every ``BEAT`` seconds of its life
    pid: int = Field(default=0, ge=0)
    host: str = Field(default="", max_length=1_000)

    model: str = Field(min_length=1, max_length=1_000)
    layer: int = Field(ge=0, le=10_000)
    hook_name: str = Field(pattern=f"^({'|'.join(HOOK_NAMES)})$")
    prepend_bos: bool = True
    corpus: str | None = Field(default=None, max_length=1_000)
    texts: list[str] | None = None  # instead of a corpus
    tokens: int = Field(ge=1)
    store: str | None = Field(default=None, max_length=10_000)  # folder of the activations
    settings: Settings = Field(default_factory=dict)

    @property
    def config(self) -> TrainConfig:
        """The recipe."""
        return TrainConfig().changed(**self.settings)

    def differs(self, given: dict[str, Any], names: Sequence[str] = PLACE) -> str:
        """The first of these fields that was given as something else than the run has; an empty string for none."""
        return next((name for name in names if given.get(name) not in (None, getattr(self, name))), "")


def read_run(path: str | Path) -> RunInfo:
    """Check ``run.json`` of a folder.

    Raises:
        SaeFileError: no training wrote there, or naming the first field that is wrong.
    """
    folder = folder_of(path)
    try:
        with (folder / RUN).open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        there = "no training has written there yet" if isinstance(error, FileNotFoundError) else error.strerror
        raise unreadable(f"No run could be read from {folder}", str(there or error).lower()) from error
    if len(content) > MAX_BYTES:
        raise unreadable(RUN, f"it has more than {MAX_BYTES:,} bytes, which are not read")
    try:
        info = RunInfo.model_validate_json(content)
    except ValidationError as error:
        raise unreadable(RUN, first_fault(error)) from error
    if info.format_version > FORMAT_VERSION:
        raise unreadable(RUN, "a newer sae_widget wrote it; please update")
    return info
