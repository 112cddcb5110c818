"""The explorer as a person uses it from code; a page is not needed (F10, F12, F36, F38, T6)."""

import gc
import json
import threading
import time
import weakref

import numpy as np
import pytest
import torch
from ipywidgets.widgets import widget as widget_module

from sae_widget import SuperpositionExplorer, cells
from sae_widget.checkpoint import SaeFileError
from sae_widget.config import TrainConfig
from sae_widget.runs import describe, read_explorer, write_explorer
from sae_widget.views.presets import PRESETS
from tests.hand_made import features
from tests.running import until

QUICK = {"architecture": "topk", "d_sae": 24, "k": 4, "steps": 40, "batch_size": 64, "corpus_tokens": 600}


@pytest.fixture
def make(tiny_gpt2_dir, sae_widget_home):
    made = []

    def _make(text="It was the best of times.", **given):
        made.append(SuperpositionExplorer(text, **{"model": str(tiny_gpt2_dir), "layer": 1} | QUICK | given))
        return made[-1]

    yield _make
    for explorer in made:
        explorer.close()


def test_everything_seen_can_be_had(make):
    explorer = make()
    with pytest.raises(ValueError, match=r"selected_feature must be between 0 and \d+, got -1"):
        explorer.selected_feature = -1  # nobody knows yet how many there are
    assert explorer.train(blocking=True) is None
    assert explorer.sae.W_dec.shape == (24, 32)
    assert len(explorer.history) == 40
    assert explorer.features.prompt.mean.shape == (24,)
    assert explorer.activations.texts == ("It was the best of times.",)
    assert explorer.language_model.n_layer == 3
    assert explorer.settings == TrainConfig(architecture="topk", d_sae=24, k=4, steps=40, batch_size=64)
    assert explorer.status.startswith("Trained 40 steps")
    for shown in (explorer, explorer.sae, explorer.features, explorer.activations, explorer.history):
        assert len(repr(shown)) < 300 and "\n" not in repr(shown)
    assert repr(explorer).endswith(f"layer=1, hook_name='resid_pre'): {explorer.status}")
    assert repr(explorer.activations).startswith("Activations(26 tokens, d_in=32, resid_pre of layer 1 of ")
    explorer.selected_feature = 5
    assert explorer.wait(30)
    assert explorer.state.card.feature == 5
    with pytest.raises(ValueError, match="selected_feature must be between 0 and 23, got 24"):
        explorer.selected_feature = 24


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"d_sea": 16}, TypeError, "did you mean 'd_sae'"),
        ({"d_sae": 0}, ValueError, "d_sae must be between 1"),
        ({"learning_rate": float("nan")}, ValueError, "learning_rate must be"),
        ({"preset": "the original"}, ValueError, "preset must be"),
        ({"hook_name": "blocks.3"}, ValueError, "hook_name must be one of"),
        ({"layer": "3"}, TypeError, "layer must be"),
        ({"corpus": 3}, TypeError, "corpus must be"),
        ({"layer": -1}, ValueError, "layer must be 0 or more, got -1"),
        ({"corpus_tokens": 0}, ValueError, "corpus_tokens must be between 10 and 50,000,000, got 0"),
        ({"corpus_tokens": 10**9}, ValueError, "corpus_tokens must be between 10 and 50,000,000, got 1,000,000,000"),
        ({"device": "cuda"}, TypeError, "everything runs on the CPU"),
        ({"layer": 99}, ValueError, "layer must be between 0 and 5, got 99"),
        ({"corpus": "/nonexistent"}, ValueError, "there is no corpus '/nonexistent'"),
        ({"name": 5}, TypeError, "name must be a string, got 5"),
        ({"model": ""}, ValueError, "model must be"),
        ({"lr": 0.1}, TypeError, "unknown setting 'lr'; did you mean 'learning_rate'"),
        ({"hook": "mlp_out"}, TypeError, "unknown setting 'hook'; did you mean 'hook_name'"),
    ],
)
def test_bad_arguments_are_refused_by_name(given, error, words):
    threads = threading.active_count()
    with pytest.raises(error, match=words):
        SuperpositionExplorer(**given)
    assert threading.active_count() == threads


