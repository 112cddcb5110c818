"""Training the SAEs that ship: every place once, read from all over the texts, saved where they are looked for."""

import json

import pytest

from sae_widget import bundle, bundled
from sae_widget.activations.base import layer_name
from sae_widget.bundled import bundled_sae, sae_folder


def test_every_place_of_the_residual_stream_once(tiny_gpt2):
    names = [layer_name(layer, hook, 3) for layer, hook in bundle.sites(tiny_gpt2)]
    assert names == ["embeddings", "after block 1", "after block 2", "after block 3"]


def test_two_names_of_one_place_share_a_folder():
    assert sae_folder(2, "resid_pre", 6) == sae_folder(1, "resid_post", 6)
    assert sae_folder(5, "resid_post", 6).name == "after-block-6"


@pytest.mark.parametrize("hook_name", ["attn_out", "mlp_out", "resid_mid", "final_norm"])
def test_other_places_have_none(hook_name):
    assert bundled_sae(3, hook_name, 6) is None


def test_training_writes_what_the_explorer_reads(tiny_gpt2, tmp_path, monkeypatch):
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for name in ("a-book", "peter-pan", "a-christmas-carol"):
        (corpus / f"{name}.txt").write_text("Once upon a time there was a text about times. " * 30)
    monkeypatch.setattr(bundle, "load_model", lambda _name: tiny_gpt2)
    monkeypatch.setattr(bundled, "FOLDER", tmp_path / "bundled" / "saes")
    model = {
        "config": {"n_layer": 3, "n_embd": 32, "n_head": 4, "n_positions": 64, "vocab_size": 257, "tokens": 10},
        "parameters": 12_345,
        "train_tokens": 100,
        "tokens_read": 250,
        "held_out_tokens": 50,
        "held_out_loss": 3.5,
        "held_out_perplexity": 33.1,
        "trigram_perplexity": 66.2,
        "ratio": 0.5,
    }
    (tmp_path / "bundled" / "model").mkdir(parents=True)
    (tmp_path / "bundled" / "model" / "pretrain_report.json").write_text(json.dumps(model))
    small = ["--tokens", "800", "--d-sae", "40", "--k", "4", "--steps", "30"]
    report = tmp_path / "report.json"
    assert bundle.main(["--corpus", str(corpus), "--report", str(report), *small]) == 0
    rows = json.loads(report.read_text())["saes"]
    assert [row["place"] for row in rows] == ["embeddings", "after block 1", "after block 2", "after block 3"]
    assert all(row["l0"] <= 4 and row["explained_variance"] <= 1 for row in rows)
    sae, stats = bundled_sae(1, "resid_pre", 3)
    assert (sae.d_sae, sae.k) == (40, 4)
    assert stats.frequency.shape == (40,)
    assert stats.frequency.sum() == pytest.approx(stats.l0, rel=1e-3)
    card = (tmp_path / "bundled" / "README.md").read_text()
    assert "12,345" in card
    assert "perplexity **33.1**" in card
    assert "| after block 3 |" in card
