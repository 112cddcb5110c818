"""sae_widget.activations.text: every character visible, every byte kept."""

from __future__ import annotations

import sys
import threading
import time
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from sae_widget.activations.extract import encode_text
from sae_widget.activations.text import check_texts, clean_text, label_bytes, token_bytes, token_labels
from sae_widget.config import MAX_TEXT_CHARS

FAMILY = "👨‍👩‍👧"
NASTY = [
    "\x00",
    "\ufeff",
    "\u202eabc",
    "\u200b",
    "e\u0301",
    "\u0301",
    "שלום",
    FAMILY,
    "\r\n",
    "\u2028",
    "\ufffd",
    "🇩🇪",
]


def test_lone_surrogates_are_replaced_and_pairs_joined() -> None:
    assert clean_text("plain") == ("plain", ())
    text, notes = clean_text("a\ud83db\udc00")
    assert text == "a\ufffdb\ufffd"
    assert notes == ("Half characters (lone surrogates) replaced by U+FFFD: 2.",)
    assert clean_text("\ud83d\ude00") == ("😀", ())


@pytest.mark.parametrize(
    ("value", "kind"), [(None, "None"), (b"x", "bytes"), (3, "int"), (["x"], "list"), (1.5, "float")]
)
def test_type_errors_name_argument_and_type(value: Any, kind: str) -> None:
    with pytest.raises(TypeError, match=f"text must be a string, got {kind}"):
        clean_text(value)


@pytest.mark.parametrize("value", [None, b"x", 3, {"a": 1}])
def test_texts_of_the_wrong_type(value: Any) -> None:
    with pytest.raises(TypeError, match="texts must be a string or a list of strings, got"):
        check_texts(value)


def test_the_item_at_fault_is_named() -> None:
    with pytest.raises(TypeError, match=r"texts\[2\] must be a string, got None"):
        check_texts(["a", "b", None])  # type: ignore[list-item]


@pytest.mark.parametrize("empty", ["", "   ", "\n\t ", [], ["", " "]])
def test_nothing_to_read(empty: Any) -> None:
    with pytest.raises(ValueError) as caught:
        check_texts(empty)
    assert str(caught.value) == "Type some text first (it has 0 tokens)."


def test_some_empty_texts_are_left_out_with_a_note() -> None:
    texts, notes = check_texts(["a", "", "b"])
    assert texts == ("a", "", "b")
    assert notes == ("1 of 3 texts left out: nothing in it.",)


def test_ten_megabytes_are_refused_at_once() -> None:
    started = time.monotonic()
    with pytest.raises(ValueError, match=f"the text limit is {MAX_TEXT_CHARS:,} characters"):
        check_texts("x" * 10_000_000)
    assert time.monotonic() - started < 0.5


@pytest.mark.parametrize(
    ("data", "label"),
    [
        (b" the", "·the"),
        (b"\n", "↵"),
        (b"\ta", "→a"),
        ("é".encode(), "é"),
        (b"\xf0\x9f", "<F0 9F>"),
        (b" \xf0\x9f", "·<F0 9F>"),
        (b"\x98\x80!", "<98 80>!"),
        ("\u202e".encode(), "<U+202E>"),
        ("\ufeff".encode(), "<U+FEFF>"),
        ("\u200b".encode(), "<U+200B>"),
        ("\u00a0".encode(), "<U+00A0>"),
        ("\ufe0f".encode(), "<U+FE0F>"),
        ("\u0301".encode(), "◌\u0301"),
        ("e\u0301".encode(), "e\u0301"),
        (b"\x00", "<U+0000>"),
        (b"\r", "<U+000D>"),
        ("\ufffd".encode(), "\ufffd"),
        ("😀".encode(), "😀"),
        (b"<b>", "<b>"),
        (b"", ""),
    ],
)
def test_labels(data: bytes, label: str) -> None:
    assert label_bytes(data) == label


@given(st.binary(max_size=12))
def test_no_label_hides_or_reorders(data: bytes) -> None:
    import unicodedata

    label = label_bytes(data)
    assert bool(label) == bool(data)
    hidden = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp", "Zs"}
    assert not [c for c in label.replace(" ", "") if unicodedata.category(c) in hidden]
    if "\ufffd".encode() not in data:
        assert "\ufffd" not in label


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(max_size=40).filter(bool))
@example(text="<|endoftext|>")
@example(text=" ".join(NASTY))
def test_joined_tokens_are_the_text(tiny_gpt2: Any, text: str) -> None:
    text, _ = clean_text(text)
    read, ids, spans = encode_text(tiny_gpt2.tokenizer, text)
    pieces = token_bytes(tiny_gpt2.tokenizer, ids.tolist())
    assert read == text
    assert b"".join(pieces) == text.encode("utf-8")
    assert len(token_labels(tiny_gpt2.tokenizer, ids.tolist())) == len(ids)
    for piece, (start, end) in zip(pieces, spans.tolist(), strict=True):
        assert piece in text[start:end].encode("utf-8")
    assert sorted({i for start, end in spans.tolist() for i in range(start, end)}) == list(range(len(text)))


def test_typed_special_token_stays_text_unless_asked_for(tiny_gpt2: Any) -> None:
    tokenizer = tiny_gpt2.tokenizer
    _, plain, _ = encode_text(tokenizer, "a<|endoftext|>b")
    _, special, spans = encode_text(tokenizer, "a<|endoftext|>b", special_tokens=True)
    assert 256 not in plain.tolist() and len(plain) == 15
    assert special.tolist()[1] == 256 and len(special) == 3
    assert spans.tolist() == [[0, 1], [1, 14], [14, 15]]
    _, again, _ = encode_text(tokenizer, "a<|endoftext|>b")
    assert again.tolist() == plain.tolist()


def test_two_readers_of_one_tokenizer_keep_their_own_choice(tiny_gpt2: Any) -> None:
    """F07, F34: the tokenizer itself remembers whether special tokens are read."""
    text, wrong = "<|endoftext|>" * 40, []

    def read(special: bool, length: int) -> None:
        for _ in range(300):
            if len(encode_text(tiny_gpt2.tokenizer, text, special_tokens=special)[1]) != length:
                wrong.append(special)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=read, args=case) for case in ((True, 40), (False, 520))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert wrong == []


def test_labels_of_special_and_unknown_ids(tiny_gpt2: Any) -> None:
    assert token_labels(tiny_gpt2.tokenizer, [256, 9999]) == ("<|endoftext|>", "<id 9999>")


def test_a_tokenizer_that_is_not_byte_level() -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {"▁the": 0, "▁cat": 1, "<0xF0>": 2, "sat": 3, "[UNK]": 4}
    backend = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]")
    assert token_labels(tokenizer, [0, 1, 2, 3]) == ("·the", "·cat", "<F0>", "sat")
