"""sae_widget.data.texts: pieces of texts and of odd files, what is not text, and when they are read."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import pytest

from sae_widget.data.pieces import PIECE_CHARS
from sae_widget.data.texts import LOOK_EVERY, SAMPLED, TextPieces


@pytest.mark.parametrize(
    ("content", "piece"),
    [
        (b"a\0b\r\nc\r", "a\0b\r\nc\r"),
        (b"\xef\xbb\xbfone", "one"),
        (b"\xef\xbb\xbf\xef\xbb\xbfone", "\ufeffone"),  # only the first is a mark
        (b" \n\xf0\x9f\x99\x82\xe2\x80\xa8e\xcc\x81", " \n\U0001f642\u2028e\u0301"),
        (b"x", "x"),
    ],
)
def test_a_file_is_read_as_it_is(content: bytes, piece: str, tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"caf\xe9.txt")  # no UTF-8
    path.write_bytes(content)
    for corpus in (path, str(path), tmp_path):
        found = TextPieces(corpus)
        assert list(found) == [piece] and found[-1] == piece


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("text".encode("utf-16"), "is not UTF-8: byte 0xff at offset 0"),
        (b"caf\xe9 au lait", "is not UTF-8: byte 0xe9 at offset 3"),
        (b"\xef\xbb\xbfab\xed\xa0\x80", "is not UTF-8: byte 0xed at offset 5"),  # half of a pair
        (b"end \xf0\x9f\x99", "is not UTF-8: byte 0xf0 at offset 4"),  # cut off
        (b"\xef\xbb\xbf", "has no text in it. Choose another corpus"),
        (b"", "has no text in it. Choose another corpus"),
    ],
)
def test_a_file_without_text_is_refused(content: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(ValueError, match=words):
        TextPieces(tmp_path / "a.txt")


@pytest.mark.parametrize("corpus", [None, 5, True, [1, 2], ["a", None], b"some bytes", [b"some bytes"]])
def test_what_is_no_text_is_refused(corpus: Any) -> None:
    with pytest.raises(TypeError):
        TextPieces(corpus)


@pytest.mark.parametrize("corpus", ["", "  ", "a\0b", "\ud800", "x" * 5000])
def test_a_name_that_can_be_none_is_refused(corpus: str) -> None:
    with pytest.raises(ValueError, match=r"corpus|cannot be read"):
        TextPieces(corpus)


def test_it_is_a_sequence_of_its_pieces(tmp_path: Path) -> None:
    text = "".join(f"line {i:04}\n" for i in range(2 * PIECE_CHARS // 10))
    (tmp_path / "a.txt").write_bytes(text.encode())
    for found in (TextPieces(tmp_path), TextPieces([text]), TextPieces((text, "", " \n"))):
        assert sorted(found) == [text[:PIECE_CHARS], text[PIECE_CHARS:]]
        assert found[::-1] == [found[1], found[0]] == [found[-1], found[-2]] and found[2:] == []
        assert found[0] in found and text not in found and found.index(found[1]) == 1
        for wrong in (2, -3):
            with pytest.raises(IndexError):
                found[wrong]
    for nothing in ([], [""], [" \n", "\t"]):
        assert len(TextPieces(nothing)) == 0 and TextPieces(nothing)[:] == []


def test_there_are_no_pieces_before_the_end_of_the_reading(tmp_path: Path) -> None:
    n = LOOK_EVERY + 2
    for number in range(n):
        (tmp_path / f"{number:04}.txt").write_text(f"piece {number}")
    state = random.getstate()
    found = TextPieces(tmp_path, seed=4, later=True)
    reading = found.reading()
    next(reading)
    assert len(found) == 0 and found[:] == []
    assert len(list(reading)) == 1 and len(found) == n  # a breath at the first and at the 257th
    assert list(found.reading()) == [] and len(found) == n
    assert found[:] == TextPieces(tmp_path, seed=4)[:] and random.getstate() == state


@pytest.mark.parametrize("content", [b"\xff" * 8, "\u00e9\u00e9\u00e9\u00e9".encode("utf-16"), b"", None])
def test_what_became_of_a_file_is_noticed(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("8 bytes.")
    found = TextPieces(path)
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    for use in (lambda: found[0], found.digest):
        with pytest.raises(ValueError, match=r"a\.txt was changed or removed while it was being read\. Start again"):
            use()


def test_the_digest_is_of_the_pieces_wherever_they_are(tmp_path: Path) -> None:
    texts = [f"text {i}" for i in range(SAMPLED - 1)]
    for number, text in enumerate(texts):
        (tmp_path / f"{number:02}.txt").write_text(text)
    digest = TextPieces(texts).digest()
    assert TextPieces(tmp_path).digest() == digest and len(digest) == 32
    others = [TextPieces([*texts[:at], "other", *texts[at + 1 :]]).digest() for at in range(len(texts))]
    assert len({digest, TextPieces(texts, seed=1).digest(), TextPieces([]).digest(), *others}) == len(texts) + 3
    assert TextPieces(["ab", "c"]).digest() != TextPieces(["a", "bc"]).digest()
    assert TextPieces(["lone \ud800"]).digest() != TextPieces(["lone \ud801"]).digest()
