"""What is shown, kept under a name that was typed in the page: in one folder, whole, and never over another (F59)."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from sae_widget import SuperpositionExplorer, load_sae
from sae_widget.checkpoint import SaeFileError
from sae_widget.runner.saving import SAVED, save_named, write_shown
from sae_widget.state import ExplorerState
from tests.hand_made import activations, features


@pytest.fixture
def shown(tmp_path, monkeypatch) -> ExplorerState:
    """A state with an SAE, in an empty folder."""
    monkeypatch.chdir(tmp_path)
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
    before = sorted(tmp_path.parent.rglob("*"))
    if name == "a\n":  # stripped, it is a name
        assert save_named(shown).startswith(str(Path(SAVED) / "a"))
        return
    with pytest.raises(SaeFileError, match="Nothing was saved"):
        save_named(shown)
    assert sorted(tmp_path.parent.rglob("*")) == before


def test_what_is_there_is_kept(shown, tmp_path):
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


def test_a_folder_that_cannot_be_made_is_a_sentence(shown, tmp_path):
    (tmp_path / SAVED).write_text("a file of that name")
    shown.save_as = "first"
    with pytest.raises(SaeFileError, match=r"saes.first could not be made: .* Nothing was saved"):
        save_named(shown)
    assert (tmp_path / SAVED).read_text() == "a file of that name"


def test_half_a_save_leaves_nothing(shown, monkeypatch):
    def full(*_args, **_more):
        raise SaeFileError("The SAE could not be saved: no space left on device.")

    monkeypatch.setattr("sae_widget.runner.saving.write_explorer", full)
    shown.save_as = "first"
    with pytest.raises(SaeFileError, match="no space"):
        save_named(shown)
    assert list(Path(SAVED).iterdir()) == []
    monkeypatch.undo()


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


def press_save(explorer: SuperpositionExplorer, name: str) -> None:
    """What the page sends."""
    (controls,) = [view for view in explorer._views if view.name == "controls"]
    box = controls.saving.box
    box.set_state({"draft": name, "asks": box.asks + 1})
    assert explorer.wait(60)


def test_saved_in_the_page_and_shown_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    explorer = SuperpositionExplorer("the cat sat", model="bundled", layer=1)
    explorer.wait(60)
    explorer.name_feature(3, "cats")
    press_save(explorer, "cats")
    assert explorer.state.saved.startswith(f"{Path(SAVED) / 'cats'}: the bundled SAE")
    press_save(explorer, "cats")
    assert "choose another name" in explorer.state.faults["save"]
    press_save(explorer, "cats-2")
    assert "save" not in explorer.state.faults
    explorer.close()
    again = SuperpositionExplorer.load("saes/cats")
    again.wait(60)
    assert again.state.feature_names == {3: "cats"} and again.state.text == "the cat sat"
    again.close()


def test_a_training_goes_on_while_it_is_saved(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = {"d_sae": 64, "k": 4, "batch_size": 64, "steps": 10**6, "corpus_tokens": 2000}
    explorer = SuperpositionExplorer("the cat sat", model="bundled", layer=1, **settings)
    explorer.wait(60)
    shown = threading.Event()
    explorer.state.observe(lambda change: change.new.source.startswith("your") and shown.set(), names=["features"])
    explorer.train()
    assert shown.wait(60)
    (controls,) = [view for view in explorer._views if view.name == "controls"]
    done = threading.Event()
    explorer.state.observe(lambda _change: done.set(), names=["saved"])
    controls.saving.box.set_state({"draft": "halfway", "asks": 1})
    assert done.wait(60)
    assert explorer.state.status.phase == "training"
    assert load_sae("saes/halfway").d_sae == 64
    assert "your SAE" in explorer.state.saved and "step" in explorer.state.saved
    explorer.stop()
    explorer.wait(60)
    explorer.close()
