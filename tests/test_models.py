"""sae_widget.activations.models and sae_widget.activations.build: a directory is a model, or a sentence."""

from __future__ import annotations

import gc
import json
import os
import shutil
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from sae_widget.activations import models
from sae_widget.activations.base import DamagedModelError, LoadCancelled, ModelLoadError
from sae_widget.activations.build import language_model
from sae_widget.activations.extract import get_activations
from sae_widget.activations.models import load_model

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def folder(tiny_gpt2_dir: Path, tmp_path: Path) -> Path:
    """A copy of the tiny GPT-2 that a test may spoil."""
    return Path(shutil.copytree(tiny_gpt2_dir, tmp_path / "my-model"))


def change_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def refusal_of(name: Any) -> str:
    with pytest.raises(ModelLoadError) as caught:
        load_model(name)
    sentence = str(caught.value)
    assert sentence.endswith(".") and "Traceback" not in sentence and "\n" not in sentence
    return sentence


def test_blocks_are_known_from_the_config_alone(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "model.safetensors").unlink()
    assert models.known_blocks(str(folder)) == 3
    assert models.known_blocks("bundled") == 6
    monkeypatch.setattr(models.hub, "cached_snapshot", lambda repo: folder if repo == "gpt2" else None)
    assert models.known_blocks("auto") == models.known_blocks("gpt2") == 3
    for name in ("gpt2-xl", "", "no/such/model", "\0", "~nobody-of-this-name/x", str(tmp_path / "missing")):
        assert models.known_blocks(name) is None
    change_json(folder / "config.json", n_layer="many")
    assert models.known_blocks(str(folder)) is None


def test_an_empty_name_is_not_the_working_directory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    for name in ("", "  "):
        assert "is neither 'bundled', nor a directory, nor a name on the hub" in refusal_of(name)


def test_a_directory_is_a_model(folder: Path) -> None:
    model = load_model(folder)
    assert (model.name, model.label) == (str(folder), "my-model")
    assert (model.n_layer, model.d_in, model.n_positions, model.vocab_size, model.bos_id) == (
        3,
        32,
        64,
        257,
        256,
    )
    assert model.device == "cpu"
    assert repr(model) == f"LanguageModel({str(folder)!r}, 3 blocks, d_in=32, vocab_size=257)"
    assert not model.network.training
    assert not any(parameter.requires_grad for parameter in model.network.parameters())


