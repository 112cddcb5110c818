"""What is shown, kept under a name that was typed in the page: in one folder, whole, and never over another (F59)."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from sae_widget import SuperpositionExplorer, load_sae
from sae_widget.activations.base import ModelLoadError
from sae_widget.checkpoint import SaeFileError
from sae_widget.runner.saving import SAVED, save_named, write_shown
from sae_widget.state import ExplorerState, SaveAnswer
from tests.hand_made import activations, features


@pytest.fixture
def shown(tmp_path, monkeypatch) -> ExplorerState:
    """A state with an SAE, in an empty folder."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return ExplorerState(features=features(), activations=activations(), feature_names={1: "the <b>"})


def test_what_was_saved_by_name_is_the_same(shown):
    shown.save_as = " first-1.0_a "
    assert save_named(shown) == f"{Path(SAVED) / 'first-1.0_a'}: {shown.features.source}"
    back = load_sae("saes/first-1.0_a")
    assert back.W_dec.equal(shown.features.sae.W_dec) and back.W_enc.equal(shown.features.sae.W_enc)
    assert sorted(path.name for path in Path().iterdir()) == [SAVED]


NO_NAMES = (
    *("", " ", ".", "..", "../up", "/absolute", "a/b", "a\\b", "~", "~root", ".hidden", "-rf", "ends.", "a\0b", "a b"),
    *("CON", "nul.txt", "com1", "é", "a" * 81, "a\n", "C:", "a:b", "<b>", "$HOME", "\ud83d"),
)


@pytest.mark.parametrize("name", NO_NAMES, ids=ascii)
def test_no_other_folder_can_be_reached(shown, name, tmp_path):
    """F59"""
    shown.save_as = name
    before = sorted(tmp_path.rglob("*"))
    if name == "a\n":  # stripped, it is a name
        assert save_named(shown).startswith(str(Path(SAVED) / "a"))
        return
    with pytest.raises(SaeFileError, match="Nothing was saved"):
        save_named(shown)
    assert sorted(tmp_path.rglob("*")) == before


def test_what_is_there_is_kept(shown):
    tmp_path = Path.cwd()
    (tmp_path / SAVED).mkdir()
    (tmp_path / SAVED / "file").write_text("mine")
    (tmp_path / SAVED / "link").symlink_to(tmp_path / "nowhere")
    (tmp_path / SAVED / "folder").mkdir()
    for name in ("file", "link", "folder"):
        shown.save_as = name
        with pytest.raises(SaeFileError, match=r"already.*choose another name"):
            save_named(shown)
    assert (tmp_path / SAVED / "file").read_text() == "mine"
    assert not (tmp_path / "nowhere").exists()
    assert list((tmp_path / SAVED / "folder").iterdir()) == []


def test_a_folder_that_cannot_be_made_is_a_sentence(shown):
    tmp_path = Path.cwd()
    (tmp_path / SAVED).write_text("a file of that name")
    shown.save_as = "first"
    with pytest.raises(SaeFileError, match=r"saes.first could not be made: .* Nothing was saved"):
        save_named(shown)
    assert (tmp_path / SAVED).read_text() == "a file of that name"


@pytest.mark.parametrize("last", ["explorer.json", "cfg.json"])
def test_half_a_save_leaves_nothing(shown, monkeypatch, last):
    replace = os.replace

    def full(source, target, **more):
        if Path(target).name == last:
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(source, target, **more)

    monkeypatch.setattr(os, "replace", full)
    monkeypatch.setattr(Path, "replace", lambda self, target: full(self, target))
    shown.save_as = "first"
    with pytest.raises(SaeFileError) as caught:
        save_named(shown)
    monkeypatch.undo()
    where = Path(SAVED) / "first"
    assert str(caught.value) == (
        f"{where} could not be written: no space left on device. Nothing was saved: save it again."
    )
    assert not where.exists()


def test_there_must_be_an_sae(tmp_path):
    with pytest.raises(SaeFileError, match="no SAE to save yet"):
        save_named(ExplorerState(save_as="first"))
    with pytest.raises(ValueError, match="no SAE to save yet"):
        write_shown(ExplorerState(), tmp_path / "sae")
    assert list(tmp_path.iterdir()) == []


