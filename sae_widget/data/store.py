"""Activations that are written to a disk once and read back block by block, mapped into memory."""

from __future__ import annotations

import shutil
from bisect import bisect_right
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from sae_widget.checkpoint.base import SaeFileError, unreadable
from sae_widget.data.layout import (
    ITEM_BYTES,
    StoreConfig,
    into_place,
    read_layout,
    shard_name,
    write_layout,
)
from sae_widget.data.pieces import PIECES_AT_ONCE
from sae_widget.data.stream import BLOCK_TOKENS

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from sae_widget.activations.base import Activations
    from sae_widget.data.stream import ModelActivations

SHARD_BYTES = 32_000_000  # of values in a file: what a killed writer loses, and what it holds
LOCK = ".sae_widget.lock"
KEPT = "What is written stays; the next call with the same arguments goes on from there."


class ShardedActivations:
    """An ``ActivationSource`` of a folder that ``write_store`` wrote.

    Args:
        path: the folder.
        buffer_tokens: rows that a trainer holds at once; None takes 256 MB of them.

    Raises:
        SaeFileError: there is no store, it is unfinished, or a file of it is missing or is not what it should be.
    """

    def __init__(self, path: str | Path, buffer_tokens: int | None = None) -> None:
        self.folder, self.buffer_tokens = Path(path).expanduser(), buffer_tokens
        config = read_layout(self.folder)
        if config is None:
            raise SaeFileError(f"There is no store of activations in {self.folder}. Nothing was loaded.")
        if not config.complete:
            raise SaeFileError(
                f"The store in {self.folder} is unfinished: {config.n_tokens:,} of {config.max_tokens:,} tokens are "
                "written. Call open_corpus with the same arguments and store=, and it goes on from there."
            )
        self.config, self.d_in, self.n_tokens = config, config.d_in, config.n_tokens
        self._first = [0, *accumulate(len(shard) for shard in config.shards)]  # the first block of each shard
        self.n_blocks = self._first[-1]
        if not self.n_blocks:
            raise unreadable(str(self.folder), "it has no activations")
        self.block_tokens = max(map(max, config.shards))
        self.notes: tuple[str, ...] = ()
        for number, shard in enumerate(config.shards):
            with _opened(self.folder / shard_name(number), sum(shard), config):
                pass

    @property
    def metadata(self) -> dict[str, Any]:
        """What an SAE that is trained on it should say."""
        names = {name: getattr(self.config, name) for name in ("model_name", "layer", "hook_name", "prepend_bos")}
        return names | {"training_tokens": self.n_tokens}

    def load(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Activations ``[n, d_in]`` in the dtype of the store and positions ``[n]`` of one block."""
        if not 0 <= index < self.n_blocks:
            raise ValueError(f"block must be between 0 and {self.n_blocks - 1}, got {index}")
        number = bisect_right(self._first, index) - 1
        shard = self.config.shards[number]
        at = index - self._first[number]
        start, stop = sum(shard[:at]), sum(shard[: at + 1])
        path = self.folder / shard_name(number)
        with _opened(path, sum(shard), self.config) as file:
            values, position = (file.get_slice(name)[start:stop] for name in ("values", "position"))
        if int(position.min()) < 0:
            raise unreadable(path.name, f"a position of block {index} is negative")
        return values, position.long()

    def whole(self) -> tuple[torch.Tensor, torch.Tensor]:
        """All of it, ``[n_tokens, d_in]`` float32 and ``[n_tokens]``."""
        return self.sample(self.n_tokens)

    def sample(self, n_tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The first tokens, at most so many, in float32; the texts were shuffled, so they come from everywhere."""
        values = torch.empty(min(n_tokens, self.n_tokens), self.d_in, dtype=torch.float32)
        position, at = torch.empty(len(values), dtype=torch.int64), 0
        for index in range(self.n_blocks):
            part, place = (tensor[: len(values) - at] for tensor in self.load(index))
            values[at : at + len(part)], position[at : at + len(part)] = part, place
            at += len(part)
            if at == len(values):
                break
        return values, position


def write_store(
    source: ModelActivations, path: str | Path, *, corpus: str, digest: str, dtype: str
) -> Generator[int, None, None]:
    """Write a corpus's activations into a folder; yields the tokens written so far, some thousand further each time.

    Ending it between two of them leaves an unfinished store, with which the next call goes on. A store that is
    complete is left as it is.

    Args:
        source: the model and the texts.
        path: the folder, made when it does not exist.
        corpus: its name, for people.
        digest: tells its texts from others'.
        dtype: ``"float16"``, ``"bfloat16"`` (large numbers) or ``"float32"``.

    Raises:
        ValueError: another dtype, or activations that are too large for float16.
        SaeFileError: the folder holds another store, another program writes to it, or it cannot be written.
    """
    if dtype not in ITEM_BYTES:
        raise ValueError(f"dtype must be one of {', '.join(ITEM_BYTES)}, got {dtype!r}")
    wanted = _layout(source, corpus, digest, dtype)
    folder = Path(path).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder):
            found = read_layout(folder)
            if found is not None and not found.same_as(wanted):
                raise SaeFileError(
                    f"{folder} already holds {found}, and this is {wanted}. Nothing was written; choose another folder."
                )
            if found is None or not found.complete:
                yield from _write(source, folder, found or wanted)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise SaeFileError(f"The activations could not be written to {folder}: {reason}. {KEPT}") from error


