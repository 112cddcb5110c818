"""sae_widget.activations.corpus: what is read, in which order, and what is said when it cannot be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sae_widget.activations import corpus
from sae_widget.activations.corpus import PASSAGE_CHARS, corpus_files, corpus_texts
from sae_widget.config import MAX_TEXT_CHARS


def test_documentation_is_the_topics_in_order() -> None:
    from pydoc_data.topics import topics

    texts = corpus_texts("documentation")
    whole = "".join(topics[name] for name in sorted(topics))
    assert "".join(texts) == whole
    assert all(0 < len(text) <= PASSAGE_CHARS <= MAX_TEXT_CHARS for text in texts)
    assert texts == corpus_texts("documentation")


def test_a_file_is_cut_between_paragraphs(tmp_path: Path) -> None:
    paragraph = "word " * 300 + "end.\n\n"
    file = tmp_path / "book.txt"
    file.write_text(paragraph * 40, encoding="utf-8")
    texts = corpus_texts(file)
    assert "".join(texts) == paragraph * 40
    assert len(texts) > 1 and all(text.endswith("end.\n\n") for text in texts)


def test_a_text_without_breaks_is_cut_anyway(tmp_path: Path) -> None:
    file = tmp_path / "one-line.txt"
    file.write_text("x" * (2 * PASSAGE_CHARS + 5), encoding="utf-8")
    assert [len(text) for text in corpus_texts(str(file))] == [PASSAGE_CHARS, PASSAGE_CHARS, 5]


def test_a_folder_is_read_in_alphabetical_order(tmp_path: Path) -> None:
    for name in ("b.txt", "a.txt", "c.md"):
        (tmp_path / name).write_text(name, encoding="utf-8")
    (tmp_path / "bom.txt").write_bytes(b"\xef\xbb\xbfhello")
    assert corpus_texts(tmp_path) == ["a.txt", "b.txt", "hello"]


@pytest.mark.parametrize(
    ("data", "byte", "offset"),
    [
        ("caf\u00e9".encode("latin-1"), "0xe9", 3),
        ("hi".encode("utf-16"), "0xff", 0),
        (b"ok\n\x80\x81", "0x80", 3),
    ],
)
def test_not_utf8_gives_the_byte(tmp_path: Path, data: bytes, byte: str, offset: int) -> None:
    file = tmp_path / "strange.txt"
    file.write_bytes(data)
    with pytest.raises(ValueError, match=f"is not UTF-8: byte {byte} at offset {offset}. Nothing was read"):
        corpus_texts(file)


def test_the_offset_counts_the_byte_order_mark(tmp_path: Path) -> None:
    file = tmp_path / "bom.txt"
    file.write_bytes(b"\xef\xbb\xbfab\xff")
    with pytest.raises(ValueError, match="byte 0xff at offset 5"):
        corpus_texts(file)


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"there is no corpus .*: give 'documentation', a text file or a folder"):
        corpus_texts(tmp_path / "missing.txt")
    with pytest.raises(ValueError, match=r"no \.txt files in"):
        corpus_texts(tmp_path)
    (tmp_path / "empty.txt").write_text(" \n", encoding="utf-8")
    with pytest.raises(ValueError, match="has no text in it"):
        corpus_texts(tmp_path)
    with pytest.raises(ValueError):
        corpus_texts("nul\0byte")
    for nobody in ("", " "):  # which is not the working directory
        with pytest.raises(ValueError, match="corpus must be 'documentation', a text file or a folder"):
            corpus_texts(nobody)
    with pytest.raises(ValueError, match=r"~nobody-of-this-name/x cannot be read: Could not determine home"):
        corpus_texts("~nobody-of-this-name/x")


def test_files_are_found_without_reading_them(tmp_path: Path) -> None:
    for name in ("b.txt", "a.txt", "c.md"):
        (tmp_path / name).write_bytes(b"\xff")
    assert corpus_files(tmp_path) == [tmp_path / "a.txt", tmp_path / "b.txt"]
    assert corpus_files(str(tmp_path / "c.md")) == [tmp_path / "c.md"]
    assert corpus_files("documentation") == []


@pytest.mark.parametrize("value", [None, 3, b"documentation", ["a"]])
def test_wrong_types(value: Any) -> None:
    with pytest.raises(TypeError, match="name_or_path must be a string or a path"):
        corpus_texts(value)


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_file_is_read_bit_by_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    text = "caf\u00e9 \u2603 \U0001f600 line\n\n" * 3000
    (tmp_path / "a.txt").write_text("\ufeff" + text, encoding="utf-8", newline="")
    whole = corpus_texts(tmp_path)
    monkeypatch.setattr(corpus, "READ_BYTES", size)
    assert max(map(len, corpus.decoded(tmp_path / "a.txt"))) <= size
    assert corpus_texts(tmp_path) == whole and "".join(whole) == text
    (tmp_path / "b.txt").write_bytes("\u2603\u2603".encode() + b"\xe2\x98a")
    with pytest.raises(ValueError, match=r"byte 0xe2 at offset 6\."):
        corpus_texts(tmp_path / "b.txt")
    (tmp_path / "b.txt").write_bytes("\ufeff\u2603".encode() + b"\xe2\x98")
    with pytest.raises(ValueError, match=r"byte 0xe2 at offset 6\."):
        corpus_texts(tmp_path / "b.txt")


def test_passages_of_a_stream_are_made_as_they_are_needed() -> None:
    taken: list[int] = []

    def parts() -> Any:
        for n in range(100):
            taken.append(n)
            yield "x" * 15_000

    found = corpus.passages(parts())
    assert len(next(found)) == PASSAGE_CHARS and taken == [0, 1]
