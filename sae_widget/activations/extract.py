"""Reading the activations of texts at one place of a language model."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sae_widget.activations.base import Activations, LanguageModel, check_site, layer_name
from sae_widget.activations.text import EMPTY_TEXT, check_texts, token_bytes, token_labels

if TYPE_CHECKING:
    from collections.abc import Iterable

_TOKENIZER_LOCK = threading.Lock()  # a fast tokenizer keeps "read special tokens or not" as its own state


@dataclass(frozen=True, eq=False)
class _Window:
    """Some tokens of one text that the model reads at once; ``row`` is where they go."""

    row: int
    text_index: int
    ids: np.ndarray  # [pos] int64, with the start token if there is one
    spans: np.ndarray  # [pos, 2] int64


def get_activations(
    model: LanguageModel,
    texts: str | Iterable[str],
    layer: int,
    hook_name: str = "resid_pre",
    *,
    prepend_bos: bool = False,
    batch_tokens: int = 2048,
    max_tokens: int | None = None,
    special_tokens: bool = False,
) -> Activations:
    """Read texts and keep the activations at one place, one row a token, in the order of the texts.

    Only the blocks up to that place are run, and never the vocabulary head. A text longer than the model's
    context is cut into windows, and a note says so.

    Args:
        model: what ``load_model`` returned.
        texts: one text or several.
        layer: block, from 0 to ``n_layer - 1``; ``final_norm`` comes after the last block whatever the layer.
        hook_name: one of ``HOOK_NAMES``.
        prepend_bos: open each window with the model's start token (row with the empty span).
        batch_tokens: tokens that are run at once, at least one window; bounds the memory.
        max_tokens: stop after this many rows.
        special_tokens: read ``<|endoftext|>`` in a text as the special token instead of as plain text.

    Returns:
        ``Activations`` with float32 ``values [n_tokens, d_in]`` on the CPU.

    Raises:
        TypeError: an argument of the wrong type, named.
        ValueError: no text, a text over the limit, an unknown place, or activations that are not finite.
    """
    if not isinstance(model, LanguageModel):
        raise TypeError(f"model must be what load_model returned, got {type(model).__name__}")
    check_site(layer, hook_name, model.n_layer)
    _check_count("batch_tokens", batch_tokens)
    if max_tokens is not None:
        _check_count("max_tokens", max_tokens)
    if prepend_bos and model.bos_id is None:
        raise ValueError(f"{model.label} has no start token; read it with prepend_bos=False.")
    cleaned, notes = check_texts(texts)
    windows, read, more = _windows(model, cleaned, prepend_bos, max_tokens, special_tokens)
    values = _run(model, windows, layer, hook_name, batch_tokens)
    ids = np.concatenate([window.ids for window in windows])
    return Activations(
        values=values,
        token_ids=torch.from_numpy(ids),
        position=torch.cat([torch.arange(len(window.ids)) for window in windows]),
        text_index=torch.cat([torch.full((len(w.ids),), w.text_index) for w in windows]),
        spans=torch.from_numpy(np.concatenate([window.spans for window in windows])),
        labels=token_labels(model.tokenizer, ids.tolist()),
        texts=read,
        notes=(*notes, *more),
        model_name=model.name,
        layer=layer,
        hook_name=hook_name,
    )


def encode_text(tokenizer: Any, text: str, special_tokens: bool = False) -> tuple[str, np.ndarray, np.ndarray]:
    """Token ids of a text, and the characters ``[start, end)`` that each token belongs to.

    Tokens that are bytes of one character all have that character's span. A tokenizer that normalises its
    input (Pythia's: NFC) gets the text normalised beforehand, so that spans and bytes are of what it read.

    Args:
        tokenizer: a fast ``transformers`` tokenizer.
        text: what is read.
        special_tokens: read ``<|endoftext|>`` in it as the special token instead of as plain text.

    Returns:
        The text as it was read; ids ``[n]`` int64; spans ``[n, 2]`` int64.
    """
    normalizer = getattr(getattr(tokenizer, "backend_tokenizer", None), "normalizer", None)
    if normalizer is not None:
        text = normalizer.normalize_str(text)
    with _TOKENIZER_LOCK:
        encoded = tokenizer(
            text,
            add_special_tokens=False,
            return_offsets_mapping=True,
            return_attention_mask=False,
            split_special_tokens=not special_tokens,
            verbose=False,
        )
    ids = np.array(encoded["input_ids"], dtype=np.int64)
    pieces = token_bytes(tokenizer, ids.tolist())
    if b"".join(pieces) == text.encode("utf-8"):
        return text, ids, _spans_of_bytes(text, pieces)
    return text, ids, np.array(encoded["offset_mapping"], dtype=np.int64).reshape(-1, 2)


def _spans_of_bytes(text: str, pieces: list[bytes]) -> np.ndarray:
    """Characters of each piece, when the pieces joined are the text. ``[n_pieces, 2]`` int64."""
    codes = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
    widths = 1 + (codes >= 0x80).astype(np.int64) + (codes >= 0x800) + (codes >= 0x10000)
    character = np.repeat(np.arange(len(codes)), widths)  # [n_bytes], which character a byte is of
    ends = np.cumsum([len(piece) for piece in pieces], dtype=np.int64)
    starts = np.concatenate([[0], ends[:-1]]).astype(np.int64)
    if not len(character):
        return np.zeros((0, 2), dtype=np.int64)
    return np.stack([character[starts], character[ends - 1] + 1], axis=1)


def _windows(
    model: LanguageModel, texts: tuple[str, ...], prepend_bos: bool, max_tokens: int | None, special: bool
) -> tuple[list[_Window], tuple[str, ...], list[str]]:
    """The windows of all texts, the texts as they were read, and notes in words."""
    start = [model.bos_id] if model.bos_id is not None and prepend_bos else []
    room = model.n_positions - len(start)
    if room < 1:
        raise ValueError(f"{model.label} reads 1 token at a time, so there is no room for a start token.")
    limit = float("inf") if max_tokens is None else max_tokens
    windows: list[_Window] = []
    read, rows, stopped = list(texts), 0, None
    for index, text in enumerate(texts):
        if rows >= limit:
            stopped = index
            break
        if text.strip():
            read[index], ids, spans = encode_text(model.tokenizer, text, special)
            windows += _cut(index, ids, spans, start, room, rows)
            rows = _end(windows)
    if rows > limit:
        stopped = windows[-1].text_index
        windows = _trimmed(windows, int(limit), len(start))
    if not windows:
        short = max_tokens is not None and rows
        raise ValueError("max_tokens leaves no room behind the start token; raise it." if short else EMPTY_TEXT)
    return windows, tuple(read), _notes(windows, len(start), room, stopped, texts, tuple(read))


def _cut(index: int, ids: np.ndarray, spans: np.ndarray, start: list[int], room: int, row: int) -> list[_Window]:
    """One text in windows of at most ``room`` tokens behind the start token, whose span is empty."""
    windows = []
    for at in range(0, len(ids), room):
        piece, piece_spans = ids[at : at + room], spans[at : at + room]
        if start:
            piece = np.concatenate([np.array(start, dtype=np.int64), piece])
            piece_spans = np.concatenate([np.full((1, 2), piece_spans[0, 0]), piece_spans])
        windows.append(_Window(row, index, piece, piece_spans))
        row += len(piece)
    return windows


def _trimmed(windows: list[_Window], limit: int, n_start: int) -> list[_Window]:
    """The first ``limit`` rows, without a window that would hold its start token alone."""
    kept = [window for window in windows if window.row + n_start < limit]
    if kept and _end(kept) > limit:
        size = limit - kept[-1].row
        kept[-1] = replace(kept[-1], ids=kept[-1].ids[:size], spans=kept[-1].spans[:size])
    return kept


def _end(windows: list[_Window]) -> int:
    return windows[-1].row + len(windows[-1].ids) if windows else 0


def _notes(
    windows: list[_Window],
    n_start: int,
    room: int,
    stopped: int | None,
    texts: tuple[str, ...],
    read: tuple[str, ...],
) -> list[str]:
    notes = []
    if texts != read:
        notes.append("The tokenizer put some characters into their composed form (NFC) before reading.")
    pieces = Counter(window.text_index for window in windows)
    cut = {index for index, count in pieces.items() if count > 1}
    n_windows = sum(pieces[index] for index in cut)
    if len(cut) == 1:
        n_tokens = sum(len(window.ids) - n_start for window in windows if window.text_index in cut)
        notes.append(
            f"{n_tokens:,} tokens; this model reads {room:,} at a time, so the text was read in {n_windows:,} windows."
        )
    elif cut:
        notes.append(
            f"{len(cut):,} texts are longer than the {room:,} tokens that this model reads at a time, "
            f"so they were read in {n_windows:,} windows."
        )
    if stopped is not None:
        where = f", in text {stopped + 1:,} of {len(texts):,}" if len(texts) > 1 else ""
        notes.append(f"Reading stopped after {_end(windows):,} tokens{where}.")
    return notes


def _run(model: LanguageModel, windows: list[_Window], layer: int, hook_name: str, batch_tokens: int) -> torch.Tensor:
    """Activations of all windows, ``[n_tokens, d_in]``; windows of one length run together, never padded."""
    values = torch.empty(_end(windows), model.d_in, dtype=torch.float32, device="cpu")
    by_length: dict[int, list[_Window]] = {}
    for window in windows:
        by_length.setdefault(len(window.ids), []).append(window)
    with torch.no_grad():
        for length, group in by_length.items():
            size = max(1, batch_tokens // length)
            for at in range(0, len(group), size):
                batch = group[at : at + size]
                ids = torch.from_numpy(np.stack([window.ids for window in batch])).to(model.device)  # [batch, pos]
                found = _read_site(model, ids, layer, hook_name).to("cpu", torch.float32)  # [batch, pos, d_in]
                if not bool(torch.isfinite(found).all()):
                    raise ValueError(_where_not_finite(model, ids, layer, hook_name))
                for window, rows in zip(batch, found, strict=True):
                    values[window.row : window.row + length] = rows
    return values


def _read_site(model: LanguageModel, ids: torch.Tensor, layer: int, hook_name: str) -> torch.Tensor:
    resid = model.adapter.embed(ids)
    last = model.n_layer if hook_name == "final_norm" else layer
    for index in range(last):
        resid = model.adapter.block(index, resid).resid_post
    if hook_name == "final_norm":
        return model.adapter.final_norm(resid)
    if hook_name == "resid_pre":
        return resid
    return getattr(model.adapter.block(layer, resid), hook_name)


def _where_not_finite(model: LanguageModel, ids: torch.Tensor, layer: int, hook_name: str) -> str:
    """Run again, block by block, and say where the first NaN or infinite value comes from."""
    resid = model.adapter.embed(ids)
    at, kind = "embeddings", _kind(resid)
    number = 0
    while kind is None and number < model.n_layer:
        resid = model.adapter.block(number, resid).resid_post
        kind, at = _kind(resid), layer_name(number, "resid_post", model.n_layer)
        number += 1
    where = f"layer {number} ({at})" if kind else f"layer {layer} ({layer_name(layer, hook_name, model.n_layer)})"
    if resid.dtype == torch.float16 and _weights_are_finite(model):
        why, advice = "is in float16, whose numbers end at 65,504", "load it in float32"
    else:
        why, advice = "has damaged weights", "load another model"
    return f"model output is {kind or 'NaN'} at {where}: {model.label} {why}. Nothing was trained on it; {advice}."


def _weights_are_finite(model: LanguageModel) -> bool:
    return all(bool(torch.isfinite(weight).all()) for weight in model.network.parameters())


def _kind(values: torch.Tensor) -> str | None:
    if bool(torch.isnan(values).any()):
        return "NaN"
    return "infinite" if bool(torch.isinf(values).any()) else None


def _check_count(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be a whole number, got {value!r}")
    if value < 1:
        raise ValueError(f"{name} must be at least 1, got {value}")
