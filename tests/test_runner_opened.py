"""sae_widget.runner.opened: what a person types, folders of strangers, and by which key an SAE is known again."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from sae_widget.checkpoint import SaeFileError, save_sae
from sae_widget.config import TrainConfig
from sae_widget.runner.opened import opened_from, typed_folder
from sae_widget.runs import EXPLORER, describe, write_explorer
from sae_widget.sae import JumpReLUSAE
from tests.hand_made import features
from tests.sae_folders import an_sae, foreign

PLACE: dict[str, Any] = {"model": "gpt2", "layer": 3, "hook_name": "mlp_out", "prepend_bos": False}


class OfBytes:
    """A path as some programs give it."""

    def __fspath__(self) -> bytes:
        return b"sae"


def test_a_folder_comes_with_what_lies_beside_it_and_no_more(tmp_path: Path) -> None:
    folder = foreign(tmp_path / "sae")
    alone = opened_from(str(folder))
    assert (alone.stats, alone.saved, alone.anyway, alone.typed) == (None, None, False, False)
    assert (alone.words, alone.key) == ("the SAE of sae", str(folder))
    record = features(10).stats
    assert record is not None
    save_sae(an_sae(), folder, record.tensors())
    write_explorer(folder, describe(TrainConfig(), {3: "vowels"}, **PLACE))
    both = opened_from(folder)
    assert both.stats is not None and both.stats.n_tokens == record.n_tokens
    assert both.saved is not None and both.saved.names == {3: "vowels"}


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff", b'{"layer": 3}'])
def test_a_damaged_file_beside_a_sound_sae_is_named(tmp_path: Path, content: bytes) -> None:
    folder = foreign(tmp_path / "sae")
    (folder / EXPLORER).write_bytes(content)
    with pytest.raises(SaeFileError, match=r"^explorer\.json: .*Nothing was loaded"):
        opened_from(folder)


def test_statistics_of_another_sae_are_refused(tmp_path: Path) -> None:
    record = features(11).stats
    assert record is not None
    save_sae(an_sae(), tmp_path / "sae", record.tensors())
    with pytest.raises(SaeFileError, match="are not of its 10 features"):
        opened_from(tmp_path / "sae")


def test_the_folder_where_one_stands_has_its_own_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(foreign(tmp_path / "sae"))
    assert opened_from(".").words == opened_from("").words == opened_from("../sae/.").words == "the SAE of sae"
    assert torch.equal(opened_from(typed_folder(" . ")).sae.W_dec, an_sae().W_dec)


def test_a_folder_whose_name_is_no_utf8_is_read(tmp_path: Path) -> None:
    folder = foreign(tmp_path / os.fsdecode(b"a\xff"))
    assert torch.equal(opened_from(folder).sae.W_enc, an_sae().W_enc)
    assert torch.equal(opened_from(typed_folder(f" {folder}\n")).sae.W_enc, an_sae().W_enc)


@pytest.mark.parametrize("given", ["\ud800", "x" * 5_000, "none\n\x1b[31m", os.fsdecode(b"\xff")])
def test_a_path_that_leads_nowhere_is_one_line(given: str) -> None:
    for path in (given, typed_folder(given)):
        with pytest.raises(SaeFileError, match=r"^No SAE could be read from .*Nothing was loaded") as caught:
            opened_from(path)
        assert str(caught.value).isprintable()


@pytest.mark.parametrize("given", [b"sae", OfBytes(), ["sae"], 3.0, an_sae().W_dec])
def test_what_is_neither_an_sae_nor_a_path_is_refused(given: Any) -> None:
    with pytest.raises(TypeError):
        opened_from(given)


def test_an_sae_is_known_again_by_its_decoder() -> None:
    sae = an_sae()
    opened = opened_from(sae)
    assert opened.sae is sae and opened.words == "the SAE from Python"
    turned = replace(sae, W_dec=sae.W_dec.t().contiguous().t().requires_grad_())  # laid out otherwise, and a leaf
    assert not turned.W_dec.is_contiguous()
    assert opened_from(turned).key == opened.key != opened_from(an_sae(2)).key
    named = replace(sae, metadata={"release": "", "sae_id": "layer 3"})
    assert (opened_from(named).words, opened_from(named).key) == ("the SAE layer 3", opened.key)
    bare = {name: getattr(sae, name) for name in ("W_enc", "b_enc", "W_dec", "b_dec")}
    with pytest.raises(TypeError, match=r"^threshold must be torch\.float32 on the CPU, got torch\.float64 on cpu$"):
        opened_from(JumpReLUSAE(**bare, threshold=torch.zeros(10, dtype=torch.float64)))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"numbers": torch.zeros(3)}, "are damaged"),
        ({"numbers": torch.zeros(4, 2)}, "are damaged"),
        ({"mean": torch.zeros(3)}, "are not of its 10 features"),
        ({"max": torch.zeros(10, 2)}, "are not of its 10 features"),
    ],
)
def test_damaged_statistics_beside_a_sound_sae_are_named(
    changes: dict[str, torch.Tensor], words: str, tmp_path: Path
) -> None:
    folder, record = foreign(tmp_path / "sae"), features(10).stats
    assert record is not None
    save_sae(an_sae(), folder, record.tensors() | changes)
    with pytest.raises(SaeFileError, match=words):
        opened_from(folder)


@pytest.mark.parametrize("typed", ["~a\0b", "~\ud800"])
def test_a_home_that_nobody_can_have_is_told(typed: str) -> None:
    with pytest.raises(SaeFileError, match="there is no such home folder"):
        typed_folder(typed)


def test_words_of_strangers_are_printable() -> None:
    sae = an_sae(metadata={"release": "a\n\x1b[31mb\u202e", "sae_id": "x" * 999})
    assert opened_from(sae).words.isprintable() and len(opened_from(sae).words) < 300
