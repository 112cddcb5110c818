"""Training the bundled language model: resumable, seeded, exported in the hub's layout."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch._dynamo  # torch.optim imports it at its first use, and that changes warning filters

from sae_widget import pretrain
from sae_widget.pretrain import PretrainConfig, PretrainRun

CONFIG = PretrainConfig(
    n_layer=1, n_embd=24, n_head=2, n_positions=16, vocab_size=300, batch_size=3, tokens=16 * 3 * 9, warmup_steps=2
)
TEXT = "the cat sat on the mat; the dog sat on the log. " * 40
VALID = "the dog sat on the cat. " * 12


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A tiny corpus, and the global generator (it seeds the language model's start) put back."""
    monkeypatch.setattr(pretrain, "read_corpus", lambda folder: ([TEXT, TEXT.upper()], [VALID]))
    with torch.random.fork_rng():
        yield


def weights(run: PretrainRun) -> dict[str, torch.Tensor]:
    return {name: weight.clone() for name, weight in run.model.state_dict().items()}


def test_resume_is_identical(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = PretrainRun(CONFIG, tmp_path / "whole", tmp_path)
    assert whole.steps == 9
    whole.run()
    everything = pretrain.batches
    with monkeypatch.context() as patched:
        patched.setattr(pretrain, "batches", lambda *args: itertools.islice(everything(*args), 4))
        PretrainRun(CONFIG, tmp_path / "parts", tmp_path).run()
    resumed = PretrainRun(CONFIG, tmp_path / "parts", tmp_path)
    assert resumed.step == 4
    resumed.run()
    assert resumed.step == whole.step == 9
    for name, weight in weights(whole).items():
        assert torch.equal(weights(resumed)[name], weight), name
    assert not list(tmp_path.glob("*/checkpoint.tmp"))


def test_learns_and_exports(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    config = PretrainConfig(**(vars(CONFIG) | {"tokens": 16 * 3 * 60}))
    run = PretrainRun(config, tmp_path / "run", tmp_path)
    before = pretrain.held_out_loss(run.model, run.valid_ids, 16)
    run.run()
    report = run.export(tmp_path / "model")
    assert report["held_out_loss"] < before - 1
    assert report["ratio"] == pytest.approx(report["held_out_perplexity"] / report["trigram_perplexity"])
    assert report["tokens_read"] == 60 * 48 and report["held_out_tokens"] == len(run.valid_ids)
    stored = json.loads((tmp_path / "model" / "pretrain_report.json").read_text())
    assert stored["config"]["n_embd"] == 24
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    assert model.config.n_layer == 1 and next(model.parameters()).dtype == torch.float16
    assert tokenizer.decode(tokenizer("the cat.")["input_ids"]) == "the cat."


def test_batches_go_on_where_they_stopped() -> None:
    ids = np.arange(1000, dtype=np.int32)
    every = list(itertools.islice(pretrain.batches(ids, CONFIG, 7), 50))
    later = list(itertools.islice(pretrain.batches(ids, CONFIG, 7, first_step=30), 20))
    assert all(torch.equal(a, b) for a, b in zip(every[30:], later, strict=True))
    assert every[0].shape == (3, 16)
    assert (every[0][::2, 0] == 7).all() and every[0][1, 0] != 7
    assert (every[0][:, 2:] - every[0][:, 1:-1] == 1).all()


def test_learning_rate_rises_stays_and_falls() -> None:
    config = PretrainConfig(warmup_steps=10, decay_share=0.4)
    scale = [pretrain.learning_rate_scale(step, 100, config) for step in range(100)]
    assert scale[0] == 0.1 and scale[9:61] == [1.0] * 52
    assert scale[80] == 0.5 and 0 < scale[99] < 0.03


def test_held_out_loss_of_a_uniform_model_is_log_vocab() -> None:
    class Uniform(torch.nn.Module):
        def forward(self, ids: torch.Tensor) -> Any:
            return type("Out", (), {"logits": torch.zeros(*ids.shape, 50)})()

    assert pretrain.held_out_loss(Uniform(), np.arange(40) % 50, 16) == pytest.approx(np.log(50), rel=1e-5)


def test_read_corpus_holds_texts_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    with pytest.raises(ValueError, match=r"no \.txt files in"):
        pretrain.read_corpus(tmp_path)
    (tmp_path / "a.txt").write_text("one")
    with pytest.raises(ValueError, match="none of the held-out texts peter-pan"):
        pretrain.read_corpus(tmp_path)
    (tmp_path / "peter-pan.txt").write_text("two")
    train, valid = pretrain.read_corpus(tmp_path)
    assert valid == ["two"] and train[0] == "one" and len(train) == 2 and "lambda" in train[1]
