"""Corpora at size: texts by their places, activations on a disk, and what is wrong with the files of others."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from sae_widget.checkpoint import SaeFileError
from sae_widget.config import TrainConfig
from sae_widget.data import (
    ModelActivations,
    ShardedActivations,
    TextPieces,
    concatenate,
    open_corpus,
    pieces,
    read_corpus,
    store,
    stream,
)
from sae_widget.data.layout import STORE, shard_name
from sae_widget.training import Trainer
from sae_widget.training.blocks import BlockFeed, is_source

PLACE = {"layer": 1, "hook_name": "resid_pre", "prepend_bos": False}
TEXTS = [f"text number {i}, with more words than {7 * i} and fewer than {9 * i}. " * (1 + i % 3) for i in range(60)]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of 500 tokens, and files of three or four of them."""
    monkeypatch.setattr(stream, "BLOCK_TOKENS", 500)
    monkeypatch.setattr(store, "BLOCK_TOKENS", 500)
    monkeypatch.setattr(store, "SHARD_BYTES", 2 * 32 * 1500)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "texts").mkdir()
    texts = "\ufeffcaf\u00e9 \u2603 " * 900, "line\nof text\n\n" * 2000, " \n" * 3000 + "end"
    for name, text in zip("abc", texts, strict=True):
        (tmp_path / "texts" / f"{name}.txt").write_text(text, encoding="utf-8", newline="")
    return tmp_path / "texts"


def whole(model: Any, texts: Any, max_tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
    """As a trainer in memory gets them."""
    found = concatenate(list(read_corpus(model, texts, max_tokens=max_tokens, **PLACE)))
    return found.values, found.position


def test_a_file_whose_name_is_no_text_is_stored(tiny_gpt2: Any, tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"caf\xe9.txt")
    path.write_text("some words " * 200)
    for _ in range(2):  # written, and opened again
        made = open_corpus(tiny_gpt2, path, max_tokens=300, store=tmp_path / "s", **PLACE)
        assert made.n_tokens == 300
    assert json.loads((tmp_path / "s" / STORE).read_text())["corpus"].endswith("caf?.txt")


class TestTexts:
    def test_files_are_cut_and_shuffled_as_in_memory(self, folder: Path) -> None:
        from sae_widget.activations.corpus import corpus_texts

        found = TextPieces(folder)
        assert found[:] == pieces(corpus_texts(folder)) and len(found) == len(found[:]) > 10
        assert TextPieces(folder, seed=1)[:] == pieces(corpus_texts(folder), seed=1) != found[:]
        assert TextPieces("documentation")[:3] == pieces(corpus_texts("documentation"))[:3]
        assert TextPieces(TEXTS)[:] == pieces(TEXTS)

    def test_a_file_that_changes_is_noticed(self, folder: Path) -> None:
        found = TextPieces(folder)
        (folder / "b.txt").write_text("short", encoding="utf-8")
        with pytest.raises(ValueError, match=r"b\.txt was changed or removed while it was being read\. Start again"):
            found[:]

    def test_nothing_in_it(self, tmp_path: Path) -> None:
        (tmp_path / "empty.txt").write_text(" \n", encoding="utf-8")
        with pytest.raises(ValueError, match="has no text in it"):
            TextPieces(tmp_path / "empty.txt")

    def test_the_digest_tells_corpora_apart(self, folder: Path) -> None:
        assert TextPieces(folder).digest() == TextPieces(folder).digest()
        assert len({TextPieces(TEXTS[:n]).digest() for n in (10, 11, 12)}) == 3


class TestModel:
    def test_blocks_are_the_corpus(self, tiny_gpt2: Any) -> None:
        source = open_corpus(tiny_gpt2, TEXTS, max_tokens=4000, **PLACE)
        assert isinstance(source, ModelActivations) and is_source(source)
        values, position = whole(tiny_gpt2, pieces(TEXTS), 10**6)
        parts = [source.load(index) for index in range(source.n_blocks)]
        n = sum(len(part) for part, _ in parts)
        assert abs(n - 4000) < 1200 and max(len(part) for part, _ in parts) <= source.block_tokens
        assert torch.equal(torch.cat([p for _, p in parts]), position[:n])
        assert torch.allclose(torch.cat([v for v, _ in parts]), values[:n], atol=1e-5)
        assert all(int(p[0]) == 0 for _, p in parts)

    def test_whole_and_sample(self, tiny_gpt2: Any) -> None:
        source = open_corpus(tiny_gpt2, TEXTS, max_tokens=2000, **PLACE)
        for found, n in ((source.whole(), 2000), (source.sample(300), 300)):
            wanted = whole(tiny_gpt2, pieces(TEXTS), n)
            assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))

    def test_a_run_that_streams_goes_on_bit_for_bit(self, tiny_gpt2: Any) -> None:
        from tests.test_feed import check_resume

        source = open_corpus(tiny_gpt2, TEXTS, max_tokens=4000, buffer_tokens=1500, **PLACE)
        config = TrainConfig(d_sae=20, k=3, steps=120, batch_size=64)
        assert isinstance(Trainer(source, config=config)._engine.feed, BlockFeed)
        check_resume(lambda: Trainer(source, config=config), split=75)

    @pytest.mark.parametrize("change", [{"max_tokens": 0}, {"max_tokens": 2.5}, {"buffer_tokens": -1}])
    def test_wrong_numbers(self, tiny_gpt2: Any, change: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match=f"^{next(iter(change))} must be a whole number of at least 1, got"):
            open_corpus(tiny_gpt2, TEXTS, **({"max_tokens": 50} | change), **PLACE)


