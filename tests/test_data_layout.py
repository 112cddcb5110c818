"""sae_widget.data.layout: ``store.json`` as it is written, and as strangers write it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sae_widget.checkpoint import SaeFileError
from sae_widget.data import layout
from sae_widget.data.layout import FORMAT_VERSION, STORE, StoreConfig, into_place, read_layout, shard_name, write_layout

TOLD: dict[str, Any] = {
    "model_name": "gpt2",
    "layer": 3,
    "hook_name": "mlp_out",
    "prepend_bos": True,
    "corpus": "café",
    "digest": "0123",
    "dtype": "bfloat16",
    "d_in": 12,
    "max_tokens": 5000,
}


def stored(folder: Path, **changes: Any) -> Path:
    (folder / STORE).write_text(json.dumps(TOLD | changes))
    return folder


def refusal_of(folder: Path) -> str:
    with pytest.raises(SaeFileError) as told:
        read_layout(folder)
    assert str(told.value).isprintable() and "Nothing was loaded" in str(told.value)
    return str(told.value)


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    config = StoreConfig(**TOLD, made_by="0.1", texts_read=8, complete=True, shards=[[500, 1], [7]])
    write_layout(tmp_path, config)
    assert read_layout(tmp_path) == config and config.n_tokens == 508
    assert [path.name for path in tmp_path.iterdir()] == [STORE]


def test_what_a_short_file_leaves_out_is_a_beginning(tmp_path: Path) -> None:
    config = read_layout(stored(tmp_path, of_others={"a": [1]}))
    assert config is not None and (config.format_version, config.texts_read) == (FORMAT_VERSION, 0)
    assert (config.complete, config.shards, config.n_tokens) == (False, [], 0)


def test_where_there_is_none_there_is_none(tmp_path: Path) -> None:
    assert read_layout(tmp_path) is None and read_layout(tmp_path / "nowhere") is None
    (tmp_path / "file").write_text("x")
    assert read_layout(tmp_path / "file") is None


def test_a_store_is_the_same_however_far_it_is_written(tmp_path: Path) -> None:
    config = StoreConfig(**TOLD)
    further = {"made_by": "9", "texts_read": 4, "complete": True, "shards": [[3]], "corpus": "another name"}
    assert config.same_as(StoreConfig(**TOLD | further))
    for name, value in (
        ("model_name", "gpt2-medium"), ("layer", 4), ("hook_name", "attn_out"), ("prepend_bos", False),
        ("digest", "0124"), ("dtype", "float32"), ("d_in", 13), ("max_tokens", 5001),
    ):  # fmt: skip
        assert not config.same_as(StoreConfig(**TOLD | {name: value})), name


def test_a_store_is_told_in_words() -> None:
    assert str(StoreConfig(**TOLD)) == "mlp_out of layer 3 of gpt2 over 5,000 tokens of café in bfloat16"
    assert "5,000 tokens of some texts in bfloat16" in str(StoreConfig(**TOLD | {"corpus": ""}))
    odd = str(StoreConfig(**TOLD | {"corpus": "x" * 999 + "\x1b[31m", "model_name": "\n" * 999}))
    assert odd.isprintable() and len(odd) < 600


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"layer": True}, "store.json: layer: input should be a valid integer"),
        ({"layer": -1}, "store.json: layer: input should be greater than or equal to 0"),
        ({"prepend_bos": 1}, "store.json: prepend_bos: input should be a valid boolean"),
        ({"max_tokens": 0}, "store.json: max_tokens: input should be greater than or equal to 1"),
        ({"format_version": 0}, "store.json: format_version: input should be greater than or equal to 1"),
        ({"shards": [[1], []]}, "store.json: a shard has no tokens"),
        ({"shards": [[1], [10**12, 1]]}, "or a number of them that cannot be"),
        ({"shards": [[1.5]]}, "store.json: shards.0.0: input should be a valid integer"),
        ({"dtype": "x\n" * 99}, "store.json: dtype 'x\\nx"),
        ({"hook_name": "final_norm "}, "store.json: hook_name 'final_norm ' is not one of resid_pre"),
        ({"format_version": FORMAT_VERSION + 1, "made_by": "\x1b[31m9\n9"}, "made by sae_widget ?[31m9?9; please"),
        ({"format_version": FORMAT_VERSION + 1, "made_by": "9" * 99}, f"made by sae_widget {'9' * 40}; please update"),
    ],
)
def test_the_first_thing_that_is_wrong_is_told(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    assert said in refusal_of(stored(tmp_path, **changes))


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff", b"[" * 200_000, b'{"d_in": 1e999}'])
def test_what_is_no_json_object_is_told_in_one_sentence(content: bytes, tmp_path: Path) -> None:
    (tmp_path / STORE).write_bytes(content)
    assert refusal_of(tmp_path).startswith("store.json: ")


def test_a_file_that_cannot_be_read_or_is_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = (stored(tmp_path) / STORE).stat().st_size
    monkeypatch.setattr(layout, "MAX_BYTES", size)
    assert read_layout(tmp_path) is not None
    monkeypatch.setattr(layout, "MAX_BYTES", size - 1)
    assert f"store.json: it has more than {size - 1:,} bytes" in refusal_of(tmp_path)
    (tmp_path / "other" / STORE).mkdir(parents=True)
    assert f"{tmp_path / 'other' / STORE}: is a directory" in refusal_of(tmp_path / "other")


def test_a_file_is_put_in_place_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / shard_name(12)
    assert path.name == "activations-000012.safetensors"
    into_place(path, b"first")
    with pytest.raises(TypeError):
        into_place(path, "no bytes")  # type: ignore[arg-type]
    assert path.read_bytes() == b"first"
    into_place(path, b"second")  # over what a writer left that was killed
    assert path.read_bytes() == b"second" and list(tmp_path.iterdir()) == [path]
    with pytest.raises(FileNotFoundError):
        into_place(tmp_path / "nowhere" / "x", b"")