def test_of_two_at_once_one_has_the_name(shown):
    """F60"""
    shown.save_as = "same"
    came: list[str] = []
    start = threading.Barrier(4)

    def save() -> None:
        start.wait()
        try:
            save_named(shown)
            came.append("saved")
        except SaeFileError as fault:
            came.append(str(fault))

    threads = [threading.Thread(target=save) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert came.count("saved") == 1 and sum("Nothing was saved" in said or "already" in said for said in came) == 3
    assert load_sae("saes/same").W_dec.equal(shown.features.sae.W_dec)


def box_of(explorer: SuperpositionExplorer):
    (controls,) = [view for view in explorer._views if view.name == "controls"]
    return controls.saving.box


def press_save(explorer: SuperpositionExplorer, name: str) -> SaveAnswer:
    """What the page sends; returns the answer."""
    answered = threading.Event()
    explorer.state.observe(lambda _change: answered.set(), names=["save_answer"])
    box = box_of(explorer)
    box.set_state({"draft": name, "asks": box.asks + 1})
    assert answered.wait(60)
    return explorer.state.save_answer


def test_saved_in_the_page_and_shown_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    explorer = SuperpositionExplorer("the cat sat", model="bundled", layer=1)
    explorer.wait(60)
    explorer.name_feature(3, "cats")
    assert press_save(explorer, "cats").saved.startswith(f"{Path(SAVED) / 'cats'}: the bundled SAE")
    assert "choose another name" in press_save(explorer, "cats").trouble
    assert press_save(explorer, "cats-2").trouble == ""
    explorer.close()
    again = SuperpositionExplorer.load("saes/cats")
    again.wait(60)
    assert again.state.feature_names == {3: "cats"} and again.state.text == "the cat sat"
    again.close()


@pytest.fixture
def training(tmp_path, monkeypatch) -> Iterator[SuperpositionExplorer]:
    """An explorer that trains, and shows what it trains."""
    monkeypatch.chdir(tmp_path)
    settings = {"d_sae": 64, "k": 4, "batch_size": 64, "steps": 10**6, "corpus_tokens": 2000}
    explorer = SuperpositionExplorer("the cat sat", model="bundled", layer=1, **settings)
    explorer.wait(60)
    shown = threading.Event()
    explorer.state.observe(lambda change: change.new.source.startswith("your") and shown.set(), names=["features"])
    explorer.train()
    assert shown.wait(60)
    yield explorer
    explorer.close()


def test_a_training_goes_on_while_it_is_saved(training):
    assert press_save(training, "halfway").saved.startswith(f"{Path(SAVED) / 'halfway'}: your SAE")
    assert training.state.status.phase == "training"
    assert load_sae("saes/halfway").d_sae == 64


def test_a_training_goes_on_when_it_cannot_be_saved(training, monkeypatch):
    def without_memory(*_args, **_more):
        raise RuntimeError("can't allocate memory")

    monkeypatch.setattr("sae_widget.runner.saving.save_sae", without_memory)
    answer = press_save(training, "halfway")
    assert answer.trouble == "It could not be saved (RuntimeError: can't allocate memory). Nothing was kept."
    assert training.state.status.phase == "training" and not Path("saes/halfway").exists()


def test_what_the_status_line_says_is_what_is_saved(training):
    training.stop()
    answer = press_save(training, "stopped")
    training.wait(60)
    step = load_sae("saes/stopped").metadata["training"]["steps"]
    assert training.status.startswith(f"Stopped at step {step:,}.") and answer.saved.endswith(f"step {step:,}")


def test_what_is_shown_is_saved_while_another_model_loads(training, monkeypatch):
    training.stop()
    training.wait(60)
    begun, go_on = threading.Event(), threading.Event()

    def slowly(*_args, **_more):
        begun.set()
        go_on.wait(60)
        raise ModelLoadError("it never came")

    monkeypatch.setattr("sae_widget.runner.loading.load_model", slowly)
    training.state.model = "somebody/else"
    assert begun.wait(60)
    try:
        assert "your SAE" in press_save(training, "before").saved
    finally:
        go_on.set()
    training.wait(60)