@pytest.mark.parametrize(("text", "kind"), [(b"bytes", "bytes"), (3, "int"), (["a", "b"], "list"), (None, "None")])
def test_a_text_of_another_type_is_refused(make, text, kind):
    with pytest.raises(TypeError, match=f"text must be a string, got {kind}"):
        make().read(text)
    if text is not None:  # which stands for the text of the start
        with pytest.raises(TypeError, match=f"text must be a string, got {kind}"):
            SuperpositionExplorer(text)


def test_a_lone_surrogate_is_replaced_with_a_note(make):
    explorer = make("half \ud83d an emoji")
    assert explorer.wait(30)
    assert explorer.activations.texts == ("half \ufffd an emoji",)
    assert explorer.activations.notes == ("Half characters (lone surrogates) replaced by U+FFFD: 1.",)
    explorer.read("whole \ud83d\ude00")
    assert explorer.wait(30)
    assert explorer.activations.texts == ("whole 😀",)


def test_an_endless_text_is_refused_before_anything_is_done_with_it(make):
    explorer = make()
    assert explorer.wait(30)
    before, began = explorer.activations, time.monotonic()
    for use in (explorer.read, SuperpositionExplorer):
        with pytest.raises(ValueError, match="text has 10,000,000 characters; the text limit is 200,000"):
            use("x" * 10_000_000)
    assert time.monotonic() - began < 0.5
    assert explorer.wait(30)
    assert explorer.activations is before


def test_the_layer_is_fitted_to_the_model(make):
    explorer = make(layer=None)
    assert explorer.wait(30)
    assert explorer.state.layer == 2
    explorer.state.model = "bundled"
    assert explorer.wait(60)
    assert explorer.state.layer == 4


def test_a_layer_that_another_model_does_not_have_is_brought_down_with_a_word(make, tiny_gpt2_dir):
    explorer = make(model="bundled", layer=5)
    assert explorer.wait(60)
    assert explorer.state.layer == 5 and explorer.state.refused == {}
    explorer.state.model = str(tiny_gpt2_dir)
    assert explorer.wait(60)
    words = "This model has layers 0 to 2: layer 2 is shown instead of 5."
    assert explorer.state.layer == 2 == explorer.activations.layer
    assert explorer.state.refused == {"layer": words}
    (controls,) = [view for view in explorer._views if view.name == "controls"]
    assert controls.source.layer_words.value == f"⚠ {words}"
    explorer.state.model = "bundled"  # as a model that is fetched takes the place of the one shown meanwhile
    assert explorer.wait(60)
    assert explorer.state.layer == 5 and explorer.state.refused == {}
    explorer.state.model = str(tiny_gpt2_dir)
    assert explorer.wait(60)
    assert explorer.state.refused == {"layer": words}
    explorer.state.layer = 1
    assert explorer.wait(60)
    assert explorer.state.refused == {} and controls.source.layer_words.value == "after block 1"


def test_an_empty_text_says_what_is_missing_and_shows_that_nothing_is_read(make):
    explorer = make("")
    assert explorer.wait(30)
    assert explorer.status.startswith("Type some text first (it has 0 tokens).")
    assert explorer.activations is None and explorer.features is None
    (tokens,) = [view for view in explorer._views if view.name == "tokens"]
    assert tokens.widget.empty == "No text has been read yet. Type one above and press Read."
    assert tokens.widget.labels == [] and "Type some text first" in tokens.widget.fault
    explorer.read("some text")
    assert explorer.wait(30)
    assert tokens.widget.empty == "" == tokens.widget.fault and tokens.widget.labels


def test_a_feature_gets_a_name_and_loses_it(make):
    explorer = make()
    explorer.train(blocking=True)
    explorer.name_feature(np.int64(3), "vowels\nand more")
    explorer.name_feature(23, "the last")
    assert explorer.state.feature_names == {3: "vowels and more", 23: "the last"}
    assert all(type(feature) is int for feature in explorer.state.feature_names)
    explorer.name_feature(3, "")
    assert explorer.state.feature_names == {23: "the last"}


