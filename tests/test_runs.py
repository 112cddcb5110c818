"""``explorer.json``: what was written comes back, and what strangers write is refused in a sentence."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from sae_widget.checkpoint import SaeFileError
from sae_widget.config import TrainConfig
from sae_widget.runs import EXPLORER, MAX_BYTES, describe, read_explorer, write_explorer

PLACE: dict[str, Any] = {"model": "gpt2", "layer": 3, "hook_name": "mlp_out", "prepend_bos": False}


def written(folder: Path, **changes: Any) -> Path:
    """A folder whose ``explorer.json`` is sound but for these fields."""
    (folder / EXPLORER).write_text(json.dumps(PLACE | changes))
    return folder


def test_what_was_written_comes_back(tmp_path: Path) -> None:
    config = TrainConfig.original_tutorial(learning_rate=0.25)
    more = {"text": "Äpfel 😀", "corpus": "books", "corpus_tokens": 77, "selected": 5}
    saved = describe(config, {3: "vowels <b>"}, **PLACE, **more)
    write_explorer(tmp_path, saved)
    again = read_explorer(tmp_path)
    assert again == saved
    assert again.names == {3: "vowels <b>"}
    assert again.selected == 5
    place = {name: again.inputs.pop(name) for name in PLACE}
    assert place == PLACE
    assert TrainConfig(**again.settings) == config
    assert [path.name for path in tmp_path.iterdir()] == [EXPLORER]


def test_an_older_file_has_neither_tokens_nor_selection(tmp_path: Path) -> None:
    again = read_explorer(written(tmp_path, text="a", corpus="text", feature_names={}, settings={"k": 3}))
    assert (again.corpus_tokens, again.selected) == (30_000, None)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"layer": -1}, "layer: "),
        ({"layer": 2.0}, "layer: "),
        ({"layer": True}, "layer: "),
        ({"layer": 10**30}, "layer: "),
        ({"model": ""}, "model: "),
        ({"model": ["gpt2"]}, "model: "),
        ({"model": "x" * 1_001}, "model: "),
        ({"hook_name": "blocks.3"}, "hook_name: "),
        ({"prepend_bos": 1}, "prepend_bos: "),
        ({"text": "x" * 200_001}, "text: "),
        ({"corpus": None}, "corpus: "),
        ({"corpus_tokens": 9}, "corpus_tokens: "),
        ({"corpus_tokens": 10**9}, "corpus_tokens: "),
        ({"selected": -1}, "selected: "),
        ({"selected": 131_072}, "selected: "),
        ({"feature_names": {"one": "x"}}, "feature_names: 'one' is not the number of a feature"),
        ({"feature_names": {"9999999": "x"}}, "feature_names: '9999999' is not the number"),
        ({"feature_names": {"²": "x"}}, "feature_names: "),
        ({"feature_names": {"1": 2}}, "feature_names.1: "),
        ({"feature_names": {"1": "x" * 1_001}}, "feature_names: the name of feature 1 has 1,001 characters"),
        ({"settings": {"d_sea": 3}}, "settings: unknown setting 'd_sea'; did you mean 'd_sae'"),
        ({"settings": {"d_sae": 0}}, "settings: d_sae must be between 1 and"),
        ({"settings": {"d_sae": True}}, "settings: d_sae must be a whole number"),
        ({"settings": {"learning_rate": float("nan")}}, "settings: learning_rate must be between"),
        ({"settings": {"learning_rate": float("inf")}}, "settings: learning_rate must be between"),
        ({"settings": {"steps": [3]}}, "settings.steps"),
        ({"settings": []}, "settings: "),
        ({"device": "cuda"}, "device: extra inputs are not permitted"),
    ],
)
def test_a_field_that_is_wrong_is_named(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    with pytest.raises(SaeFileError, match=re.escape(f"explorer.json: {words}")) as caught:
        read_explorer(written(tmp_path, **change))
    assert str(caught.value).endswith("Nothing was loaded, and what you have is unchanged.")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"3", b"\xff", b"[" * 200_000, b'{"layer": ' + b"9" * 5000, b" " * (MAX_BYTES + 1)],
)
def test_a_file_that_is_damaged(tmp_path: Path, content: bytes) -> None:
    (tmp_path / EXPLORER).write_bytes(content)
    with pytest.raises(SaeFileError, match=r"^explorer.json: .*Nothing was loaded"):
        read_explorer(tmp_path)


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    with pytest.raises(SaeFileError, match=r"there is no such folder\. Nothing was loaded"):
        read_explorer(tmp_path / "none")
    with pytest.raises(SaeFileError, match=r"it has no explorer.json\. Nothing was loaded"):
        read_explorer(tmp_path)
    (tmp_path / "cfg.json").write_text("{}")
    with pytest.raises(SaeFileError, match=r"it has no explorer.json; the SAE in it opens with load_sae\("):
        read_explorer(tmp_path)
    (tmp_path / EXPLORER).mkdir()
    with pytest.raises(SaeFileError, match="No explorer could be read from"):
        read_explorer(tmp_path)


def test_what_could_not_be_read_again_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(SaeFileError, match=r"the name of feature 2 has 1,001 characters.*Nothing was written"):
        describe(TrainConfig(), {2: "x" * 1_001}, **PLACE)
    with pytest.raises(SaeFileError, match=r"explorer.json could not be written: .*The SAE beside it is saved"):
        write_explorer(tmp_path / "none", describe(TrainConfig(), **PLACE))