def test_the_same_files_are_loaded_once(folder: Path) -> None:
    first = load_model(folder)
    assert load_model(str(folder)) is first
    assert load_model(f"{folder}/.").network is first.network
    found: list[Any] = []
    threads = [threading.Thread(target=lambda: found.append(load_model(folder))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(model.network is first.network for model in found)
    kept = weakref.ref(first.network)
    found.clear()
    del first, threads, thread
    gc.collect()
    assert kept() is None


def test_changed_files_are_read_again(folder: Path) -> None:
    first = load_model(folder)
    os.utime(folder / "model.safetensors", ns=(1, 1))
    assert load_model(folder).network is not first.network


def test_half_precision_weights_become_float32(folder: Path) -> None:
    from transformers import GPT2LMHeadModel

    GPT2LMHeadModel.from_pretrained(folder).half().save_pretrained(folder)
    model = load_model(folder)
    assert {parameter.dtype for parameter in model.network.parameters()} == {torch.float32}


def test_sharded_weights(folder: Path, tiny_gpt2: Any) -> None:
    (folder / "model.safetensors").unlink()
    tiny_gpt2.network.save_pretrained(folder, max_shard_size="60KB")
    assert (folder / "model.safetensors.index.json").is_file()
    read = get_activations(load_model(folder), "abc", 2).values
    torch.testing.assert_close(read, get_activations(tiny_gpt2, "abc", 2).values)
    next(folder.glob("model-00002*")).unlink()
    assert "is incomplete: model-00002" in refusal_of(folder)


def test_vocabulary_and_merges_without_tokenizer_json(folder: Path) -> None:
    from tokenizers import pre_tokenizers

    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").unlink()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {char: i for i, char in enumerate(alphabet)} | {"<|endoftext|>": 256}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    assert get_activations(load_model(folder), "a b", 0).labels == ("a", "·", "b")


def test_a_start_token_that_only_the_config_knows(folder: Path) -> None:
    change_json(folder / "tokenizer_config.json", bos_token=None, eos_token=None, unk_token=None)
    model = load_model(folder)
    assert model.bos_id == 256 and model.tokenizer.bos_token == "<|endoftext|>"


def test_gpt_neox(folder: Path) -> None:
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    shape = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 40}
    with torch.random.fork_rng():
        config = GPTNeoXConfig(vocab_size=320, max_position_embeddings=48, **shape)
        GPTNeoXForCausalLM(config).save_pretrained(folder)
    model = load_model(folder)
    assert (model.n_layer, model.d_in, model.n_positions, model.bos_id) == (2, 24, 48, 256)
    read = get_activations(model, "hello", 1)
    with torch.no_grad():
        expected = model.network(read.token_ids[None], output_hidden_states=True).hidden_states[1][0]
    torch.testing.assert_close(read.values, expected, atol=1e-5, rtol=1e-5)


SPOILED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "own code": (
        lambda f: change_json(f / "config.json", auto_map={"AutoModel": "evil.Model"}),
        "brings its own code, which is never run",
    ),
    "own tokenizer code": (
        lambda f: change_json(f / "tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.T", None]}),
        "brings its own tokenizer code",
    ),
    "only a pickle": (
        lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"),
        "only safetensors weights are loaded",
    ),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "has no weights"),
    "no config": (lambda f: (f / "config.json").unlink(), "is not a model directory"),
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), "has no tokenizer"),
    "truncated weights": (lambda f: os.truncate(f / "model.safetensors", 9000), "damaged or incomplete"),
    "empty weights": (lambda f: (f / "model.safetensors").write_bytes(b""), "damaged or incomplete"),
    "weights that are text": (
        lambda f: (f / "model.safetensors").write_text("x" * 99),
        "damaged or incomplete",
    ),
    "config that is no JSON": (lambda f: (f / "config.json").write_text("{"), "cannot be read"),
    "config that is a list": (lambda f: (f / "config.json").write_text("[]"), "not a JSON object"),
    "damaged tokenizer": (lambda f: (f / "tokenizer.json").write_text("{}"), "its tokenizer is damaged"),
    "more layers than weights": (
        lambda f: change_json(f / "config.json", n_layer=4),
        "of its weights are missing",
    ),
    "fewer layers than weights": (lambda f: change_json(f / "config.json", n_layer=2), "are left over"),
    "another width": (
        lambda f: change_json(f / "config.json", n_embd=36),
        "the weights do not fit config.json",
    ),
    "unknown family": (lambda f: change_json(f / "config.json", model_type="bert"), "of type 'bert'"),
    "far too large": (lambda f: change_json(f / "config.json", n_embd=4096), "do not belong together"),
    "unknown activation": (
        lambda f: change_json(f / "config.json", activation_function="os.system"),
        "do not fit",
    ),
}


@pytest.mark.parametrize("kind", list(SPOILED))
def test_a_spoiled_directory_is_refused_in_words(folder: Path, kind: str) -> None:
    spoil, words = SPOILED[kind]
    spoil(folder)
    assert words in refusal_of(folder)


def test_a_config_of_another_family_is_refused(folder: Path) -> None:
    shape = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 128}
    change_json(folder / "config.json", model_type="gpt_neox", max_position_embeddings=64, **shape)
    assert "of its weights are missing" in refusal_of(folder)


def test_a_pickle_is_never_opened(folder: Path) -> None:
    """F50: the file would leave a mark if anything unpickled it."""
    mark = folder / "ran"
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(f"cos\nsystem\n(S'touch {mark}'\ntR.".encode())
    refusal_of(folder)
    assert not mark.exists()


