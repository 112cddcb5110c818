"""sae_widget.activations.fetch: the downloading program, alone, over a hub on the loopback."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from sae_widget.activations.fetch import describe
from tests.fake_hub import FakeHub, fake_hub

CHILD = """
import json, sys
from sae_widget.activations.fetch import main
*asked, stalled = json.loads(sys.argv[1])
for one in asked:
    main(*one)
print(json.dumps({"torch": "torch" in sys.modules}), flush=True)
main(*stalled)
"""
CONFIG = {"model_type": "gpt2", "n_embd": 8, "n_layer": 1, "n_head": 2, "vocab_size": 9}
INDEX = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
SHARDED = {
    "config.json": json.dumps(CONFIG),
    "model.safetensors.index.json": json.dumps(INDEX),
    "model-1.safetensors": "one",
    "model-2.safetensors": "three",
    "merges.txt": "",
    "vocab.json": "{}",
}
REPOS = {
    "some/sharded": SHARDED | {"pytorch_model.bin": "a pickle", "README.md": "words", "onnx/config.json": "{}"},
    "some/torn": {name: text for name, text in SHARDED.items() if name != "model-2.safetensors"},
    "some/words": {"README.md": "words", "model.safetensors": "x"},
    "some/saes": {f"{n}/{name}": n * 7 for n in "abcdefghij" for name in ("cfg.json", "notes.md")}
    | {"sae.safetensors": "12345", "cfg.json": "{}"},
    "some/slow": {"config.json": json.dumps(CONFIG), "tokenizer.json": "{}", "model.safetensors": "x" * 5000},
}
LAYOUTS = json.dumps([["cfg.json", "sae_weights.safetensors"], ["cfg.json", "sae.safetensors"], ["cfg.json"]])
ASKED = {
    "sharded": ("some/sharded",),
    "torn": ("some/torn",),
    "words": ("some/words",),
    "second layout": ("some/saes", "", LAYOUTS),
    "third layout": ("some/saes", "b", LAYOUTS),
    "no layout": ("some/saes", "b", '[["ae.pt"]]'),
    "no folder": ("some/saes", "z", LAYOUTS),
    "no folders": ("some/torn", "z", LAYOUTS),
}


class Fetched(NamedTuple):
    """What the child reported of each, whether it had torch, and how it ended."""

    told: dict[str, list[dict[str, Any]]]
    torch: bool
    end: tuple[list[dict[str, Any]], str, int]
    requests: list[str]


@pytest.fixture(scope="module")
def fetched(tmp_path_factory: pytest.TempPathFactory) -> Fetched:
    """One child that fetches all of ``ASKED``, and whose input is closed while a last download stalls."""
    folder = tmp_path_factory.mktemp("hub")
    with fake_hub() as hub:
        for repo, files in REPOS.items():
            hub.repos[repo] = folder / repo
            for name, text in files.items():
                (folder / repo / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / repo / name).write_text(text)
        hub.stall_after = 1000
        return _run(hub, folder / "cache")


def _run(hub: FakeHub, cache: Path) -> Fetched:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    environment |= {"HF_ENDPOINT": hub.url, "HF_HOME": str(cache), "NO_PROXY": "*", "HF_HUB_DISABLE_XET": "1"}
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, json.dumps([*ASKED.values(), ("some/slow",)])],
        env=environment | {"HF_HUB_DISABLE_PROGRESS_BARS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with child:
        assert child.stdin is not None and child.stdout is not None
        told: dict[str, list[dict[str, Any]]] = {name: [] for name in ASKED}
        for lines in told.values():
            while not lines or "total" in lines[-1]:
                lines.append(json.loads(child.stdout.readline()))
        torch = json.loads(child.stdout.readline())["torch"]
        last = [json.loads(child.stdout.readline())]
        child.stdin.close()
        return Fetched(told, torch, (last, child.stdout.read(), child.wait()), list(hub.requests))


def files_of(lines: list[dict[str, Any]]) -> dict[str, int]:
    """Name and size of what lies in the folder that was reported."""
    snapshot = Path(lines[-1]["snapshot"])
    return {path.name: path.stat().st_size for path in snapshot.iterdir() if path.is_file()}


def test_a_model_in_shards_comes_whole_and_alone(fetched: Fetched) -> None:
    lines = fetched.told["sharded"]
    assert files_of(lines) == {name: len(text) for name, text in SHARDED.items()}
    assert lines[0] == {"total": sum(map(len, SHARDED.values()))} and len(lines) == 2
    assert not [asked for asked in fetched.requests if asked.endswith((".bin", "README.md", "onnx/config.json"))]


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ("torn", "some/torn has no complete safetensors weights. Nothing was loaded."),
        ("words", "some/words has no config.json, so it is not a language model. Nothing was loaded."),
        ("no layout", "some/saes/b has no SAE in a layout that is known; it has b/cfg.json, b/notes.md. Nothing"),
        ("no folder", "some/saes has no folder 'z'; it has a, b, c, d, e, f, g, h and 2 more. Nothing was loaded."),
        ("no folders", "some/torn has no folder 'z'; it has no folders. Nothing was loaded."),
    ],
)
def test_what_cannot_be_had_is_refused_before_it_comes(asked: str, sentence: str, fetched: Fetched) -> None:
    (line,) = fetched.told[asked]
    assert line["fault"] == "refused" and line["sentence"].startswith(sentence)


def test_the_first_layout_that_is_whole_is_taken(fetched: Fetched) -> None:
    assert fetched.told["second layout"][0] == {"total": len("{}" + "12345")}
    assert files_of(fetched.told["second layout"]) == {"cfg.json": 2, "sae.safetensors": 5}
    assert fetched.told["third layout"][0] == {"total": 7}
    assert files_of(fetched.told["third layout"]) == {"cfg.json": 7}


def test_it_never_imports_torch(fetched: Fetched) -> None:
    assert fetched.torch is False


def test_it_ends_when_its_input_is_closed(fetched: Fetched) -> None:
    lines, rest, status = fetched.end
    assert list(lines[0]) == ["total"] and (rest, status) == ("", 1)


def test_it_ends_well_while_its_input_is_open() -> None:
    code = "import sae_widget.activations.fetch as f; f._fetch = lambda repo: repo; f.main('x')"
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stderr is not None and process.stdin is not None
    with process:
        assert json.loads(process.stdout.read()) == {"snapshot": "x"}
        assert (process.wait(60), process.stderr.read()) == (0, "")
        process.stdin.close()


class Answered(Exception):
    """As the libraries of the hub raise it."""

    def __init__(self, status: int, **headers: str) -> None:
        super().__init__("Bearer hf_SECRET")
        self.response = type("Response", (), {"status_code": status, "headers": headers})


def caused_by(cause: BaseException | None, context: BaseException | None = None) -> BaseException:
    error = ValueError("hf_SECRET")
    error.__cause__, error.__context__ = cause, context
    return error


HTTP = {"fault": "http", "status": 403, "code": "GatedRepo"}


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (Answered(403, **{"X-Error-Code": "GatedRepo"}), HTTP),
        (caused_by(None, caused_by(Answered(403, **{"X-Error-Code": "GatedRepo"}))), HTTP),
        (caused_by(Answered(500), OSError(28, "No space")), {"fault": "http", "status": 500, "code": ""}),
        (PermissionError(13, "Not allowed", "/hf_SECRET"), {"fault": "disk", "errno": 13, "words": "Not allowed"}),
        (caused_by(None, OSError(28, "No space left")), {"fault": "disk", "errno": 28, "words": "No space left"}),
        (OSError(errno.EDQUOT, "Quota"), {"fault": "disk", "errno": errno.EDQUOT, "words": "Quota"}),
        (OSError("timed out: hf_SECRET"), {"fault": "network", "words": "OSError"}),
        (caused_by(TimeoutError(110, "hf_SECRET")), {"fault": "network", "words": "ValueError"}),
    ],
)
def test_an_exception_is_described_by_its_first_cause_that_is_known(error: BaseException, said: dict[str, Any]) -> None:
    assert describe(error) == said
