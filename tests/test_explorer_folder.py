"""The folder of an SAE typed into the page: what ``SuperpositionExplorer.show`` does, and what is said at the box."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sae_widget import SuperpositionExplorer
from sae_widget.sae import StandardSAE
from tests.published import D_SAE, published, tensors
from tests.running import until


@pytest.fixture
def explorer(tiny_gpt2_dir: Path, sae_widget_home: Path) -> Iterator[SuperpositionExplorer]:
    settings = {"d_sae": 24, "k": 4, "steps": 30, "batch_size": 64, "corpus_tokens": 600}
    made = SuperpositionExplorer("It was the best of times.", model=str(tiny_gpt2_dir), layer=1, **settings)
    assert made.wait(60)
    yield made
    made.close()


def show(explorer: SuperpositionExplorer, sae: Any) -> None:
    explorer.show(sae)
    assert explorer.wait(60)


def type_folder(explorer: SuperpositionExplorer, folder: Any) -> Any:
    """Type a folder into the form and press Enter; the form with what came of it."""
    (form,) = [view for view in explorer._views if view.name == "controls"]
    form.opening.box.set_state({"draft": str(folder), "asks": form.opening.box.asks + 1})
    assert explorer.wait(60)
    form.redraw()
    return form.opening


def test_a_folder_typed_in_the_page_is_shown(explorer, tmp_path, monkeypatch):
    folder = published(tmp_path / "their-sae", hook_name="blocks.2.hook_resid_post", prepend_bos=False)
    opening = type_folder(explorer, f"  {folder} ")
    assert torch.equal(explorer.sae.W_enc, tensors()["W_enc"])
    assert (explorer.state.layer, explorer.state.hook_name, explorer.state.prepend_bos) == (2, "resid_post", False)
    assert explorer.status.startswith("Showing the SAE of their-sae, after block 3: 40 features.")
    assert opening.box.trouble == "" and opening.box.told == "Now: the SAE of their-sae, after block 3"
    for name, typed in (("HOME", "~/their-sae"), (None, "their-sae")):
        show(explorer, StandardSAE(**tensors(seed=4)))
        if name is None:
            monkeypatch.chdir(tmp_path)  # a notebook's own folder
        else:
            monkeypatch.setenv(name, str(tmp_path))
        assert type_folder(explorer, typed).box.trouble == ""
        assert torch.equal(explorer.sae.W_enc, tensors()["W_enc"])


def test_names_and_statistics_come_with_a_typed_folder(explorer, tmp_path):
    explorer.train(blocking=True)
    explorer.name_feature(3, "vowels")
    explorer.save(tmp_path / "run")
    frequency = explorer.features.stats.frequency
    show(explorer, StandardSAE(**tensors()))
    type_folder(explorer, tmp_path / "run")
    assert explorer.state.feature_names == {3: "vowels"}
    assert np.array_equal(explorer.features.stats.frequency, frequency)


def test_what_is_wrong_with_a_typed_folder_is_said_beside_it(explorer, tmp_path):
    show(explorer, StandardSAE(**tensors()))
    kept = explorer.features
    broken, empty = published(tmp_path / "broken"), tmp_path / "empty"
    (broken / "sae_weights.safetensors").write_bytes(b"no weights")
    empty.mkdir()
    for typed, said in (
        ("  ", "Type the folder of a saved SAE first. What is shown is kept."),
        (tmp_path / "none", f"No SAE could be read from {tmp_path}/none: there is no such folder."),
        (broken / "cfg.json", "cfg.json: it is a file; give the folder that it lies in."),
        ("a" * 900, "file name too long."),
        ("~nobody-of-this-name/sae", "there is no such home folder."),
        (empty, f"No SAE could be read from {empty}: no such file or directory (cfg.json)."),
        (broken, "sae_weights.safetensors"),
        (published(tmp_path / "wide", 50), "reads 50 dimensions"),
    ):
        opening = type_folder(explorer, typed)
        assert said in opening.box.trouble and opening.box.trouble == explorer.status
        assert explorer.state.status.trouble and explorer.state.status.phase == "ready"
        assert explorer.features is kept and opening.question.layout.display == "none"
    assert type_folder(explorer, published(tmp_path / "good")).box.trouble == ""
    type_folder(explorer, tmp_path / "none")
    explorer.read("Another text.")
    assert explorer.wait(60)
    assert opening.box.trouble == ""  # it is over


def test_a_typed_folder_of_another_model_asks_beside_the_box(explorer, tmp_path):
    elsewhere = published(tmp_path / "elsewhere", model_name="gpt2-small", hook_name="blocks.8.hook_resid_pre")
    for answer in ("keep", "load_anyway"):
        opening = type_folder(explorer, elsewhere)
        assert opening.box.trouble.startswith("This SAE was trained on gpt2 resid_pre 8, the explorer reads ")
        assert opening.question.layout.display == "" and explorer.features is None
        assert explorer.state.offers == ("load_anyway", "keep")
        opening.answers[answer].click()
        assert explorer.wait(60)
        assert opening.question.layout.display == "none" and opening.box.trouble == ""
    assert explorer.sae.d_sae == D_SAE and "though trained on gpt2 resid_pre 8" in explorer.status
    type_folder(explorer, elsewhere)
    opening = type_folder(explorer, tmp_path / "none")  # the question is not about this one
    assert opening.question.layout.display == "none" and explorer.state.offers == ()


def test_a_folder_is_not_taken_while_it_trains(explorer, tmp_path):
    explorer.set(steps=1_000_000)
    explorer.train()
    until(lambda: explorer.state.status.step > 5)
    explorer.state.folder = str(published(tmp_path / "sae"))
    explorer.state.command = {"do": "show", "n": 99}
    until(lambda: "stop it first" in explorer.status)
    explorer.stop()
    assert explorer.wait(30) and explorer.sae.d_sae == 24