def test_a_tokenizer_of_another_model(folder: Path, tiny_gpt2: Any) -> None:
    from tokenizers import pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel

    vocabulary = {char: i for i, char in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    assert len(vocabulary) == 256
    shape = {"n_positions": 64, "n_embd": 32, "n_layer": 1, "n_head": 4}
    with torch.random.fork_rng():
        for vocab_size in (200, 5000):
            GPT2LMHeadModel(GPT2Config(vocab_size=vocab_size, **shape)).save_pretrained(folder)
            assert "the tokenizer knows 257 tokens" in refusal_of(folder)


@pytest.mark.parametrize("value", [None, 3, b"gpt2", ["gpt2"]])
def test_wrong_types(value: Any) -> None:
    with pytest.raises(TypeError, match="name_or_path must be a string or a path"):
        load_model(value)


def test_paths_that_lead_nowhere(tmp_path: Path) -> None:
    assert "There is no directory" in refusal_of(tmp_path / "missing")
    assert "There is no directory" in refusal_of("./missing")
    (tmp_path / "file.safetensors").write_text("x")
    assert "is a file; give the directory" in refusal_of(tmp_path / "file.safetensors")
    assert "not a model directory" in refusal_of(tmp_path)


def test_a_name_is_not_taken_for_any_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gpt2").mkdir()
    monkeypatch.chdir(tmp_path)
    assert "HF_HUB_OFFLINE" in refusal_of("gpt2")


def test_cancelled_before_and_during_building(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cancel = threading.Event()
    cancel.set()
    with pytest.raises(LoadCancelled):
        load_model(folder, cancel=cancel)
    cancel.clear()
    release = threading.Event()

    def slow(*arguments: Any, **settings: Any) -> None:
        release.wait(20)
        raise ModelLoadError("late.")

    monkeypatch.setattr(models, "build_model", slow)
    threading.Timer(0.3, cancel.set).start()
    started = time.monotonic()
    with pytest.raises(LoadCancelled, match="What was loaded before is kept"):
        load_model(folder, cancel=cancel)
    assert time.monotonic() - started < 1.3
    release.set()


def test_the_bundled_model(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "package"
    monkeypatch.setattr(models.importlib.resources, "files", lambda name: package)
    assert "bundled model is missing" in refusal_of("bundled")
    shutil.copytree(folder, package / "bundled" / "model")
    model = load_model("bundled")
    assert (model.name, model.label) == ("bundled", "the bundled model")


def test_wrapping_a_model_in_memory(tiny_gpt2: Any) -> None:
    wrapped = language_model(tiny_gpt2.network, tiny_gpt2.tokenizer, "mine")
    assert (wrapped.name, wrapped.label, wrapped.d_in) == ("mine", "mine", 32)
    assert language_model(tiny_gpt2.network, tiny_gpt2.tokenizer, "mine", "My model").label == "My model"
    with pytest.raises(ModelLoadError, match="type ReLU cannot be read"):
        language_model(torch.nn.ReLU(), tiny_gpt2.tokenizer, "mine")


AUDIT = """
import os, sys
os.environ.pop("HF_HUB_OFFLINE", None)
seen = []
def listen(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"):
        seen.append((event, arguments))
sys.addaudithook(listen)
from sae_widget.activations import models
from sae_widget.activations.extract import get_activations
read = get_activations(models.load_model("bundled"), "It was the best of times.", 1)
models.load_model(sys.argv[1])
models.gpt2_is_cached()
assert read.n_tokens > 5
print("connections:", seen)
"""


def test_bundled_and_local_models_open_no_connection(tiny_gpt2_dir: Path) -> None:
    """T18, S6: counted by an audit hook in a process of its own, with the offline switch off."""
    command = [sys.executable, "-c", AUDIT, str(tiny_gpt2_dir)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert done.stdout.strip() == "connections: []", done.stderr[-2000:]
    assert done.stderr == "", "loading printed something"


def test_a_damaged_directory_is_not_called_a_cached_copy(folder: Path) -> None:
    os.truncate(folder / "model.safetensors", 9000)
    with pytest.raises(DamagedModelError) as caught:
        load_model(folder)
    assert "cached copy" not in str(caught.value)
