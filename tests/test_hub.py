"""sae_widget.activations.hub and sae_widget.activations.fetch: the cache, and downloads that end."""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from sae_widget.activations import hub
from sae_widget.activations.base import DamagedModelError, LoadCancelled, ModelLoadError
from sae_widget.activations.fetch import PINNED, describe
from sae_widget.activations.models import gpt2_is_cached, load_model
from tests.fake_hub import BROKEN, COMMIT, FakeHub, broken_network, fake_hub


@pytest.fixture
def online(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_gpt2_dir: Path) -> Any:
    """A hub on the loopback that has the model "somebody/tiny", and an empty cache."""
    with fake_hub() as server:
        for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
            monkeypatch.delenv(name, raising=False)
        for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_TOKEN_PATH"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("NO_PROXY", "*")
        server.repos["somebody/tiny"] = tiny_gpt2_dir
        yield server


def copy_of(folder: Path, target: Path) -> Path:
    return Path(shutil.copytree(folder, target))


def put_into_cache(folder: Path, repo: str, *, with_ref: bool = True) -> Path:
    """A cached copy of a model directory, as ``huggingface_hub`` lays it out."""
    stored = hub.cache_folder() / ("models--" + repo.replace("/", "--"))
    snapshot = stored / "snapshots" / COMMIT
    shutil.copytree(folder, snapshot)
    if with_ref:
        (stored / "refs").mkdir()
        (stored / "refs" / "main").write_text(COMMIT)
    return snapshot


def test_downloads_reads_and_then_needs_no_network(online: FakeHub) -> None:
    seen: list[tuple[int, int | None]] = []
    model = load_model("somebody/tiny", progress=lambda done, total: seen.append((done, total)))
    assert (model.name, model.n_layer, model.d_in) == ("somebody/tiny", 3, 32)
    assert all(total is None or done <= total for done, total in seen)
    fetched = {request.split("/")[-1] for request in online.requests if "resolve" in request}
    assert fetched <= {"config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"}
    before = len(online.requests)
    online.refusals["somebody/tiny"] = (503, "")
    assert load_model("somebody/tiny").network is model.network
    assert len(online.requests) == before


def test_gpt2_is_asked_for_by_its_commit(online: FakeHub, tiny_gpt2_dir: Path) -> None:
    online.repos["gpt2"] = tiny_gpt2_dir
    snapshot = hub.download("gpt2", cancel=threading.Event())
    assert snapshot.name == PINNED["gpt2"] and hub.cached_snapshot("gpt2") == snapshot
    fetched = [request for request in online.requests if "/resolve/" in request]
    assert len(fetched) >= 3 and all(f"/resolve/{PINNED['gpt2']}/" in request for request in fetched)
    assert f"GET /api/models/gpt2/revision/{PINNED['gpt2']}" in online.requests


def test_a_download_shows_its_progress(online: FakeHub, tmp_path: Path) -> None:
    online.bytes_per_second = 150_000
    seen: list[tuple[int, int | None]] = []
    load_model("somebody/tiny", progress=lambda done, total: seen.append((done, total)))
    known = [(done, total) for done, total in seen if total is not None]
    assert len({done for done, _ in known}) > 1
    total = known[-1][1]
    assert total is not None
    weights = (online.repos["somebody/tiny"] / "model.safetensors").stat().st_size
    assert weights <= total < 2 * weights


@pytest.mark.parametrize(
    ("status", "code", "words"),
    [
        (401, "", "private or does not exist (401)"),
        (401, "RepoNotFound", "There is no model"),
        (404, "", "There is no model"),
        (403, "GatedRepo", "is gated"),
        (429, "", "asked too often (429)"),
        (500, "", "fault of its own (500)"),
        (503, "", "fault of its own (503)"),
        (418, "", "refused"),
    ],
)
def test_each_refusal_has_its_sentence(online: FakeHub, status: int, code: str, words: str) -> None:
    online.refusals["somebody/tiny"] = (status, code)
    with pytest.raises(ModelLoadError) as caught:
        load_model("somebody/tiny")
    assert words in str(caught.value)


