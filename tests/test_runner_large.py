"""A corpus that does not fit into memory: to the disk, or computed again; and what was left out, in words."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest

from sae_widget.runner.desk import Desk
from tests.running import QUICK, train


def test_a_corpus_too_large_for_the_memory_goes_to_the_disk(start, monkeypatch, sae_widget_home):
    state, runner = start(corpus_tokens=60_000)
    monkeypatch.setattr("sae_widget.runner.desk.free_memory", lambda: 32 * 8 * 30_000 + 1)
    said = []
    state.observe(lambda change: said.append(change["new"].message), names=["status"])
    train(runner)
    assert len(state.history) == 60 and not state.status.trouble
    assert any(words.startswith("Reading the corpus to the disk, as it does not fit into memory: ") for words in said)
    assert "The corpus does not fit into memory, so its activations are read from the disk." in " ".join(said)
    sae, desk = state.features.sae, runner.desk
    assert sae.metadata["training_tokens"] == desk.large.source.n_tokens
    assert 59_999 <= desk.large.source.n_tokens <= 60_000  # one less where only a start token had room
    assert desk.corpus.n_tokens <= 20_000 and state.features.stats is not None
    folder = desk.large.source.folder
    assert folder.parent == sae_widget_home / "activations" and any(folder.iterdir())
    train(runner)  # the same corpus is not written again
    assert desk.large.source.folder == folder
    state.corpus_tokens = 1000
    train(runner)
    assert desk.large is None and not folder.exists()


def test_a_corpus_that_fits_nowhere_is_computed_again(start, monkeypatch):
    state, runner = start(corpus_tokens=60_000)
    monkeypatch.setattr("sae_widget.runner.desk.free_memory", lambda: 32 * 8 * 30_000 + 1)
    monkeypatch.setattr("sae_widget.data.store.shutil.disk_usage", lambda _: SimpleNamespace(free=100))
    train(runner)
    assert len(state.history) == 60 and not state.status.trouble
    assert runner.desk.training_words().startswith("The corpus fits neither into memory nor on the disk")


def test_what_was_left_out_and_held_out_is_told(start):
    state, runner = start(settings=QUICK.changed(validation_share=0.2))
    train(runner)
    assert re.search(r"^Trained 60 steps\. [\d,]+ of 1,500 tokens left out: \d+ first pos", state.status.message)
    assert re.search(r" held out for validation\. Explained variance -?0\.\d{3} on [\d,]+ tok", state.status.message)


@pytest.fixture
def desk(tiny_gpt2, monkeypatch, sae_widget_home):
    monkeypatch.setattr("sae_widget.runner.desk.free_memory", lambda: 32 * 8 * 30_000 + 1)
    made = Desk()
    made.take_model(tiny_gpt2)
    made.read("some text here", 1, "resid_pre", prepend_bos=True)
    return made


def test_examples_need_no_disk(desk, sae_widget_home):
    list(desk.read_training_data("documentation", 60_000, ""))
    assert desk.large is not None and 5000 < desk.corpus.n_tokens <= 20_000
    assert desk.has_examples("documentation", 60_000, "")
    assert not (sae_widget_home / "activations").exists()


def test_a_writing_that_was_stopped_goes_on(desk, sae_widget_home):
    list(desk.read_training_data("documentation", 60_000, ""))
    writing = desk.write_training_data()
    next(writing)
    writing.close()
    assert len(list((sae_widget_home / "activations").iterdir())) == 1
    assert list(desk.write_training_data())[-1] >= 59_999
    assert list(desk.write_training_data()) == []
    assert desk.large.source.n_tokens >= 59_999


def test_what_ended_processes_left_is_removed(desk, sae_widget_home):
    left = sae_widget_home / "activations"
    for name in ("999999999-ab", "notes"):
        (left / name).mkdir(parents=True)
    list(desk.read_training_data("documentation", 60_000, ""))
    list(desk.write_training_data())
    assert sorted(path.name for path in left.iterdir())[1:] == ["notes"]
    assert [path.name for path in left.glob("*-*")] == [desk.large.source.folder.name]