class TestStore:
    @pytest.mark.parametrize(("dtype", "far"), [("float32", 0.0), ("float16", 2e-3), ("bfloat16", 2e-2)])
    def test_what_is_read_is_what_was_written(self, tiny_gpt2: Any, tmp_path: Path, dtype: str, far: float) -> None:
        told: list[tuple[int, int]] = []
        found = open_corpus(
            tiny_gpt2, TEXTS, max_tokens=4000, store=tmp_path / "s", dtype=dtype,
            progress=lambda *pair: told.append(pair), **PLACE,
        )  # fmt: skip
        assert isinstance(found, ShardedActivations) and is_source(found)
        assert told[-1] == (4000, 4000) and len(told) > 7
        values, position = whole(tiny_gpt2, pieces(TEXTS), 4000)
        parts = [found.load(index) for index in range(found.n_blocks)]
        assert torch.equal(torch.cat([p for _, p in parts]), position) and found.n_tokens == 4000
        assert all(v.dtype == getattr(torch, dtype) and int(p[0]) == 0 for v, p in parts)
        assert float((torch.cat([v for v, _ in parts]).float() - values).abs().max()) <= far * float(values.abs().max())
        assert found.block_tokens == max(len(p) for _, p in parts) < 1000 and len(found.config.shards) > 1
        assert all(torch.equal(a, b[:700]) for a, b in zip(found.sample(700), found.whole(), strict=True))
        assert found.metadata == {
            "model_name": tiny_gpt2.name, "layer": 1, "hook_name": "resid_pre", "prepend_bos": False,
            "training_tokens": 4000,
        }  # fmt: skip
        assert sorted(p.name for p in (tmp_path / "s").iterdir() if not p.name.startswith(".sae_widget")) == sorted(
            [STORE, *(shard_name(n) for n in range(len(found.config.shards)))]
        )

    def test_a_writer_that_was_stopped_is_gone_on_with(self, tiny_gpt2: Any, tmp_path: Path) -> None:
        def stop_at(most: int) -> Any:
            def stop(done: int, _total: int) -> None:
                if done > most:
                    raise KeyboardInterrupt

            return stop

        given: dict[str, Any] = {"max_tokens": 4000, **PLACE}
        for most in (500, 1800, 3000):
            with pytest.raises(KeyboardInterrupt):
                open_corpus(tiny_gpt2, TEXTS, store=tmp_path / "s", progress=stop_at(most), **given)
        with pytest.raises(SaeFileError, match=r"is unfinished: [1-3],\d{3} of 4,000 tokens are written\. Call open_c"):
            ShardedActivations(tmp_path / "s")
        told: list[int] = []
        open_corpus(tiny_gpt2, TEXTS, store=tmp_path / "s", progress=lambda n, _: told.append(n), **given)
        open_corpus(tiny_gpt2, TEXTS, store=tmp_path / "other", **given)
        assert told[0] > 1500
        for file in (tmp_path / "other").glob("activations-*"):
            assert file.read_bytes() == (tmp_path / "s" / file.name).read_bytes()
        assert (tmp_path / "s" / STORE).read_bytes() == (tmp_path / "other" / STORE).read_bytes()

    def test_another_corpus_or_place_is_refused_and_the_same_is_opened(self, tiny_gpt2: Any, tmp_path: Path) -> None:
        given: dict[str, Any] = {"max_tokens": 1000, "store": tmp_path, **PLACE}
        open_corpus(tiny_gpt2, TEXTS, **given)
        before = (tmp_path / shard_name(0)).stat().st_mtime_ns
        for texts, change in ((TEXTS, {"layer": 2}), (TEXTS, {"max_tokens": 900}), (TEXTS[:50], {})):
            with pytest.raises(SaeFileError, match=r"already holds resid_pre of layer 1 .* choose another folder"):
                open_corpus(tiny_gpt2, texts, **(given | change))
        assert open_corpus(tiny_gpt2, TEXTS, **given).n_tokens == 1000
        assert (tmp_path / shard_name(0)).stat().st_mtime_ns == before

    def test_two_writers(self, tiny_gpt2: Any, tmp_path: Path) -> None:
        source = open_corpus(tiny_gpt2, TEXTS, max_tokens=1000, **PLACE)
        first, second = (store.write_store(source, tmp_path, corpus="", digest="", dtype="float16") for _ in range(2))
        next(first)
        with pytest.raises(SaeFileError, match="Another program is writing"):
            next(second)
        first.close()

    def test_float16_that_overflows_is_told(self, tiny_gpt2: Any, tmp_path: Path, monkeypatch: Any) -> None:
        """F42."""
        kind, embed = type(tiny_gpt2.adapter), type(tiny_gpt2.adapter).embed
        monkeypatch.setattr(kind, "embed", lambda self, ids: embed(self, ids) * 1e7)
        given: dict[str, Any] = {"max_tokens": 100, **PLACE | {"layer": 0}}
        with pytest.raises(ValueError, match=r"An activation of [\d,]+ is too large for float16, which ends at 65,504"):
            open_corpus(tiny_gpt2, TEXTS, store=tmp_path / "half", **given)
        found = open_corpus(tiny_gpt2, TEXTS, store=tmp_path / "b", dtype="bfloat16", **given)
        assert float(found.whole()[0].abs().max()) > 65_504

    def test_no_room_on_the_disk(self, tiny_gpt2: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(store.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10_000}))
        with pytest.raises(SaeFileError, match=r"need 0\.0 GB more in .*Nothing was written; ask for fewer tokens"):
            open_corpus(tiny_gpt2, TEXTS, max_tokens=1000, store=tmp_path, **PLACE)

    def test_a_dtype_that_is_none(self, tiny_gpt2: Any, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="dtype must be one of float16, bfloat16, float32, got 'int8'"):
            open_corpus(tiny_gpt2, TEXTS, max_tokens=100, store=tmp_path, dtype="int8", **PLACE)


