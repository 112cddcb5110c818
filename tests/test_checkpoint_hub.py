"""Published SAEs by release name: found, downloaded, read, and every refusal in a sentence. No network is needed."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from sae_widget.activations.base import LoadCancelled
from sae_widget.checkpoint import SaeFileError, load_release, save_sae
from sae_widget.checkpoint.releases import RELEASES
from tests.fake_hub import BROKEN, FakeHub, broken_network, fake_hub
from tests.sae_folders import CFG, WEIGHTS, an_sae, foreign, some_x

JB, JB_REPO = "gpt2-small-res-jb", "jbloom/GPT2-Small-SAEs-Reformatted"
TM, TM_REPO = "gpt2-small-mlp-tm", "tommmcgrath/gpt2-small-mlp-out-saes"
OLD = {"hook_point": "blocks.8.hook_resid_pre", "hook_point_layer": 8, "model_name": "gpt2-small", "metadata": None}


@pytest.fixture
def online(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A hub with one release in an old layout, and an empty cache."""
    with fake_hub() as server:
        for name in ("HF_HUB_CACHE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_TOKEN"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("NO_PROXY", "*")
        for repo, folder in {
            JB_REPO: "blocks.8.hook_resid_pre",
            TM_REPO: RELEASES[TM].folders["blocks.3.hook_mlp_out"],
        }.items():
            server.repos[repo] = tmp_path / repo
            (tmp_path / repo / folder).mkdir(parents=True)
            foreign(tmp_path / repo / folder, OLD)
            (tmp_path / repo / folder / "sparsity.safetensors").write_bytes(b"not needed")
            (tmp_path / repo / "README.md").write_text("words")
        yield server


def test_a_centred_release(online: FakeHub) -> None:
    seen: list[tuple[int, int | None]] = []
    sae = load_release(JB, "blocks.8.hook_resid_pre", d_in=6, progress=lambda done, total: seen.append((done, total)))
    x = some_x()
    mean = x.mean(1, keepdim=True)
    assert torch.allclose(sae(x), an_sae()(x - mean) + mean, atol=1e-6)
    assert torch.allclose(sae.encode(x), an_sae().encode(x - mean), atol=1e-6)
    assert sae.metadata | {"release": JB, "sae_id": "blocks.8.hook_resid_pre"} == sae.metadata
    assert [sae.metadata[key] for key in ("model_name", "layer", "hook_name")] == ["gpt2", 8, "resid_pre"]
    fetched = {request.rsplit("/", 1)[-1] for request in online.requests if "resolve" in request}
    assert fetched == {CFG, WEIGHTS}
    before = len(online.requests)
    online.refusals[JB_REPO] = (503, "")
    assert torch.equal(load_release(JB, "blocks.8.hook_resid_pre").W_enc, sae.W_enc)
    assert len(online.requests) == before  # what is in the cache is read without a connection


def test_a_factor_of_the_release(online: FakeHub) -> None:
    sae, x, c = load_release(TM, "blocks.3.hook_mlp_out"), some_x(), 1.8958522157897557
    mean = x.mean(1, keepdim=True)
    expected = an_sae()(c * (x - mean)) / c + mean
    assert torch.allclose(sae(x), expected, atol=1e-5)


def test_it_can_be_saved_and_read_again(online: FakeHub, tmp_path: Path) -> None:
    from sae_widget.checkpoint import load_sae

    sae, x = load_release(TM, "blocks.3.hook_mlp_out"), some_x()
    save_sae(sae, tmp_path / "mine")
    assert torch.allclose(load_sae(tmp_path / "mine")(x), sae(x), atol=1e-5)


def test_any_repository(online: FakeHub, tmp_path: Path) -> None:
    repo = tmp_path / "repo"
    save_sae(an_sae(2), repo / "a" / "b")
    save_sae(an_sae(3), repo)
    online.repos["some/body"] = repo
    assert torch.equal(load_release("some/body", "a/b").W_enc, an_sae(2).W_enc)
    assert torch.equal(load_release("some/body").W_enc, an_sae(3).W_enc)
    assert load_release("some/body").normalize_activations == "none"


@pytest.mark.parametrize(
    ("release", "sae_id", "said"),
    [
        ("gpt2-small-res-bj", "x", "There is no release 'gpt2-small-res-bj': did you mean 'gpt2-small-res-jb'?"),
        ("what", "x", "There is no release 'what': known are gpt2-small-res-jb, "),
        ("a/b/c", "x", "There is no release 'a/b/c'"),
        (JB, "blocks.12.hook_resid_pre", "has no SAE 'blocks.12.hook_resid_pre': did you mean 'blocks."),
        (JB, "", f"{JB} has no SAE '': it has blocks.0.hook_resid_pre, "),
        (
            "gpt2-small-hook-z-kk",
            "blocks.0.hook_z",
            "it reads the heads of the attention (hook_z) and is kept as a pickle",
        ),
        ("some/body", "../x", "'../x' is no folder of a repository"),
        ("some/body", "/etc", "'/etc' is no folder of a repository"),
        ("some/body", "a/../../b", "is no folder of a repository"),
        ("some/body", "a\0b", "is no folder of a repository"),
    ],
)
def test_names_that_are_refused_before_anything_is_asked(online: FakeHub, release: str, sae_id: str, said: str) -> None:
    with pytest.raises(SaeFileError, match=re.escape(said)):
        load_release(release, sae_id)
    assert not online.requests


def test_folders_that_have_no_sae(online: FakeHub, tmp_path: Path) -> None:
    for name, file in {"pickle": "sae.pt", "other": "notes.txt"}.items():
        (tmp_path / "repo" / name).mkdir(parents=True)
        (tmp_path / "repo" / name / file).write_bytes(b"x")
    online.repos["some/body"] = tmp_path / "repo"
    for folder, said in {
        "pickle": "some/body/pickle has its SAE only as a pickle, which can run code; it is not read",
        "other": "some/body/other has no SAE in a layout that is known; it has other/notes.txt",
        "none": "some/body has no folder 'none'; it has other, pickle",
    }.items():
        with pytest.raises(SaeFileError, match=re.escape(said)):
            load_release("some/body", folder)
    with pytest.raises(SaeFileError, match="There is no model 'no/body' on 127"):
        load_release("no/body", "x")


def test_a_damaged_file_is_told_as_one_of_a_folder(online: FakeHub) -> None:
    weights = online.repos[JB_REPO] / "blocks.8.hook_resid_pre" / WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-4])
    with pytest.raises(SaeFileError, match=f"{WEIGHTS}: .*Nothing was loaded, and what you have is unchanged"):
        load_release(JB, "blocks.8.hook_resid_pre")


@pytest.mark.parametrize("kind", list(BROKEN))
def test_a_hub_that_cannot_be_reached_is_said_fast(online: FakeHub, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with broken_network(kind) as url:
        monkeypatch.setenv("HF_ENDPOINT", url)
        started = time.monotonic()
        with pytest.raises(SaeFileError, match=r"Cannot reach .* Try again when the network is back") as caught:
            load_release(JB, "blocks.8.hook_resid_pre")
        assert time.monotonic() - started < 5
    assert "bundled" not in str(caught.value)


def test_cancel_and_deadline(online: FakeHub) -> None:
    cancel = threading.Event()
    cancel.set()
    with pytest.raises(LoadCancelled):
        load_release(JB, "blocks.8.hook_resid_pre", cancel=cancel)
    online.stall_after = 0
    with pytest.raises(SaeFileError, match="sent nothing for 1 seconds"):
        load_release(JB, "blocks.8.hook_resid_pre", deadline=1)


def test_the_list_is_whole() -> None:
    assert len(RELEASES) == 18
    assert all(release.repo.count("/") == 1 and release.folders for release in RELEASES.values())
    assert [name for name, release in RELEASES.items() if release.centred] == [JB, f"{JB}-feature-splitting", TM]