def test_unknown_model(online: FakeHub) -> None:
    with pytest.raises(ModelLoadError, match=r"There is no model 'nobody/nothing' on 127\.0\.0\.1"):
        load_model("nobody/nothing")


def test_gated_files_are_refused_in_words(online: FakeHub) -> None:
    online.file_refusals["somebody/tiny"] = (403, "GatedRepo")
    with pytest.raises(ModelLoadError, match="somebody/tiny is gated"):
        load_model("somebody/tiny")


def test_a_refused_sign_in_never_shows_the_token(online: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_CANARYCANARYCANARYCANARYCANARYCAN")
    online.refusals["somebody/tiny"] = (401, "")
    with pytest.raises(ModelLoadError) as caught:
        load_model("somebody/tiny")
    assert "CANARY" not in repr(caught.value)
    assert "sign in" in str(caught.value) or "private" in str(caught.value)


def test_a_stalled_download_ends_at_the_deadline(online: FakeHub) -> None:
    online.stall_after = 20_000
    started = time.monotonic()
    with pytest.raises(ModelLoadError, match="sent nothing for 2 seconds"):
        load_model("somebody/tiny", deadline=2)
    assert time.monotonic() - started < 30
    assert hub.cached_snapshot("somebody/tiny") is None


def test_cancel_ends_a_download_within_a_second(online: FakeHub) -> None:
    online.stall_after = 20_000
    cancel, ended = threading.Event(), []

    def load() -> None:
        with pytest.raises(LoadCancelled, match="Loading somebody/tiny was cancelled"):
            load_model("somebody/tiny", cancel=cancel)
        ended.append(time.monotonic())

    thread = threading.Thread(target=load)
    thread.start()
    end = time.monotonic() + 30
    while not any("model.safetensors" in request for request in online.requests) and time.monotonic() < end:
        time.sleep(0.05)
    pressed = time.monotonic()
    cancel.set()
    thread.join(10)
    assert ended and ended[0] - pressed < 1
    assert not [t for t in threading.enumerate() if t.name == "sae_widget-download"]


def test_a_pickle_is_refused_before_it_is_downloaded(online: FakeHub, tmp_path: Path, tiny_gpt2_dir: Path) -> None:
    folder = copy_of(tiny_gpt2_dir, tmp_path / "pickle")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    online.repos["somebody/pickle"] = folder
    with pytest.raises(ModelLoadError, match="only safetensors weights are loaded"):
        load_model("somebody/pickle")
    assert not any("pytorch_model.bin" in request for request in online.requests)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"auto_map": {"AutoModel": "evil.Model"}}, "brings its own code, which is never run"),
        ({"model_type": "llama"}, "Supported: gpt2"),
        ({"n_embd": 10**9}, "n_embd in config.json must be between"),
    ],
)
def test_a_config_is_refused_before_the_weights_come(
    online: FakeHub, tmp_path: Path, tiny_gpt2_dir: Path, change: dict[str, Any], words: str
) -> None:
    folder = copy_of(tiny_gpt2_dir, tmp_path / "hostile")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))
    online.repos["somebody/hostile"] = folder
    with pytest.raises(ModelLoadError) as caught:
        load_model("somebody/hostile")
    assert words in str(caught.value)
    assert not any("safetensors" in request for request in online.requests)


def test_a_model_without_tokenizer(online: FakeHub, tmp_path: Path, tiny_gpt2_dir: Path) -> None:
    folder = copy_of(tiny_gpt2_dir, tmp_path / "mute")
    (folder / "tokenizer.json").unlink()
    online.repos["somebody/mute"] = folder
    with pytest.raises(ModelLoadError, match="no tokenizer"):
        load_model("somebody/mute")


def test_a_full_disk_and_a_locked_cache_are_named() -> None:
    full = hub._fault("gpt2", {"fault": "disk", "errno": 28, "words": "No space left on device"})
    assert full.startswith("The disk is full: gpt2 does not fit into")
    locked = hub._fault("gpt2", {"fault": "disk", "errno": 13, "words": "Permission denied"})
    assert "permission denied" in locked and "Set HF_HOME" in locked
    assert "connection" in hub._fault("gpt2", {"fault": "network", "words": "ReadTimeout"})