def _layout(source: ModelActivations, corpus: str, digest: str, dtype: str) -> StoreConfig:
    from sae_widget import __version__

    return StoreConfig(
        made_by=__version__,
        model_name=source.model.name,
        layer=source.layer,
        hook_name=source.hook_name,
        prepend_bos=source.prepend_bos,
        corpus=corpus.encode(errors="replace").decode(),  # a file's name may have bytes that are no text
        digest=digest,
        dtype=dtype,
        d_in=source.d_in,
        max_tokens=source.max_tokens,
    )


def _write(source: ModelActivations, folder: Path, config: StoreConfig) -> Iterator[int]:
    """Write what is missing, one shard after the other; each is in ``store.json`` as soon as it is whole."""
    row_bytes = config.d_in * ITEM_BYTES[config.dtype]
    _check_disk(folder, (min(source.n_tokens, config.max_tokens) - config.n_tokens) * row_bytes)
    done, texts = config.n_tokens, config.texts_read
    blocks: list[list[Activations]] = [[]]  # of the shard that is being filled
    for part in source.parts(config.max_tokens - done, first_text=texts) if done < config.max_tokens else ():
        blocks[-1].append(part)
        done += part.n_tokens
        texts += PIECES_AT_ONCE
        if sum(p.n_tokens for p in blocks[-1]) >= BLOCK_TOKENS:
            if sum(p.n_tokens for block in blocks for p in block) * row_bytes >= SHARD_BYTES:
                config = _add_shard(folder, config, blocks, texts)
                blocks = []
            blocks.append([])
        yield done
    if any(blocks):
        config = _add_shard(folder, config, [block for block in blocks if block], texts)
    write_layout(folder, config.model_copy(update={"complete": True}))


def _add_shard(folder: Path, config: StoreConfig, blocks: list[list[Activations]], texts: int) -> StoreConfig:
    parts = [part for block in blocks for part in block]
    values = torch.cat([part.values for part in parts]).to(getattr(torch, config.dtype))
    if not bool(torch.isfinite(values).all()):
        largest = max(float(part.values.abs().max()) for part in parts)
        raise ValueError(
            f"An activation of {largest:,.0f} is too large for {config.dtype}, which ends at 65,504. "
            f"{KEPT} Write another store, with dtype='bfloat16' or 'float32'."
        )
    position = torch.cat([part.position for part in parts]).to(torch.int32)
    number = len(config.shards)
    into_place(folder / shard_name(number), save({"values": values, "position": position}))
    sizes = [sum(part.n_tokens for part in block) for block in blocks]
    config = config.model_copy(update={"shards": [*config.shards, sizes], "texts_read": texts})
    write_layout(folder, config)
    return config


def _check_disk(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise SaeFileError(
            f"The activations need {needed / 1e9:.1f} GB more in {folder}, {free / 1e9:.1f} GB are free. "
            "Nothing was written; ask for fewer tokens, or choose another folder."
        )


@contextmanager
def _opened(path: Path, n_tokens: int, config: StoreConfig) -> Iterator[Any]:
    """A shard, mapped into memory; its header is as ``store.json`` says."""
    try:
        with safe_open(path, framework="pt") as file:
            for name, dtype, shape in (
                ("values", _CODES[config.dtype], [n_tokens, config.d_in]),
                ("position", "I32", [n_tokens]),
            ):
                if name not in set(file.keys()):
                    raise unreadable(path.name, f"{name} is missing")
                found = file.get_slice(name)
                if (found.get_dtype(), found.get_shape()) != (dtype, shape):
                    told = f"{name} is {found.get_dtype()} {found.get_shape()}"
                    raise unreadable(path.name, f"{told}, store.json says {dtype} {shape}")
            yield file
    except FileNotFoundError as error:
        raise unreadable(str(path), "the file is missing") from error
    except (SafetensorError, OSError) as error:
        raise unreadable(path.name, "it is damaged or cannot be read") from error


_CODES = {"float16": "F16", "bfloat16": "BF16", "float32": "F32"}


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    from filelock import FileLock, Timeout

    lock = FileLock(folder / LOCK, timeout=1)
    try:
        lock.acquire()
    except Timeout:
        raise SaeFileError(f"Another program is writing to {folder}. Nothing was changed; wait for it.") from None
    try:
        yield
    finally:
        lock.release()
