"""sae_widget.cli.reading: what is read, by which numbers it is known again, and what an explorer opens with."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
import torch._dynamo  # transformers imports it at a model's first run, and that changes the environment

from sae_widget.activations.base import ModelLoadError
from sae_widget.cli.base import Refused, StopFlag
from sae_widget.cli.reading import MEASURED, Data, absolute, load, read, what_to_show
from sae_widget.config import MAX_TEXT_CHARS, START, TrainConfig
from sae_widget.data import ModelActivations, ShardedActivations, open_corpus
from sae_widget.training.mesh import ALONE
from tests.hand_made import activations
from tests.training_runs import small_data

TEXTS = [f"text number {i} and some more words" for i in range(30)]


def arguments(**changes: Any) -> argparse.Namespace:
    given = {"text": TEXTS, "corpus": START.corpus, "store": None, "tokens": 300}
    return argparse.Namespace(**given | {"hook_name": "resid_pre", "prepend_bos": True} | changes)


def in_memory(n: int = 100, **changes: Any) -> Data:
    values, position = small_data(n)
    made = {"values": values, "position": position, "token_ids": torch.arange(n)}
    return Data(dataclasses.replace(activations(), **made | changes))


@pytest.mark.parametrize("corpus", ["documentation", "datasets:owner/name:config:split:column"])
def test_a_corpus_that_is_no_file_keeps_its_name(corpus: str) -> None:
    assert absolute(corpus) == corpus


def test_a_corpus_of_files_is_found_from_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    assert absolute("book.txt") == absolute(str(tmp_path / "book.txt")) == str(tmp_path / "book.txt")
    assert absolute("~/book.txt") == str(tmp_path / "home" / "book.txt")
    assert absolute("documentation.txt") == str(tmp_path / "documentation.txt")


def test_a_corpus_whose_name_no_file_can_hold_is_refused() -> None:
    with pytest.raises(Refused, match=r"^The name of the corpus is no UTF-8: 'a\\udcff\.txt'\. Nothing was read"):
        absolute("a\udcff.txt")


def test_activations_in_memory_are_measured_whole() -> None:
    data = in_memory()
    values, position = data.sample(7)
    assert torch.equal(values, small_data()[0][:7]) and position.tolist() == list(range(7))
    assert len(data.sample(1000)[0]) == data.most_measured == data.n_tokens == 100
    assert data.for_trainer == (data.given.values, data.given.position)


def test_the_same_is_known_again_and_another_is_not() -> None:
    values, position = small_data()
    known = in_memory().known_by()
    assert in_memory(values=values.T.contiguous().T).known_by() == known  # laid out otherwise
    shifted = values.clone()
    shifted[93, 5] += 1e-3
    other = in_memory(values=shifted).known_by()
    assert other["texts"] == known["texts"] and other["values"] != known["values"]
    for change in ({"token_ids": torch.arange(100).flip(0)}, {"position": position.roll(1)}):
        other = in_memory(**change).known_by()
        assert other["texts"] != known["texts"] and other["values"] == known["values"]
    assert in_memory(99).known_by()["texts"] != known["texts"]


def test_a_corpus_in_blocks_is_measured_on_its_first_tokens(tiny_gpt2: Any) -> None:
    place = {"layer": 1, "hook_name": "resid_pre", "prepend_bos": False}
    source = open_corpus(tiny_gpt2, TEXTS, max_tokens=200, **place)
    data = Data(source)
    assert isinstance(source, ModelActivations) and data.for_trainer == (source, None)
    assert (data.n_tokens, data.most_measured) == (200, MEASURED)
    assert [tuple(part.shape) for part in data.sample(70)] == [(70, 32), (70,)]
    assert Data(open_corpus(tiny_gpt2, TEXTS, max_tokens=200, **place)).known_by() == data.known_by()
    other = Data(open_corpus(tiny_gpt2, TEXTS, max_tokens=200, **place | {"layer": 2})).known_by()
    assert other["texts"] == data.known_by()["texts"] and other["values"] != data.known_by()["values"]


def test_texts_are_read_to_the_number_of_tokens(tiny_gpt2: Any, capsys: pytest.CaptureFixture[str]) -> None:
    data = read(tiny_gpt2, arguments(), 1, StopFlag(), ALONE)
    assert data is not None and data.in_memory and data.n_tokens == 300
    assert "Reading stopped after" in capsys.readouterr().err
    rest = read(tiny_gpt2, arguments(text=["abc", " \n", "de"], prepend_bos=False), 1, StopFlag(), ALONE)
    assert rest is not None and rest.n_tokens == 5


def test_a_stop_while_reading_gives_nothing_and_a_store_goes_on(tiny_gpt2: Any, tmp_path: Path) -> None:
    flag, stored = StopFlag(), arguments(store=str(tmp_path / "store"))
    flag.stopped = True
    assert read(tiny_gpt2, arguments(), 1, flag, ALONE) is None
    assert read(tiny_gpt2, stored, 1, flag, ALONE) is None
    flag.stopped = False
    data = read(tiny_gpt2, stored, 1, flag, ALONE)
    assert data is not None and not data.in_memory and isinstance(data.given, ShardedActivations)
    assert data.n_tokens == 300 and data.given.metadata["layer"] == 1


@pytest.mark.parametrize(("tokens", "shown"), [(1, 10), (10, 10), (10**8, 50_000_000)])
def test_an_explorer_opens_with_a_corpus_that_it_can_read(tokens: int, shown: int, tmp_path: Path) -> None:
    book = tmp_path / "book.txt"
    saved = what_to_show(arguments(text=None, corpus=str(book), tokens=tokens), TrainConfig(k=3), "mine", 4)
    assert (saved.model, saved.layer, saved.corpus, saved.corpus_tokens) == ("mine", 4, str(book), shown)
    assert (saved.text, saved.settings["k"]) == (START.text, 3)


def test_an_explorer_opens_with_the_texts_that_were_trained_on() -> None:
    saved = what_to_show(arguments(text=["a \ud83d\ude00", "b\ud800"]), TrainConfig(), "mine", 4)
    assert (saved.text, saved.corpus) == ("a 😀\nb\ufffd", "text")  # as they were read
    long = what_to_show(arguments(text=["x" * MAX_TEXT_CHARS, "y"]), TrainConfig(), "mine", 4)
    assert long.text == "x" * MAX_TEXT_CHARS
    with pytest.raises(ValueError, match="Type some text first"):
        what_to_show(arguments(text=[" ", ""]), TrainConfig(), "mine", 4)


def test_a_model_is_loaded_by_its_name(tiny_gpt2: Any, tiny_gpt2_dir: Path, tmp_path: Path) -> None:
    assert load(str(tiny_gpt2_dir)).network is tiny_gpt2.network
    with pytest.raises(ModelLoadError, match="is not a model directory"):
        load(str(tmp_path))