@pytest.mark.parametrize(
    ("feature", "name", "error", "words"),
    [
        ("x", "y", TypeError, "feature must be a whole number, got 'x'"),
        (True, "y", TypeError, "feature must be a whole number, got True"),
        (1.5, "y", TypeError, "feature must be a whole number, got 1.5"),
        (3, 5, TypeError, "name must be a string, got 5"),
        (3, None, TypeError, "name must be a string, got None"),
        (24, "y", ValueError, "feature must be between 0 and 23, got 24"),
        (-1, "y", ValueError, "feature must be between 0 and 23, got -1"),
    ],
)
def test_what_is_no_feature_or_no_name_is_refused(make, feature, name, error, words):
    explorer = make()
    assert explorer.wait(30)
    explorer.state.features = features(24)
    with pytest.raises(error, match=words):
        explorer.name_feature(feature, name)
    assert explorer.state.feature_names == {}


@pytest.mark.parametrize("feature", ["3", 1.5, True])
def test_a_selection_that_is_no_number_is_refused(make, feature):
    explorer = make()
    with pytest.raises(TypeError, match=f"selected_feature must be a whole number, got {feature!r}"):
        explorer.selected_feature = feature


def test_the_preset_is_the_one_of_the_form(sae_widget_home):
    explorer = SuperpositionExplorer(PRESETS[0].values["text"], preset="original tutorial", model="bundled")
    try:
        explorer.train(blocking=True)
        assert PRESETS[0].fits(explorer.state)
        assert explorer.sae.W_enc.shape == (192, 16)
        assert [record.step for record in explorer.history.to_list()][-1] == 500
    finally:
        explorer.close()


def test_pause_resume_stop_from_code(make):
    explorer = make(steps=100_000)
    explorer.train()
    while explorer.state.status.phase != "training":
        assert explorer.state.status.phase != "failed", explorer.status
    explorer.pause()
    assert explorer.wait(30)
    assert explorer.state.status.phase == "paused"
    steps = len(explorer.history)
    explorer.resume()
    while len(explorer.history) <= steps:
        assert explorer.state.status.phase != "failed", explorer.status
    explorer.stop()
    assert explorer.wait(30)
    assert "Stopped at step" in explorer.status


def test_a_pause_behind_a_train_that_waits_for_its_text_pauses_it(make):
    explorer = make(steps=100_000)
    explorer.read("Another text.")
    explorer.train()
    explorer.pause()
    assert explorer.wait(30)
    assert explorer.state.status.phase == "paused"
    assert explorer.activations.texts == ("Another text.",)


def test_save_and_load(make, tmp_path):
    explorer = make()
    with pytest.raises(ValueError, match="no SAE to save"):
        explorer.save(tmp_path / "early")
    explorer.train(blocking=True)
    explorer.state.feature_names = {3: "vowels"}
    explorer.selected_feature = 7
    explorer.save(tmp_path / "run")
    again = SuperpositionExplorer.load(tmp_path / "run")
    try:
        assert again.wait(30)
        assert again.state.feature_names == {3: "vowels"}
        assert again.settings == explorer.settings
        assert again.state.text == explorer.state.text
        assert again.state.corpus_tokens == 600
        assert again.selected_feature == again.state.card.feature == 7
        x = explorer.activations.values
        assert torch.allclose(again.sae(x), explorer.sae(x), atol=1e-4)
    finally:
        again.close()
    view = json.loads((tmp_path / "run" / "explorer.json").read_text())
    (tmp_path / "run" / "explorer.json").write_text(json.dumps(view | {"selected": 24}))  # the SAE has 24: 0 to 23
    again = SuperpositionExplorer.load(tmp_path / "run")
    assert again.selected_feature is None
    again.close()


def test_a_selection_is_there_after_loading_whatever_was_shown_first(make, tmp_path):
    """The bundled SAE of 1,024 features is shown until the one of the folder is read."""
    explorer = make(model="bundled", layer=4, d_sae=1500, steps=5)
    explorer.train(blocking=True)
    explorer.selected_feature = 1400
    explorer.save(tmp_path / "wide")
    again = SuperpositionExplorer.load(tmp_path / "wide")
    try:
        assert again.wait(60)
        assert again.selected_feature == again.state.card.feature == 1400
    finally:
        again.close()


def test_without_an_sae_there_is_nothing_to_name(make):
    with pytest.raises(ValueError, match="there is no SAE yet whose features could be named"):
        make().name_feature(3, "vowels")


