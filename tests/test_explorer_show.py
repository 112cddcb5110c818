"""``SuperpositionExplorer.show``: any SAE on the text (F57).

It is read by ``sae_widget.runner.opened`` and put on show by ``sae_widget.runner.opening``.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from sae_widget import SuperpositionExplorer, feature_stats, get_activations, load_sae, prompt_features, top_contexts
from sae_widget.autosave import saved_runs
from sae_widget.checkpoint import SaeFileError
from sae_widget.config import TrainConfig
from sae_widget.runner import desk
from sae_widget.runner.opened import opened_from
from sae_widget.runs import read_explorer
from sae_widget.sae import SAE, JumpReLUSAE, StandardSAE
from tests.published import D_IN, D_SAE, published, tensors
from tests.running import until, weights

TEXT = "It was the best of times."


@pytest.fixture
def explorer(tiny_gpt2_dir: Path, sae_widget_home: Path) -> Iterator[SuperpositionExplorer]:
    settings = {"d_sae": 24, "k": 4, "steps": 30, "batch_size": 64, "corpus_tokens": 600}
    made = SuperpositionExplorer(TEXT, model=str(tiny_gpt2_dir), layer=1, **settings)
    assert made.wait(60)
    yield made
    made.close()


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """An SAE of another model with activations of the same width."""
    return published(tmp_path / "elsewhere", model_name="gpt2-small", hook_name="blocks.8.hook_resid_pre")


def show(explorer: SuperpositionExplorer, sae: Any, **options: Any) -> None:
    explorer.show(sae, **options)
    assert explorer.wait(60)


def press(explorer: SuperpositionExplorer, name: str) -> None:
    """Press one of the buttons beside the status, if it is there."""
    (line,) = [view for view in explorer._views if view.name == "status"]
    assert line.buttons[name].layout.display == ""
    line.buttons[name].click()
    assert explorer.wait(60)


# -- a published SAE ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("start_token", [True, False])
def test_a_published_sae_is_shown_where_it_says_that_it_reads(explorer, tiny_gpt2, tmp_path, start_token):
    name = explorer.language_model.name
    folder = published(
        tmp_path / "their-sae", model_name=name, hook_name="blocks.2.hook_resid_post", prepend_bos=start_token
    )
    show(explorer, folder)
    state = explorer.state
    assert (state.layer, state.hook_name, state.prepend_bos) == (2, "resid_post", start_token)
    assert explorer.status == (
        "Showing the SAE of their-sae, after block 3: 40 features. Click one, or press Train to make your own."
    )
    assert not state.status.trouble and state.offers == () and state.faults == {}
    assert torch.equal(explorer.sae.W_enc, tensors()["W_enc"])
    read = get_activations(tiny_gpt2, TEXT, 2, "resid_post", prepend_bos=start_token)
    assert torch.equal(explorer.activations.values, read.values)
    wanted = prompt_features(explorer.sae, read)
    assert np.array_equal(explorer.features.prompt.mean, wanted.mean) and wanted.mean.max() > 0


def test_its_statistics_and_examples_are_taken_where_it_reads(explorer, tmp_path):
    show(explorer, published(tmp_path / "sae", hook_name="blocks.2.hook_mlp_out", prepend_bos=False))
    corpus = explorer._runner.desk.corpus
    assert (corpus.layer, corpus.hook_name, corpus.n_tokens) == (2, "mlp_out", 600)
    assert not (corpus.token_ids == 256).any()  # no start token
    wanted = feature_stats(explorer.sae, corpus.values, corpus.position)
    found = explorer.features.stats
    assert np.array_equal(found.frequency, wanted.frequency) and np.array_equal(found.max, wanted.max)
    assert found.explained_variance == wanted.explained_variance and found.n_tokens == wanted.n_tokens
    feature = int(wanted.frequency.argmax())
    explorer.selected_feature = feature
    assert explorer.wait(30)
    assert explorer.state.card.contexts == top_contexts(explorer.sae, corpus, feature) != ()


def test_a_folder_of_sparsify_is_shown(explorer, tmp_path):
    parts, folder = tensors(), tmp_path / "layers.0"
    folder.mkdir()
    encoder = {"encoder.weight": parts["W_enc"].t().contiguous(), "encoder.bias": parts["b_enc"]}
    save_file(encoder | {name: parts[name] for name in ("W_dec", "b_dec")}, folder / "sae.safetensors")
    (folder / "cfg.json").write_text(json.dumps({"d_in": D_IN, "num_latents": D_SAE, "k": 3}))
    show(explorer, folder)
    assert (explorer.state.layer, explorer.state.hook_name) == (0, "resid_post")
    assert explorer.status.startswith("Showing the SAE of layers.0, after block 1: 40 features.")
    assert explorer.features.stats.l0 <= 3


def test_an_sae_from_python_is_shown_with_the_names_of_its_features(explorer):
    sae = StandardSAE(**tensors(), metadata={"layer": 0, "hook_name": "attn_out"})
    show(explorer, sae)
    assert explorer.sae is sae and explorer.activations.hook_name == "attn_out"
    assert explorer.status.startswith("Showing the SAE from Python, attention output of block 1: 40 features.")
    explorer.name_feature(7, "times")
    release = {"release": "a-release", "sae_id": "blocks.1.hook_resid_pre"}
    show(explorer, StandardSAE(**tensors(seed=4), metadata=release))
    assert explorer.status.startswith("Showing the SAE a-release blocks.1.hook_resid_pre, attention output of block 1:")
    assert explorer.state.feature_names == {}
    show(explorer, replace(sae, metadata={}))  # loaded once more, it is the same SAE
    assert explorer.state.feature_names == {7: "times"}


def test_what_is_no_sae_is_refused_at_once(explorer, tmp_path):
    parts = tensors()
    holed = parts | {"W_dec": parts["W_dec"].clone().index_fill_(1, torch.tensor([3]), float("nan"))}
    half = StandardSAE(**{name: tensor.half() for name, tensor in parts.items()})
    infinite = JumpReLUSAE(**parts, threshold=torch.full((D_SAE,), float("inf")))
    before = explorer.state.status
    for given, error, words in (
        (3, TypeError, "sae must be an SAE or the folder of one, got int"),
        (None, TypeError, "got NoneType"),
        (StandardSAE(**holed), ValueError, "W_dec has values that are not finite"),
        (infinite, ValueError, "threshold has values that are not finite"),
        (half, TypeError, "W_enc must be torch.float32 on the CPU, got torch.float16 on cpu"),
        (tmp_path / "none", SaeFileError, "none: there is no such folder"),
        ("a\0b", SaeFileError, "there is no such folder"),
        (tmp_path, SaeFileError, "No SAE could be read from"),
    ):
        with pytest.raises(error, match=words):
            explorer.show(given)
    assert explorer.wait(30) and explorer.state.status is before


def test_what_was_saved_by_an_explorer_comes_with_its_names_and_statistics(explorer, tmp_path):
    explorer.train(blocking=True)
    explorer.name_feature(3, "vowels")
    explorer.save(tmp_path / "run")
    frequency = explorer.features.stats.frequency
    show(explorer, StandardSAE(**tensors()))
    show(explorer, tmp_path / "run")
    assert explorer.status.startswith("Showing the SAE of run, after block 1: 24 features.")
    assert explorer.state.feature_names == {3: "vowels"}
    assert np.array_equal(explorer.features.stats.frequency, frequency)


def test_a_text_that_cannot_be_read_there_is_said(explorer, tmp_path):
    explorer.read("")
    assert explorer.wait(30)
    show(explorer, published(tmp_path / "sae", hook_name="blocks.2.hook_resid_pre"))
    assert explorer.status == ("Type some text first (it has 0 tokens). The last text stays. The SAE was not loaded.")
    assert explorer.features is None and explorer.state.status.trouble


def test_positions_that_it_does_not_know_are_said(explorer, tmp_path):
    show(explorer, published(tmp_path / "sae", context_size=8, seqpos_slice=[2, None]))
    note = "It was trained on positions 2 to 7 of a window; this text has others."
    assert explorer.status.endswith(f"make your own. {note}")
    explorer.state.prepend_bos = True
    explorer.read("abcdefg")
    assert explorer.wait(30)
    assert explorer.status.endswith(note)  # position 1


def test_a_start_token_that_the_model_does_not_have_is_said(explorer):
    explorer.state.prepend_bos = False
    assert explorer.wait(30)
    worker = explorer._runner.desk
    worker.model = replace(worker.model, bos_id=None)
    show(explorer, StandardSAE(**tensors(), metadata={"layer": 0, "prepend_bos": True}))
    assert explorer.sae.d_sae == D_SAE and explorer.state.prepend_bos is False
    assert explorer.status.endswith("make your own. It was trained with a start token in front.")


def test_without_a_corpus_there_are_no_statistics_and_a_sentence(explorer, tmp_path):
    explorer.state.corpus = str(tmp_path / "gone")
    show(explorer, StandardSAE(**tensors()))
    assert explorer.features.stats is None and explorer.features.prompt.mean.max() > 0
    assert explorer.status.startswith("Showing the SAE from Python")
    assert explorer.state.faults["health"].startswith("There are no statistics of this SAE: ")
    explorer.state.corpus = "documentation"
    show(explorer, StandardSAE(**tensors()))
    assert explorer.features.stats.n_tokens > 500 and explorer.state.faults == {}


def test_a_person_does_not_wait_until_they_are_counted(explorer, monkeypatch):
    counted = []

    def slow(counting):
        while len(counted) < 100:
            counted.append(time.monotonic())
            time.sleep(0.05)
            yield 1
        yield from pieces(counting)

    pieces = desk.Counting.pieces
    monkeypatch.setattr(desk.Counting, "pieces", slow)
    explorer.show(StandardSAE(**tensors()))
    until(lambda: explorer.status.endswith("Counting what its features do."))
    until(lambda: explorer.features is not None and explorer.features.prompt is not None)  # before they are counted
    explorer.read("Another text.")
    until(lambda: explorer.activations.texts == ("Another text.",))
    assert len(counted) < 50 and explorer.features.stats is None
    assert explorer.wait(60)
    assert len(counted) == 100 and explorer.features.stats.n_tokens > 500
    assert explorer.features.prompt.activations.texts == ("Another text.",)
    assert "Counting" not in explorer.status


def test_a_fault_while_its_features_are_counted_is_a_sentence(explorer, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(desk, "Counting", lambda *_args, **_named: 1 / 0)
        show(explorer, StandardSAE(**tensors()))
        assert explorer.status.startswith("ZeroDivisionError: ") and explorer.state.status.phase == "failed"
        assert explorer.features.stats is None and explorer.features.prompt is not None
    explorer.read("Another text.")
    assert explorer.wait(30)
    assert explorer.features.stats.n_tokens > 500 and explorer.state.status.phase == "ready"


# -- an SAE of something else ---------------------------------------------------------------------------------------


def test_an_sae_of_another_model_waits_for_a_word(explorer, elsewhere):
    show(explorer, elsewhere)
    name = explorer.language_model.name
    assert explorer.status == (
        f"This SAE was trained on gpt2 resid_pre 8, the explorer reads {name} resid_pre 1. What is shown is kept; "
        "Load anyway (in Python: anyway=True) shows it, but its features may mean nothing here."
    )
    assert explorer.state.status.trouble and explorer.state.offers == ("load_anyway", "keep")
    assert explorer.features is None and explorer.state.layer == 1
    press(explorer, "load_anyway")
    assert explorer.sae.d_sae == D_SAE and explorer.features.prompt.mean.max() > 0
    assert explorer.status.startswith(
        "Showing the SAE of elsewhere, after block 1, though trained on gpt2 resid_pre 8: 40 features."
    )
    assert explorer.state.offers == () and not explorer.state.status.trouble
    assert (explorer.state.layer, explorer.state.hook_name) == (1, "resid_pre")
    assert explorer.features.stats.n_tokens > 500


def test_what_is_here_can_be_kept(explorer, elsewhere):
    explorer.train(blocking=True)
    mine = explorer.sae
    show(explorer, elsewhere)
    assert explorer.sae is mine and explorer.state.offers == ("load_anyway", "keep")
    press(explorer, "keep")
    assert explorer.sae is mine and explorer.state.offers == ()
    assert explorer.status.startswith("The other SAE was not loaded. Showing your SAE, after block 1, step 30")
    explorer.state.command = {"do": "load_anyway", "n": 99}  # too late
    assert explorer.wait(30)
    assert explorer.sae is mine and explorer.status == "No SAE is waiting to be loaded."


@pytest.mark.parametrize("what", ["read", "train", "model"])
def test_what_a_person_does_instead_ends_the_waiting(explorer, elsewhere, what):
    show(explorer, elsewhere)
    if what == "read":
        explorer.read("Another text.")
    elif what == "train":
        explorer.train()
    else:
        explorer.state.model = "bundled"
    assert explorer.wait(60)
    assert not {"load_anyway", "keep"} & set(explorer.state.offers)
    shown = explorer.features
    explorer.state.command = {"do": "load_anyway", "n": 99}
    assert explorer.wait(30)
    assert explorer.features is shown and explorer.status == "No SAE is waiting to be loaded."


def test_python_says_it_in_a_word(explorer, elsewhere):
    show(explorer, elsewhere, anyway=True)
    assert explorer.sae.d_sae == D_SAE and explorer.state.offers == ()
    assert "though trained on gpt2 resid_pre 8" in explorer.status
    with pytest.raises(TypeError):
        explorer.show(elsewhere, True)  # a bare True says nothing


@pytest.mark.parametrize("told", [{"hook_name": "blocks.9.hook_resid_pre"}, {"hook_name": "blocks.1.hook_mlp_in"}])
def test_a_place_that_is_not_there_waits_for_a_word_too(explorer, tmp_path, told):
    show(explorer, published(tmp_path / "sae", model_name=explorer.language_model.name, **told))
    assert explorer.state.offers == ("load_anyway", "keep") and explorer.state.layer == 1
    press(explorer, "load_anyway")
    assert explorer.sae.d_sae == D_SAE and explorer.activations.layer == 1


@pytest.mark.parametrize("anyway", [False, True])
def test_another_width_can_never_be_shown(explorer, tmp_path, anyway):
    folder = published(tmp_path / "wide", 50, model_name="gpt2", hook_name="blocks.8.hook_resid_pre")
    show(explorer, folder, anyway=anyway)
    assert explorer.status == (
        f"The SAE of wide reads 50 dimensions of gpt2 resid_pre 8, {explorer.language_model.label} has 32: "
        "it cannot be shown there. What is shown is kept; choose its model first, then show it."
    )
    assert explorer.state.status.trouble and explorer.state.offers == () and explorer.features is None


def test_what_was_shown_anyway_is_saved_where_it_was_shown(explorer, elsewhere, tmp_path):
    show(explorer, elsewhere, anyway=True)
    explorer.save(tmp_path / "run")
    saved = read_explorer(tmp_path / "run")
    assert (saved.model, saved.layer, saved.hook_name) == (explorer.language_model.name, 1, "resid_pre")
    for anyway, offers in ((False, ("load_anyway", "keep")), (True, ())):
        again = SuperpositionExplorer.load(tmp_path / "run", anyway=anyway)
        try:
            assert again.wait(60)
            assert again.state.offers == offers and (again.sae is not None) == anyway
            assert again.language_model is explorer.language_model
        finally:
            again.close()


# -- trained SAEs around it -----------------------------------------------------------------------------------------


def test_what_was_trained_is_not_lost(explorer):
    explorer.train(blocking=True)
    mine = weights(explorer.sae)
    show(explorer, StandardSAE(**tensors()))
    assert explorer.sae.d_sae == D_SAE and explorer.state.offers == ("restore",)
    assert len(saved_runs()) == 1
    press(explorer, "restore")
    assert torch.allclose(weights(explorer.sae), mine, atol=1e-5) and explorer.state.offers == ()
    explorer.resume()  # and its training goes on, as it is the trainer's
    assert explorer.wait(60)
    assert explorer.status.startswith("Trained 60 steps.")


def test_while_it_trains_nothing_else_is_shown(explorer):
    explorer.set(steps=1_000_000)
    explorer.train()
    until(lambda: explorer.state.status.step > 5)
    with pytest.raises(RuntimeError, match="this explorer is training: stop it first"):
        explorer.show(StandardSAE(**tensors()))
    explorer._runner.open(opened_from(StandardSAE(**tensors())))  # asked for before the training had begun
    until(lambda: "stop it first" in explorer.status)
    explorer.stop()
    assert explorer.wait(30)
    assert explorer.sae.d_sae == 24


def test_continue_trains_it_further_and_reset_takes_it_back(explorer):
    start = StandardSAE(**tensors(), apply_b_dec_to_input=False)
    show(explorer, start)
    (form,) = [view for view in explorer._views if view.name == "controls"]
    assert form.training.pause.description == "Continue" and not form.training.pause.disabled
    explorer.set(learning_rate=1e-4, steps=20)
    explorer.resume()
    assert explorer.wait(60)
    assert explorer.status.startswith("Trained 20 steps.") and len(explorer.history) == 20
    settings = explorer.settings
    assert (settings.architecture, settings.d_sae, settings.center) == ("standard", D_SAE, False)
    assert (settings.learning_rate, settings.steps) == (1e-4, 20)
    assert explorer.features.source == "your SAE, after block 1, step 20"
    norms = start.W_dec.norm(dim=1)[:, None]  # the trainer keeps the rows at norm 1
    moved = (explorer.sae.W_dec - start.W_dec / norms).abs().max()
    assert 1e-5 < float(moved) < 0.01
    explorer.reset()
    assert explorer.wait(30)
    assert explorer.sae is start and explorer.state.history is None


def test_names_stay_with_features_that_are_trained_further(explorer):
    show(explorer, StandardSAE(**tensors(), apply_b_dec_to_input=False))
    explorer.name_feature(7, "times")
    explorer.set(steps=20)
    explorer.resume()
    assert explorer.wait(60)
    assert explorer.features.source == "your SAE, after block 1, step 20"
    assert explorer.state.feature_names == {7: "times"}


def test_continue_says_why_it_cannot(explorer):
    show(explorer, StandardSAE(**tensors(), normalize_activations="layer_norm"))
    explorer.resume()
    assert explorer.wait(30)
    assert explorer.status.startswith("The SAE to start from normalises each token (layer_norm), and the trainer does")
    assert explorer.state.status.trouble and explorer.state.status.phase == "ready"
    assert explorer.settings == TrainConfig(d_sae=24, k=4, steps=30, batch_size=64)


# -- an explorer for an SAE alone -----------------------------------------------------------------------------------


def test_load_takes_an_sae_alone_and_its_model_when_that_is_here(explorer, tmp_path):
    folder = published(tmp_path / "sae", model_name=explorer.language_model.name, hook_name="blocks.0.hook_mlp_out")
    made = SuperpositionExplorer.load(folder)
    try:
        assert made.wait(60)
        assert made.language_model is explorer.language_model
        assert (made.state.layer, made.state.hook_name) == (0, "mlp_out")
        assert torch.equal(made.sae.W_enc, load_sae(folder).W_enc)
    finally:
        made.close()


def test_load_downloads_nothing_for_an_sae_alone(sae_widget_home, tmp_path):
    folder = published(tmp_path / "sae", 192, model_name="gpt2-small", hook_name="blocks.8.hook_resid_pre")
    made = SuperpositionExplorer.load(folder)
    try:
        assert made.wait(60)
        assert made.language_model.name == "bundled" and made.state.offers == ("load_anyway", "keep")
        assert made.features.source.startswith("the bundled SAE")
        shown: SAE = made.sae
        press(made, "load_anyway")
        assert made.sae is not shown and made.sae.d_sae == D_SAE
    finally:
        made.close()
