"""Data sets of the ``datasets`` library, by a stand-in for it: ``sae_widget.activations.streams``."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sae_widget.activations.corpus import corpus_files, corpus_passages, corpus_texts
from sae_widget.activations.streams import Stream, parse_stream, stream_texts
from sae_widget.data import TextPieces, open_corpus


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """What the stand-in was asked for, and the rows that it gives."""
    asked: dict[str, Any] = {"rows": [{"id": 1, "text": "first"}, {"id": 2, "text": None}, {"id": 3, "text": "last"}]}

    def load_dataset(name: str, config: str | None, *, split: str, streaming: bool) -> Iterator[dict[str, Any]]:
        asked.update(name=name, config=config, split=split, streaming=streaming, given=0)
        for row in asked["rows"]:
            asked["given"] += 1
            yield row

    module = types.ModuleType("datasets")
    module.load_dataset = load_dataset  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "datasets", module)
    yield asked


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("datasets:owner/name", Stream("owner/name", "", "train", "")),
        ("datasets:owner/name:en", Stream("owner/name", "en", "train", "")),
        ("datasets:owner/name::test", Stream("owner/name", "", "test", "")),
        ("datasets:name:::body", Stream("name", "", "train", "body")),
    ],
)
def test_names(name: str, wanted: Stream) -> None:
    assert parse_stream(name) == wanted
    assert corpus_files(name) == []


@pytest.mark.parametrize("name", ["datasets:", "datasets: ", "datasets:a/b:c:d:e:f", "datasets:../x", "datasets:a b"])
def test_names_that_cannot_be(name: str) -> None:
    with pytest.raises(ValueError, match=r"there is no corpus .*'datasets:owner/name:config:split:column'"):
        corpus_files(name)


def test_rows_become_texts(rows: dict[str, Any], tmp_path: Path) -> None:
    assert list(corpus_passages(f"datasets:{tmp_path}:en:test")) == ["first", "last"]
    asked = {name: rows[name] for name in ("name", "config", "split", "streaming")}
    assert asked == {"name": str(tmp_path), "config": "en", "split": "test", "streaming": True}


def test_the_column(rows: dict[str, Any], tmp_path: Path) -> None:
    rows["rows"] = [{"url": "u", "content": "c", "n": 3}]
    assert list(stream_texts(f"datasets:{tmp_path}")) == ["c"]
    assert list(stream_texts(f"datasets:{tmp_path}:::url")) == ["u"]
    with pytest.raises(ValueError, match=r"has no column 'text'; it has 'url', 'content', 'n'\."):
        list(stream_texts(f"datasets:{tmp_path}:::text"))
    with pytest.raises(ValueError, match=r"column 'n' of .* holds int and not text, in row 0"):
        list(stream_texts(f"datasets:{tmp_path}:::n"))
    rows["rows"] = [{"n": 3}]
    with pytest.raises(ValueError, match=r"has no column of text; it has 'n'\."):
        list(stream_texts(f"datasets:{tmp_path}"))


def test_no_more_is_read_than_is_needed(rows: dict[str, Any], tmp_path: Path, tiny_gpt2: Any) -> None:
    rows["rows"] = [{"text": f"row {n:05d}. " * 10} for n in range(10_000)]  # 110 tokens each
    found = TextPieces(f"datasets:{tmp_path}", enough=lambda _: rows["given"] >= 40)
    assert len(found) == rows["given"] == 40 and sorted(found)[7] == "row 00007. " * 10
    place: dict[str, Any] = {"layer": 1, "hook_name": "resid_pre", "prepend_bos": False}
    source = open_corpus(tiny_gpt2, f"datasets:{tmp_path}", max_tokens=1000, **place)
    assert rows["given"] == 10 and source.whole()[0].shape == (1000, 32)
    with pytest.raises(ValueError, match="is a stream and not read as a whole"):
        corpus_texts(f"datasets:{tmp_path}")


def test_the_library_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(
        ValueError, match=r"`datasets` is not installed.*Nothing was read; install it with `pip install"
    ):
        list(stream_texts("datasets:owner/name"))


def test_what_the_library_says_becomes_a_sentence(rows: dict[str, Any], tmp_path: Path) -> None:
    class Rows:
        def __iter__(self) -> Any:
            raise RuntimeError("Unknown split\n  'x'.")

    rows["rows"] = Rows()
    with pytest.raises(ValueError, match=r"could not be read as a data set: Unknown split 'x'\. Check its name"):
        list(stream_texts(f"datasets:{tmp_path}"))


def test_no_network_is_told_at_once(rows: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nothing listens there
    with pytest.raises(ValueError, match=r"^Cannot reach 127\.0\.0\.1 to load owner/name: the connection was refused"):
        list(stream_texts("datasets:owner/name"))
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    with pytest.raises(ValueError, match=r"cannot be streamed: .* forbids connections"):
        list(stream_texts("datasets:owner/name"))
    assert "name" not in rows
