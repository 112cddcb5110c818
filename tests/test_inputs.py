"""sae_widget.inputs: what is refused before anything is loaded, and what help() tells."""

from __future__ import annotations

import inspect
import re
from dataclasses import fields

import pytest

from sae_widget import SuperpositionExplorer
from sae_widget.config import TrainConfig
from sae_widget.inputs import INPUTS, check, first_layer, known_here, signature, split, upper_middle
from sae_widget.state import ExplorerState


def test_inputs_and_settings_are_told_apart():
    given = {"layer": 2, "d_sae": 24, "model": None, "k": 3}
    assert split(given) == ({"layer": 2}, {"d_sae": 24, "k": 3})


def test_an_unknown_keyword_lists_each_known_one_once():
    with pytest.raises(TypeError, match="unknown setting 'zzzz'; known: ") as caught:
        split({"zzzz": 1})
    told = str(caught.value).partition("known: ")[2].split(", ")
    assert sorted(set(told)) == told
    assert {"text", "preset", "name", *INPUTS, "d_sae"} <= set(told)


@pytest.mark.parametrize(("model", "most"), [("bundled", 5), ("auto", 5), ("a directory", 2)])
def test_a_layer_that_a_model_on_this_machine_does_not_have_is_refused(model, most, tiny_gpt2_dir):
    model = str(tiny_gpt2_dir) if model == "a directory" else model
    check({"model": model, "layer": most}, None)
    with pytest.raises(ValueError, match=f"layer must be between 0 and {most}, got 99"):
        check({"model": model, "layer": 99}, None)
    check({"model": "gpt2-xl", "layer": 47}, None)  # only loading can tell


@pytest.mark.parametrize(
    ("inputs", "name", "error", "words"),
    [
        ({}, 5, TypeError, "name must be a string, got 5"),
        ({"model": ""}, None, ValueError, "model must be 'auto', 'bundled', a name on the hub or a directory, got ''"),
        ({"model": "  "}, None, ValueError, "a directory, got '  '"),
        ({"corpus": ""}, None, ValueError, "corpus must be 'documentation', a text file or a folder"),
        ({"corpus": "/nonexistent"}, None, ValueError, "there is no corpus '/nonexistent': give 'documentation'"),
        ({"corpus_tokens": -1}, None, ValueError, "corpus_tokens must be between 10 and 50,000,000, got -1"),
        ({"layer": -1, "model": "bundled"}, None, ValueError, "layer must be 0 or more, got -1"),
    ],
)
def test_what_cannot_be_is_refused_at_once(inputs, name, error, words):
    with pytest.raises(error, match=words):
        check(inputs, name)


def test_a_corpus_that_is_there_is_taken(tmp_path):
    with pytest.raises(ValueError, match=r"no \.txt files in"):
        check({"corpus": str(tmp_path)}, None)
    (tmp_path / "book.txt").write_text("Once upon a time.", encoding="utf-8")
    for corpus in ("documentation", "text", str(tmp_path), str(tmp_path / "book.txt")):
        check({"corpus": corpus}, "a name")


def test_the_first_layer_is_that_of_the_model(tiny_gpt2_dir):
    assert [upper_middle(n_layer) for n_layer in (1, 3, 6, 12)] == [0, 2, 4, 8]
    assert first_layer("bundled", upper_middle) == 4
    assert first_layer(str(tiny_gpt2_dir), upper_middle) == 2
    assert first_layer("gpt2-xl", upper_middle) == 0


def test_help_knows_every_keyword_and_its_default():
    told = inspect.signature(SuperpositionExplorer).parameters
    documented = re.findall(r"^        (\w+): ", inspect.getdoc(SuperpositionExplorer).partition("Args:")[2], re.M)
    documented += re.findall(r"^    (\w+): ", inspect.getdoc(SuperpositionExplorer).partition("Args:")[2], re.M)
    settings = [field.name for field in fields(TrainConfig)]
    wanted = {*documented, *settings, *INPUTS} - {"settings", "TypeError", "ValueError"}
    assert {"text", "model", "layer", "preset", "name"} <= set(documented)
    assert set(told) == wanted
    assert all(told[name].default == getattr(TrainConfig(), name) for name in settings)
    state = ExplorerState()
    assert all(told[name].default == getattr(state, name) for name in INPUTS if name != "layer")
    assert [name for name, p in told.items() if p.kind is p.POSITIONAL_OR_KEYWORD] == ["text"]
    assert told["layer"].default is None
    split({name: p.default for name, p in signature().parameters.items()})  # and each of them is taken


def test_a_saved_corpus_that_is_gone_gives_way_to_the_default(tmp_path):
    book = tmp_path / "book.txt"
    book.write_text("once upon a time")
    for kept in ("documentation", "text", str(book)):
        assert known_here({"corpus": kept, "layer": 2}) == {"corpus": kept, "layer": 2}
    book.unlink()
    assert known_here({"corpus": str(book), "layer": 2}) == {"layer": 2}