class TestStrangers:
    """Stores that were damaged, or made to harm."""

    @pytest.fixture
    def made(self, tiny_gpt2: Any, tmp_path: Path) -> Path:
        open_corpus(tiny_gpt2, TEXTS, max_tokens=3000, store=tmp_path, **PLACE)
        return tmp_path

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ({"d_in": 31}, r"activations-000000.safetensors: values is F16 .* says F16"),
            ({"d_in": 10**12}, "store.json: d_in: input should be less than"),
            ({"dtype": "int8"}, "dtype 'int8' is not one of float16"),
            ({"dtype": "bfloat16"}, "values is F16 .* says BF16"),
            ({"hook_name": "../x"}, "hook_name '../x' is not one of resid_pre"),
            ({"shards": [[10, -3]]}, "a shard has no tokens"),
            ({"shards": []}, "it has no activations"),
            ({"shards": [[10**15]]}, "or a number of them that cannot be"),
            ({"shards": "all"}, "store.json: shards: input should be a valid"),
            ({"format_version": 2}, "please update"),
            ({"layer": None}, "store.json: layer"),
        ],
    )
    def test_of_the_layout(self, made: Path, change: dict[str, Any], said: str) -> None:
        layout = json.loads((made / STORE).read_text()) | change
        (made / STORE).write_text(json.dumps(layout))
        with pytest.raises(SaeFileError, match=said):
            ShardedActivations(made)

    def test_of_the_files(self, made: Path) -> None:
        path = made / shard_name(0)
        content, tensors = path.read_bytes(), load_file(path)
        damaged = {
            "it is damaged": content[:5000],
            "is damaged or cannot": b"\xff" * 8 + content[8:],
            "position is missing": {"values": tensors["values"]},
            r"position is I64": {"values": tensors["values"], "position": tensors["position"].long()},
            "a position of block 0 is negative": tensors | {"position": tensors["position"] - 1},
        }
        for said, given in damaged.items():
            if isinstance(given, bytes):
                path.write_bytes(given)
            else:
                save_file(given, path)
            with pytest.raises(SaeFileError, match=said):
                ShardedActivations(made).load(0)
        path.unlink()
        with pytest.raises(SaeFileError, match="the file is missing"):
            ShardedActivations(made)

    def test_numbers_that_are_not_finite(self, made: Path) -> None:
        path = made / shard_name(0)
        tensors = load_file(path)
        tensors["values"][3, 5] = torch.nan
        save_file(tensors, path)
        with pytest.raises(ValueError, match="not finite"):
            Trainer(ShardedActivations(made, buffer_tokens=10**6), config=TrainConfig(d_sae=8, k=2))

    def test_no_store(self, tmp_path: Path) -> None:
        with pytest.raises(SaeFileError, match="There is no store of activations in"):
            ShardedActivations(tmp_path / "nowhere")
        (tmp_path / STORE).write_text("[")
        with pytest.raises(SaeFileError, match=r"store\.json: the file: invalid JSON"):
            ShardedActivations(tmp_path)
