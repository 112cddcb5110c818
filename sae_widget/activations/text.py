"""Texts on their way into a tokenizer, and tokens on their way to the screen."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from sae_widget.config import MAX_TEXT_CHARS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

EMPTY_TEXT = "Type some text first (it has 0 tokens)."

_SURROGATE_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_BROKEN_BYTES = re.compile("[\udc80-\udcff]+")  # what "surrogateescape" leaves of bytes that are no character
_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_VISIBLE = {" ": "·", "\n": "↵", "\t": "→"}
_HIDDEN_CATEGORIES = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp", "Zs"}
# Characters that draw nothing although Unicode counts them as letters, marks or symbols.
_BLANKS = {0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x2800, 0x3164, 0xFFA0, *range(0x180B, 0x1810)}
_BLANKS |= {*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)}


def clean_text(text: str) -> tuple[str, tuple[str, ...]]:
    """The text as it can be encoded, and a sentence for each thing that was changed.

    Two halves of a surrogate pair become their character; a lone half becomes U+FFFD.

    Args:
        text: any string of at most ``MAX_TEXT_CHARS`` characters.

    Raises:
        TypeError: not a string.
        ValueError: longer than the limit.
    """
    return _clean("text", text)


def check_texts(texts: str | Iterable[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """One text or several, cleaned; and the sentences about what was changed or left out.

    Texts with nothing but white space stay in their place, so that ``text_index`` keeps its meaning.

    Raises:
        TypeError: ``texts`` is neither a string nor an iterable of strings; the message names the item.
        ValueError: there is no text with anything in it, or one is longer than the limit.
    """
    if isinstance(texts, str):
        items: list[Any] = [texts]
        names = ["text"]
    elif isinstance(texts, (bytes, bytearray, dict)) or not hasattr(texts, "__iter__"):
        raise TypeError(f"texts must be a string or a list of strings, got {_type_name(texts)}")
    else:
        items = list(texts)
        names = [f"texts[{i}]" for i in range(len(items))]
    cleaned = [_clean(name, item) for name, item in zip(names, items, strict=True)]
    empty = sum(not text.strip() for text, _ in cleaned)
    if empty == len(cleaned):
        raise ValueError(EMPTY_TEXT)
    notes = list(dict.fromkeys(note for _, found in cleaned for note in found))
    if empty:
        them = "it" if empty == 1 else "them"
        notes.append(f"{empty:,} of {len(cleaned):,} texts left out: nothing in {them}.")
    return tuple(text for text, _ in cleaned), tuple(notes)


def token_bytes(tokenizer: Any, ids: Sequence[int]) -> list[bytes]:
    """The UTF-8 bytes that each token stands for; joined they are the text's, for a byte-level tokenizer.

    Args:
        tokenizer: a ``transformers`` tokenizer. For one whose vocabulary is not byte-level the bytes are
            those of its own decoded token.
        ids: token ids.
    """
    ids = [int(i) for i in ids]
    unique = list(dict.fromkeys(ids))
    added = tokenizer.added_tokens_decoder
    byte_level = _is_byte_level(tokenizer)
    found = {}
    for token_id, token in zip(unique, tokenizer.convert_ids_to_tokens(unique), strict=True):
        if token_id in added:
            found[token_id] = added[token_id].content.encode("utf-8", "replace")
        elif token is None:
            found[token_id] = b""
        else:
            found[token_id] = _piece_bytes(tokenizer, token, byte_level)
    return [found[token_id] for token_id in ids]


def token_labels(tokenizer: Any, ids: Sequence[int]) -> tuple[str, ...]:
    """What is drawn for each token: every character visible, nothing that could reorder or hide a label.

    Spaces are "·", newlines "↵", tabs "→"; bytes that are part of a character "<F0 9F>"; control, invisible
    and direction characters "<U+202E>"; an id without text "<id 50300>".

    Args:
        tokenizer: as in ``token_bytes``.
        ids: token ids.
    """
    ids = [int(i) for i in ids]
    unique = list(dict.fromkeys(ids))
    drawn = {i: label_bytes(b) or f"<id {i}>" for i, b in zip(unique, token_bytes(tokenizer, unique), strict=True)}
    return tuple(drawn[i] for i in ids)


def label_bytes(data: bytes) -> str:
    """A label for some bytes of UTF-8 text, which may begin or end inside a character."""
    text = data.decode("utf-8", "surrogateescape")
    shown, at = [], 0
    for broken in _BROKEN_BYTES.finditer(text):
        shown.extend(_visible(text[at : broken.start()]))
        shown.append("<" + " ".join(f"{ord(c) - 0xDC00:02X}" for c in broken.group()) + ">")
        at = broken.end()
    shown.extend(_visible(text[at:]))
    return "".join(shown)


def _visible(text: str) -> list[str]:
    shown = [_visible_character(c) for c in text]
    if text and shown[0] == text[0] and unicodedata.category(text[0]) in ("Mn", "Mc", "Me"):
        shown[0] = "◌" + text[0]  # a mark with no letter under it
    return shown


def _visible_character(character: str) -> str:
    if character in _VISIBLE:
        return _VISIBLE[character]
    code = ord(character)
    if code in _BLANKS or unicodedata.category(character) in _HIDDEN_CATEGORIES:
        return f"<U+{code:04X}>"
    return character


def _clean(name: str, text: object) -> tuple[str, tuple[str, ...]]:
    if not isinstance(text, str):
        raise TypeError(f"{name} must be a string, got {_type_name(text)}")
    if len(text) > MAX_TEXT_CHARS:
        raise ValueError(
            f"{name} has {len(text):,} characters; the text limit is {MAX_TEXT_CHARS:,} characters. "
            "Shorten it, or give a list of shorter texts."
        )
    joined = _SURROGATE_PAIR.sub(lambda m: m.group().encode("utf-16", "surrogatepass").decode("utf-16"), text)
    cleaned, count = _LONE_SURROGATE.subn("\ufffd", joined)
    if not count:
        return cleaned, ()
    return cleaned, (f"Half characters (lone surrogates) replaced by U+FFFD: {count:,}.",)


def _type_name(value: object) -> str:
    return "None" if value is None else type(value).__name__


def _is_byte_level(tokenizer: Any) -> bool:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    return "ByteLevel" in repr(getattr(backend, "decoder", None))


def _piece_bytes(tokenizer: Any, token: str, byte_level: bool) -> bytes:
    if byte_level:
        table = _byte_of_character()
        if all(c in table for c in token):
            return bytes(table[c] for c in token)
    if match := _BYTE_TOKEN.fullmatch(token):
        return bytes([int(match.group(1), 16)])
    if token.startswith("▁"):  # sentencepiece's space, which decoding a single token drops
        return token.replace("▁", " ").encode("utf-8", "replace")
    return str(tokenizer.convert_tokens_to_string([token])).encode("utf-8", "replace")


@lru_cache(maxsize=1)
def _byte_of_character() -> dict[str, int]:
    """GPT-2's spelling of bytes as printable characters (Radford et al. 2019), reversed.

    Bytes that are printable in Latin-1 stand for themselves; the others follow from U+0100 on, in order.
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(b): b for b in printable} | {chr(0x100 + i): b for i, b in enumerate(others)}
