"""``explorer.json``: what an explorer showed beside an SAE in a folder, written by it and by ``sae-widget train``."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator

from sae_widget.activations.text import clean_text
from sae_widget.checkpoint import SaeFileError
from sae_widget.checkpoint.base import CONFIG, first_fault, unreadable
from sae_widget.config import CORPUS_TOKENS, HOOK_NAMES, MAX_D_SAE, MAX_TEXT_CHARS, START, TrainConfig

if TYPE_CHECKING:
    from sae_widget.activations.base import Activations
    from sae_widget.features import Features

EXPLORER, HISTORY = "explorer.json", "history.json"
FORM = ("model", "layer", "hook_name", "prepend_bos", "text", "corpus", "corpus_tokens", "selected")
"""Traits of an explorer's state that are kept."""
MAX_BYTES = 10_000_000
MAX_LAYER = 10_000
MAX_NAME_CHARS = 1_000
"""Longest name of a model, a corpus or a feature."""


def _of_a_recipe(settings: dict[str, Any]) -> dict[str, Any]:
    try:
        TrainConfig().changed(**settings)
    except TypeError as error:
        raise ValueError(str(error)) from error
    return settings


Settings = Annotated[dict[str, bool | int | float | str], AfterValidator(_of_a_recipe)]
"""Fields of ``TrainConfig`` as a file has them, with values that it takes."""


class SavedExplorer(BaseModel):
    """Inputs and names of an explorer; every field is checked, and no other is taken.

    Raises ``pydantic.ValidationError`` when a field has another type or is out of its range.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    model: str = Field(min_length=1, max_length=MAX_NAME_CHARS)
    layer: int = Field(ge=0, le=MAX_LAYER)
    hook_name: str = Field(pattern=f"^({'|'.join(HOOK_NAMES)})$")
    prepend_bos: bool
    text: str = Field(default=START.text, max_length=MAX_TEXT_CHARS)
    corpus: str = Field(default=START.corpus, min_length=1, max_length=MAX_NAME_CHARS)
    corpus_tokens: int = Field(default=START.corpus_tokens, ge=CORPUS_TOKENS[0], le=CORPUS_TOKENS[1])
    selected: int | None = Field(default=None, ge=0, lt=MAX_D_SAE)
    feature_names: dict[str, str] = Field(default_factory=dict, max_length=MAX_D_SAE)
    settings: Settings = Field(default_factory=dict)

    @field_validator("feature_names")
    @classmethod
    def _names_of_features(cls, names: dict[str, str]) -> dict[str, str]:
        for key, name in names.items():
            if not (key.isascii() and key.isdigit() and len(key) <= 6 and int(key) < MAX_D_SAE):
                raise ValueError(f"{key[:40]!r} is not the number of a feature")
            if len(name) > MAX_NAME_CHARS:
                raise ValueError(
                    f"the name of feature {key} has {len(name):,} characters, at most {MAX_NAME_CHARS:,} are kept"
                )
        return names

    @property
    def inputs(self) -> dict[str, Any]:
        """What the explorer is made with: text, place, corpus and recipe."""
        return {name: getattr(self, name) for name in FORM if name != "selected"} | self.settings

    @property
    def names(self) -> dict[int, str]:
        """Feature number -> the name a person gave it."""
        return {int(key): name for key, name in self.feature_names.items()}


def describe(settings: TrainConfig, feature_names: dict[int, str] | None = None, **inputs: Any) -> SavedExplorer:
    """The record that is written for these settings, names and inputs.

    Args:
        settings: the recipe.
        feature_names: feature number -> name.
        inputs: the other fields of ``SavedExplorer``.

    Raises:
        SaeFileError: one of them could not be read again; nothing was written.
    """
    names = {str(key): name for key, name in (feature_names or {}).items()}
    try:
        return SavedExplorer(settings=asdict(settings), feature_names=names, **inputs)
    except ValidationError as error:
        raise SaeFileError(f"This cannot be saved: {first_fault(error)}. Nothing was written.") from error


def describe_shown(
    features: Features,
    activations: Activations | None,
    settings: TrainConfig,
    feature_names: dict[int, str],
    form: dict[str, Any],
) -> SavedExplorer:
    """The record of what is shown: during a run the form may hold a place and a text that were refused.

    Args:
        features: the SAE with the text; where that was read is where the SAE is shown.
        activations: of the text, for features without one.
        settings: the recipe.
        feature_names: feature number -> name.
        form: the inputs in ``FORM``, for what is not said by the others.

    Raises:
        SaeFileError: one of them could not be read again; nothing was written.
    """
    if features.prompt is not None:
        activations = features.prompt.activations  # those that belong to these features
    shown = dict(form)
    if activations is not None:
        shown |= {
            "model": activations.model_name,
            "layer": activations.layer,
            "hook_name": activations.hook_name,
            "prepend_bos": bool(activations.spans[0, 0] == activations.spans[0, 1]),  # the span of a start token
            "text": "\n".join(activations.texts),
        }
    shown["text"] = clean_text(shown["text"])[0]
    return describe(settings, {feature: clean_text(name)[0] for feature, name in feature_names.items()}, **shown)


def write_explorer(folder: Path, explorer: SavedExplorer) -> None:
    """Write ``explorer.json`` into the folder of an SAE, in place of what was there.

    Raises:
        SaeFileError: it could not be written.
    """
    write_json(folder / EXPLORER, explorer.model_dump(), indent=1)


def write_json(path: Path, content: Any, indent: int | None = None) -> None:
    """Write one JSON file whole or not at all.

    Raises:
        SaeFileError: it could not be written.
    """
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        temporary.write_text(json.dumps(content, indent=indent), encoding="utf-8")
        temporary.replace(path)
    except (OSError, ValueError) as error:  # the latter of a name that no file can have
        with suppress(OSError, ValueError):
            temporary.unlink(missing_ok=True)
        words = (getattr(error, "strerror", None) or str(error)).lower()
        raise SaeFileError(
            f"{path} could not be written: {words}. "
            "The SAE beside it is saved; make room or choose another folder, then save again."
        ) from error


def read_explorer(path: str | Path) -> SavedExplorer:
    """Check ``explorer.json`` of a folder.

    Args:
        path: the folder that ``SuperpositionExplorer.save`` or ``sae-widget train`` wrote.

    Raises:
        SaeFileError: there is no such folder or file, or naming the first field that is wrong.
    """
    folder = Path(path)
    try:
        if not folder.is_dir():
            raise unreadable(f"No explorer could be read from {folder}", "there is no such folder")
        with (folder / EXPLORER).open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        alone = f"; the SAE in it opens with load_sae({str(folder)!r})" if (folder / CONFIG).exists() else ""
        raise unreadable(f"No explorer could be read from {folder}", f"it has no {EXPLORER}{alone}") from error
    except OSError as error:
        raise unreadable(f"No explorer could be read from {folder}", (error.strerror or str(error)).lower()) from error
    if len(content) > MAX_BYTES:
        raise unreadable(EXPLORER, f"it has more than {MAX_BYTES:,} bytes, which are not read")
    try:
        return SavedExplorer.model_validate_json(content)
    except ValidationError as error:
        raise unreadable(EXPLORER, first_fault(error)) from error