def test_what_is_shown_is_saved_and_not_what_the_form_holds(make, tmp_path):
    """During a run the form may hold a place and a text that were refused."""
    explorer = make()
    explorer.train(blocking=True)
    explorer.set(steps=100_000)
    explorer.train()
    until(lambda: explorer.state.status.phase == "training")
    explorer.state.layer = 0
    explorer.read("Another text.")
    explorer.state.prepend_bos = False
    until(lambda: "stop it first" in explorer.status or explorer.state.layer == 1)
    explorer.save(tmp_path / "run")
    explorer.stop()
    saved = read_explorer(tmp_path / "run")
    assert (saved.model, saved.layer, saved.hook_name) == (explorer.language_model.name, 1, "resid_pre")
    assert saved.prepend_bos is True
    assert saved.text == "It was the best of times."


def test_a_folder_without_an_explorer_is_refused_before_one_is_made(tmp_path, sae_widget_home):
    threads = threading.active_count()
    with pytest.raises(SaeFileError, match="there is no such folder"):
        SuperpositionExplorer.load(tmp_path / "none")
    write_explorer(tmp_path, describe(TrainConfig(), model="bundled", layer=1, hook_name="resid_pre", prepend_bos=True))
    with pytest.raises(SaeFileError, match="No SAE could be read"):
        SuperpositionExplorer.load(tmp_path)
    assert threading.active_count() == threads


def test_an_sae_that_cannot_be_saved_is_a_sentence(make, tmp_path):
    explorer = make()
    explorer.train(blocking=True)
    (tmp_path / "file").write_text("x")
    with pytest.raises(SaeFileError, match="could not be saved in"):
        explorer.save(tmp_path / "file" / "run")


def test_a_closed_explorer_says_so(make):
    explorer = make()
    explorer.train()
    explorer.close()
    explorer.close()
    for use in (
        explorer.train, explorer.pause, explorer.resume, explorer.stop, explorer.reset, explorer.wait,
        lambda: explorer.read("x"), lambda: explorer.set(k=3), lambda: explorer.name_feature(1, "x"),
    ):  # fmt: skip
        with pytest.raises(RuntimeError, match="this explorer is closed"):
            use()


def rerun(monkeypatch, make, times):
    """Construct explorers as one notebook cell that is run again and again."""
    references = []
    for n in range(times):
        monkeypatch.setattr(cells, "cell_and_run", lambda n=n: ("cell:one", f"run {n}"))
        explorer = SuperpositionExplorer("a text", **make)
        assert explorer.wait(60)
        references.append(weakref.ref(explorer))
    return explorer, references


def test_running_a_cell_again_frees_the_old_explorer(monkeypatch, tiny_gpt2_dir, sae_widget_home):
    given = {"model": str(tiny_gpt2_dir), "layer": 1} | QUICK
    first, _ = rerun(monkeypatch, given, 1)
    widgets, threads = len(widget_module._instances), threading.active_count()
    last, references = rerun(monkeypatch, given, 5)
    with pytest.raises(RuntimeError):
        first.train()
    del first
    gc.collect()
    assert [r() for r in references[:-1]] == [None] * 4
    assert len(widget_module._instances) <= widgets
    assert threading.active_count() <= threads
    last.close()
    assert not any(t.name.startswith("sae_widget") for t in threading.enumerate())


def test_two_explorers_of_one_run_stay(monkeypatch, make):
    monkeypatch.setattr(cells, "cell_and_run", lambda: ("cell:two", "run 1"))
    one, two = make(), make()
    assert one.wait(30)
    assert two.wait(30)
    monkeypatch.setattr(cells, "cell_and_run", lambda: ("cell:two", "run 2"))
    three = make()
    for old in (one, two):
        with pytest.raises(RuntimeError):
            old.train()
    assert three.wait(30)


def test_explorers_of_one_name_replace_each_other(make):
    one, other, two = make(name="a"), make(name="b"), make(name="a")
    with pytest.raises(RuntimeError):
        one.train()
    assert other.wait(30)
    assert two.wait(30)


def test_nothing_is_left_after_close(make):
    before = set(widget_module._instances)
    explorer = make()
    explorer.train(blocking=True)
    explorer.close()
    gc.collect()
    assert set(widget_module._instances) <= before


def test_polled_mode_trains_while_the_cell_waits(make, monkeypatch):
    monkeypatch.setenv("SAE_WIDGET_POLL", "1")
    explorer = make()
    explorer.train(blocking=True)
    assert len(explorer.history) == 40
    assert explorer.features is not None