def test_what_the_child_says_about_an_exception() -> None:
    assert describe(PermissionError(13, "Permission denied", "/cache/x"))["errno"] == 13
    assert describe(OSError(28, "No space left on device"))["fault"] == "disk"
    assert describe(ConnectionResetError(104, "reset hf_SECRET")) == {
        "fault": "network",
        "words": "ConnectionResetError",
    }
    outer = ValueError("outer")
    outer.__cause__ = FileNotFoundError(2, "No such file", "/cache/y")
    assert describe(outer)["fault"] == "disk"


def test_the_cache_cannot_be_written(online: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a-file").write_text("in the way")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "a-file" / "below"))
    with pytest.raises(ModelLoadError, match="cannot be written to"):
        load_model("somebody/tiny")


def test_offline_is_said_at_once(online: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ModelLoadError, match="HF_HUB_OFFLINE forbids"):
        load_model("somebody/tiny")
    assert not online.requests


def test_gpt2_is_found_under_both_its_names(online: FakeHub, tiny_gpt2_dir: Path) -> None:
    assert not gpt2_is_cached()
    put_into_cache(tiny_gpt2_dir, "openai-community/gpt2")
    assert gpt2_is_cached()
    assert load_model("gpt2").name == "gpt2"
    assert not online.requests


@pytest.mark.parametrize("kind", list(BROKEN))
def test_a_cached_copy_is_loaded_whatever_the_network(
    online: FakeHub, tiny_gpt2_dir: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """T19: within five seconds, and nobody is asked."""
    put_into_cache(tiny_gpt2_dir, "gpt2")
    with broken_network(kind) as url:
        monkeypatch.setenv("HF_ENDPOINT", url)
        monkeypatch.setattr(hub, "ask_hub", None)
        started = time.monotonic()
        assert load_model("gpt2").n_layer == 3
        assert time.monotonic() - started < 5


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors", "tokenizer.json"])
def test_an_incomplete_copy_is_not_a_copy(online: FakeHub, tiny_gpt2_dir: Path, missing: str) -> None:
    snapshot = put_into_cache(tiny_gpt2_dir, "gpt2", with_ref=False)
    assert gpt2_is_cached()
    (snapshot / missing).unlink()
    assert not gpt2_is_cached()


def test_shards_have_to_be_complete(online: FakeHub, tiny_gpt2_dir: Path) -> None:
    snapshot = put_into_cache(tiny_gpt2_dir, "gpt2")
    (snapshot / "model.safetensors").rename(snapshot / "model-00001-of-00002.safetensors")
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (snapshot / "model.safetensors.index.json").write_text(json.dumps(index))
    assert not gpt2_is_cached()
    (snapshot / "model-00002-of-00002.safetensors").write_bytes(b"")
    assert gpt2_is_cached()


def test_a_damaged_copy_says_what_to_delete(online: FakeHub, tiny_gpt2_dir: Path) -> None:
    snapshot = put_into_cache(tiny_gpt2_dir, "gpt2")
    weights = snapshot / "model.safetensors"
    os.truncate(weights, weights.stat().st_size // 2)
    with pytest.raises(DamagedModelError, match=r"The cached copy of gpt2 is damaged. Delete .*models--gpt2 and load"):
        load_model("gpt2")


@pytest.mark.parametrize("name", ["", "a b", "../x/y", "nul\0l", "a/b/c/d", "<script>", "x" * 300, "a--b", "-x"])
def test_names_that_are_no_names(name: str) -> None:
    with pytest.raises(ModelLoadError):
        load_model(name)


def test_known_sizes_are_names_of_the_hub() -> None:
    assert hub.KNOWN_SIZES["gpt2"] == 548_000_000
    assert all(hub.is_repo(name) for name in hub.KNOWN_SIZES)


def test_cache_folder_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    assert hub.cache_folder() == Path(constants.HF_HUB_CACHE)
    monkeypatch.delenv("HF_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert hub.cache_folder() == tmp_path / "huggingface" / "hub"
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "here"))
    assert hub.cache_folder() == tmp_path / "here"
