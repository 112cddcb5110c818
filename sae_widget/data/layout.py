"""``store.json``: what a folder of stored activations says of itself, checked."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sae_widget.checkpoint.base import SaeFileError, first_fault, printable, unreadable
from sae_widget.config import HOOK_NAMES

if TYPE_CHECKING:
    from pathlib import Path

STORE = "store.json"
FORMAT_VERSION = 1
MAX_BYTES = 64_000_000
ITEM_BYTES = {"float16": 2, "bfloat16": 2, "float32": 4}
"""The dtypes that activations are stored in."""


class StoreConfig(BaseModel):
    """What is stored, how far it is written, and the sizes of its blocks."""

    model_config = ConfigDict(strict=True)

    format_version: int = Field(default=FORMAT_VERSION, ge=1)
    made_by: str = "a newer version"
    model_name: str
    layer: int = Field(ge=0, le=10_000)
    hook_name: str
    prepend_bos: bool
    corpus: str
    digest: str
    dtype: str
    d_in: int = Field(ge=1, le=1_000_000)
    max_tokens: int = Field(ge=1, le=10**13)
    texts_read: int = Field(default=0, ge=0)
    complete: bool = False
    shards: list[list[int]] = Field(default_factory=list)
    """For each file the tokens of its blocks, each of which begins with a window."""

    @property
    def n_tokens(self) -> int:
        """Tokens that are written."""
        return sum(map(sum, self.shards))

    def same_as(self, other: StoreConfig) -> bool:
        """Whether both are of one corpus, read at one place and stored in one dtype."""
        changing = {"format_version", "made_by", "corpus", "texts_read", "complete", "shards"}
        return self.model_dump(exclude=changing) == other.model_dump(exclude=changing)

    def __str__(self) -> str:
        return (
            f"{self.hook_name} of layer {self.layer} of {printable(self.model_name[:200])} over "
            f"{self.max_tokens:,} tokens of {printable(self.corpus[-200:]) or 'some texts'} in {self.dtype}"
        )


def shard_name(number: int) -> str:
    """The file of a shard; names never come from ``store.json``."""
    return f"activations-{number:06d}.safetensors"


def read_layout(folder: Path) -> StoreConfig | None:
    """What the folder's ``store.json`` says; None where there is none.

    Raises:
        SaeFileError: it cannot be read, or the first thing that is wrong with it.
    """
    try:
        with (folder / STORE).open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise unreadable(str(folder / STORE), (error.strerror or str(error)).lower()) from error
    if len(content) > MAX_BYTES:
        raise unreadable(STORE, f"it has more than {MAX_BYTES:,} bytes")
    try:
        config = StoreConfig.model_validate_json(content)
    except ValidationError as error:
        raise unreadable(STORE, first_fault(error)) from error
    if config.format_version > FORMAT_VERSION:
        raise SaeFileError(
            f"This store was made by sae_widget {printable(config.made_by[:40])}; please update. Nothing was loaded."
        )
    if config.dtype not in ITEM_BYTES:
        raise unreadable(STORE, f"dtype {config.dtype[:40]!r} is not one of {', '.join(ITEM_BYTES)}")
    if config.hook_name not in HOOK_NAMES:
        raise unreadable(STORE, f"hook_name {config.hook_name[:40]!r} is not one of {', '.join(HOOK_NAMES)}")
    if any(not shard or min(shard) < 1 or sum(shard) > 10**12 for shard in config.shards):
        raise unreadable(STORE, "a shard has no tokens, or a number of them that cannot be")
    return config


def write_layout(folder: Path, config: StoreConfig) -> None:
    """Put ``store.json`` in place as a whole, on the disk before it has its name."""
    into_place(folder / STORE, config.model_dump_json().encode())


def into_place(path: Path, content: bytes) -> None:
    """Write a file under a temporary name, bring it to the disk, and rename it."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
