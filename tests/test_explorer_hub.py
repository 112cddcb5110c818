"""The explorer on GPT-2 itself: from a directory in the hub's layout, and with every kind of broken network (F45)."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch

from sae_widget import SuperpositionExplorer
from tests.fake_hub import BROKEN, broken_network
from tests.test_extract import REAL_TOKENIZER

TEXT = "It was the best of times, it was the worst of times."


def until(condition, seconds):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


@pytest.fixture
def online(monkeypatch, tmp_path, sae_widget_home):
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_TOKEN", "HF_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("NO_PROXY", "*")


@pytest.fixture(scope="module")
def warm():
    """The bundled model was read once: what a kernel pays for its first model is no part of these times."""
    explorer = SuperpositionExplorer(TEXT, model="bundled")
    assert explorer.wait(120)
    explorer.close()


@pytest.mark.parametrize("kind", list(BROKEN))
def test_without_a_hub_the_bundled_model_is_shown_and_the_reason_said(kind, online, warm, monkeypatch):
    with broken_network(kind) as url:
        monkeypatch.setenv("HF_ENDPOINT", url)
        began = time.monotonic()
        explorer = SuperpositionExplorer(TEXT, model="gpt2")
        try:
            until(lambda: "Cannot reach" in explorer.status, 30)
            assert time.monotonic() - began < 6.0  # five seconds, and one for a busy machine
            assert explorer.wait(30)
            assert explorer.language_model.name == "bundled"
            assert explorer.state.status.trouble
            assert "retry" in explorer.state.offers
            assert explorer.features is not None
        finally:
            explorer.close()


@pytest.mark.parametrize("kind", ["silent", "dropped", "trickle"])
def test_cancel_answers_at_once(kind, online, warm, monkeypatch):
    with broken_network(kind) as url:
        monkeypatch.setenv("HF_ENDPOINT", url)
        explorer = SuperpositionExplorer(TEXT, model="gpt2")
        try:
            until(lambda: "cancel" in explorer.state.offers, 20)
            asked = time.monotonic()
            explorer.state.command = {"do": "cancel", "n": 1}
            until(lambda: "cancelled" in explorer.status, 20)
            assert time.monotonic() - asked < 2.0  # one second, and one for a busy machine
            assert not explorer.state.status.trouble
            assert explorer.language_model.name == "bundled"
        finally:
            explorer.close()


@pytest.fixture(scope="module")
def gpt2_directory(tmp_path_factory, tiny_gpt2_dir) -> Path:
    """GPT-2 in the hub's layout: its real width and vocabulary, random weights, three blocks to be quick."""
    from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel, GPT2TokenizerFast

    folder = tmp_path_factory.mktemp("gpt2")
    if REAL_TOKENIZER.is_dir():
        files = {"vocab": str(REAL_TOKENIZER / "vocab.json"), "merges": str(REAL_TOKENIZER / "merges.txt")}
        tokenizer = GPT2TokenizerFast(**files)
    else:
        tokenizer = AutoTokenizer.from_pretrained(tiny_gpt2_dir)
    tokenizer.save_pretrained(folder)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = GPT2LMHeadModel(GPT2Config(n_layer=3, vocab_size=len(tokenizer)))
    model.eval().save_pretrained(folder)
    return folder


def test_gpt2_is_read_trained_on_and_explored(gpt2_directory, sae_widget_home):
    explorer = SuperpositionExplorer(
        TEXT, model=str(gpt2_directory), layer=2, d_sae=1536, k=16, steps=20, batch_size=128, corpus_tokens=400
    )
    try:
        explorer.train(blocking=True)
        assert explorer.language_model.d_in == 768
        assert explorer.sae.W_dec.shape == (1536, 768)
        assert "".join(explorer.activations.labels[1:]).replace("·", " ") == TEXT
        if REAL_TOKENIZER.is_dir():
            assert explorer.activations.n_tokens == 15  # the start token and the tutorial's fourteen
            assert explorer.language_model.vocab_size == 50_257
        feature = int(explorer.features.prompt.strongest[3])
        explorer.selected_feature = feature
        assert explorer.wait(60)
        assert explorer.state.card.feature == feature
        assert explorer.features.prompt.of_feature(feature)[3] > 0
    finally:
        explorer.close()
