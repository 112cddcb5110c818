"""Loading a model behind the explorer: result, sentence, Cancel."""

import threading

import pytest

from sae_widget.activations.base import ModelLoadError
from sae_widget.runner import loading
from sae_widget.runner.loading import ModelLoading


def finished(name):
    ended = threading.Event()
    attempt = ModelLoading(name, ended.set)
    attempt.start()
    assert ended.wait(60)
    while not attempt.done:
        assert ended.wait(60)
    return attempt


def test_a_directory_is_loaded(tiny_gpt2_dir):
    attempt = finished(str(tiny_gpt2_dir))
    assert attempt.model.n_layer == 3
    assert attempt.fault == ""
    assert attempt.remote


def test_a_missing_directory_is_a_sentence(tmp_path):
    attempt = finished(str(tmp_path / "no-such-model"))
    assert attempt.model is None
    assert "no-such-model" in attempt.fault
    assert "Traceback" not in attempt.fault


@pytest.mark.parametrize(("cached", "wanted"), [(True, "gpt2"), (False, "bundled")])
def test_auto_takes_gpt2_only_when_it_is_here(monkeypatch, cached, wanted):
    asked = []
    monkeypatch.setattr(loading, "gpt2_is_cached", lambda: cached)
    monkeypatch.setattr(loading, "load_model", lambda name, **_: asked.append(name))
    attempt = finished("auto")
    assert asked == [wanted]
    assert not attempt.remote


def test_whatever_a_library_raises_becomes_a_sentence(monkeypatch):
    def broken(_name, **_):
        raise ZeroDivisionError("odd")

    monkeypatch.setattr(loading, "load_model", broken)
    assert finished("gpt2").fault == "gpt2 could not be loaded (ZeroDivisionError: odd)."


def test_progress_and_cancel_reach_the_loader(monkeypatch):
    seen = {}

    def slow(_name, *, progress, cancel):
        progress(100_000_000, 548_000_000)
        seen["cancelled"] = cancel.wait(20)
        raise ModelLoadError("Loading was cancelled.")

    monkeypatch.setattr(loading, "load_model", slow)
    ended = threading.Event()
    attempt = ModelLoading("gpt2", lambda: ended.set() if attempt.done else None)
    attempt.start()
    attempt.cancel()
    assert ended.wait(20)
    assert seen["cancelled"]
    assert attempt.words == "Loading gpt2: 100 MB of 548"
    assert attempt.fault == "Loading was cancelled."
