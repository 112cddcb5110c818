"""What every test stands on: no network, a folder of its own, one thread, and nothing global left changed."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# On a shared machine a second is no measure of anything: no test fails for being slow, hangs end by their timeout.
settings.register_profile("shared machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared machine")

# Before any library reads them. Two tests run at a time on two cores: more threads would only wait.
_HOME = Path(tempfile.mkdtemp(prefix="sae-widget-tests-"))
atexit.register(shutil.rmtree, _HOME, ignore_errors=True)
os.environ |= {
    "SAE_WIDGET_HOME": str(_HOME / "home"),
    "HF_HOME": str(_HOME / "huggingface"),
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "OMP_NUM_THREADS": "1",
}

# Their first import may set environment variables and warning filters; that is not the test's doing.
_LIBRARIES = ("torch", "transformers", "ipywidgets", "bqplot", "anywidget", "matplotlib", "playwright")
_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


def _globals() -> dict[str, Any]:
    """Everything that belongs to the person's process and not to us; torch's part when it is loaded."""
    found: dict[str, Any] = {
        "working directory": os.getcwd(),  # noqa: PTH109  (Path.cwd() would build a Path for each test)
        "environment": {k: v for k, v in os.environ.items() if k != "PYTEST_CURRENT_TEST"},
        "warning filters": list(warnings.filters),
        "signal handlers": [signal.getsignal(number) for number in _SIGNALS],
    }
    torch = sys.modules.get("torch")
    if torch is not None:
        found |= {
            "torch random state": torch.random.get_rng_state().numpy().tobytes(),
            "torch grad mode": torch.is_grad_enabled(),
            "torch default dtype": torch.get_default_dtype(),
            "torch threads": torch.get_num_threads(),
            "torch deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
        }
    return found


@pytest.fixture(autouse=True)
def globals_untouched() -> Iterator[None]:
    """No test, and so nothing that it calls, may leave a global of the process changed (T27)."""
    loaded = {name for name in _LIBRARIES if name in sys.modules}
    before = _globals()
    yield
    after = _globals()
    ignored = {"torch random state"} if "torch" not in loaded else set()
    if any(name in sys.modules and name not in loaded for name in _LIBRARIES):
        ignored |= {"environment", "warning filters"}
    changed = [name for name, value in before.items() if name not in ignored and after[name] != value]
    details = "; ".join(f"{name}: {_difference(before[name], after[name])}" for name in changed)
    assert not changed, f"left changed: {details}"


def _difference(before: Any, after: Any) -> str:
    if isinstance(before, dict):
        keys = sorted(k for k in before.keys() | after.keys() if before.get(k) != after.get(k))
        return ", ".join(f"{k}={after.get(k)!r}" for k in keys)
    if isinstance(before, list):
        return f"added {[x for x in after if x not in before]}, lost {[x for x in before if x not in after]}"
    return "other bytes" if isinstance(before, bytes) else f"was {before!r}, is {after!r}"


@pytest.fixture
def sae_widget_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder for autosaves that only this test sees."""
    home = tmp_path / "sae-widget-home"
    monkeypatch.setenv("SAE_WIDGET_HOME", str(home))
    return home


@pytest.fixture(scope="session")
def tiny_gpt2_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random GPT-2 in the hub's layout: 3 blocks, width 32, 64 positions, one token a byte.

    Its token ids are the places in GPT-2's byte alphabet; 256 is ``<|endoftext|>``.
    """
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    folder = tmp_path_factory.mktemp("tiny-gpt2")
    _byte_tokenizer().save_pretrained(folder)
    shape = {"vocab_size": 257, "n_positions": 64, "n_embd": 32, "n_layer": 3, "n_head": 4}
    with torch.random.fork_rng():
        torch.manual_seed(7)
        model = GPT2LMHeadModel(GPT2Config(**shape, bos_token_id=256, eos_token_id=256))
    model.eval().save_pretrained(folder)
    return folder


def _byte_tokenizer() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={char: i for i, char in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    end = "<|endoftext|>"
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=end, eos_token=end, unk_token=end)


@pytest.fixture(scope="session")
def tiny_gpt2(tiny_gpt2_dir: Path) -> Any:
    """The tiny GPT-2 as a ``LanguageModel``."""
    from sae_widget.activations.models import load_model

    return load_model(str(tiny_gpt2_dir))


@pytest.fixture
def start(tiny_gpt2_dir: Path, sae_widget_home: Path) -> Iterator[Any]:
    """A function that makes a running state with its runner; everything is closed afterwards."""
    from sae_widget.runner import Runner
    from sae_widget.state import ExplorerState
    from tests.running import QUICK, TEXT

    made: list[Runner] = []

    def _start(**inputs: Any) -> tuple[ExplorerState, Runner]:
        given = {"model": str(tiny_gpt2_dir), "text": TEXT, "layer": 2, "corpus_tokens": 1500, "settings": QUICK}
        state = ExplorerState(**given | inputs)
        runner = Runner(state)
        made.append(runner)
        runner.start()
        assert runner.wait(60)
        return state, runner

    yield _start
    for runner in made:
        runner.close()


@pytest.fixture
def state() -> Iterator[Any]:
    """An empty state; what its views share is closed afterwards."""
    from sae_widget.state import ExplorerState
    from sae_widget.views.selection import selection_for

    made = ExplorerState()
    yield made
    selection_for(made).close()


@pytest.fixture
def state_with_features(state: Any) -> Any:
    """``state`` with the features made by hand."""
    from tests.hand_made import features

    state.features = features()
    return state


@pytest.fixture
def ready_state() -> Iterator[Any]:
    """The state of an explorer that is ready, for a view by itself."""
    from sae_widget.state import ExplorerState, Status
    from sae_widget.views.selection import selection_for
    from tests.hand_made import language_model

    made = ExplorerState(language_model=language_model(), status=Status("ready", "Ready"))
    yield made
    selection_for(made).close()


@pytest.fixture
def form(ready_state: Any) -> Iterator[Any]:
    """The form over that state."""
    from sae_widget.views.controls import Controls

    made = Controls(ready_state)
    yield made
    made.close()
