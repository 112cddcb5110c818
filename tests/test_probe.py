"""sae_widget.activations.probe: five broken networks, each answered in time, in its own words (M1, T19)."""

from __future__ import annotations

import threading
import time

import pytest

from sae_widget.activations.base import LoadCancelled, ModelLoadError
from sae_widget.activations.models import load_model
from sae_widget.activations.probe import ask_hub, host_name
from tests.fake_hub import BROKEN, broken_network, fake_hub

WORDS = {
    "no DNS": "its name was not found",
    "refused": "the connection was refused",
    "silent": "it was reached but sent no answer in time",
    "dropped": "no connection came about in time",
    "trickle": "it was reached but sent no answer in time",
}


@pytest.fixture(autouse=True)
def no_offline_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "*")


@pytest.mark.parametrize("kind", list(BROKEN))
def test_a_broken_network_is_told_within_five_seconds(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with broken_network(kind) as url:
        monkeypatch.setenv("HF_ENDPOINT", url)
        started = time.monotonic()
        with pytest.raises(ModelLoadError) as caught:
            load_model("gpt2")
        assert time.monotonic() - started < 5
    sentence = str(caught.value)
    assert sentence.startswith(f"Cannot reach {host_name()} to load gpt2: {WORDS[kind]}")
    assert "what was there before is kept" in sentence and "bundled model" in sentence


@pytest.mark.parametrize("kind", ["silent", "dropped", "trickle"])
def test_cancel_answers_within_a_second(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with broken_network(kind) as url:
        monkeypatch.setenv("HF_ENDPOINT", url)
        cancel = threading.Event()
        timer = threading.Timer(0.5, cancel.set)
        timer.start()
        started = time.monotonic()
        with pytest.raises(LoadCancelled):
            load_model("gpt2", cancel=cancel)
        assert time.monotonic() - started < 1.5
        timer.join()


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(101, "Network is unreachable"), "network is unreachable"),
        (PermissionError(13, "Permission denied"), "permission denied"),
    ],
)
def test_a_machine_that_may_not_connect(error: OSError, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """F45: a sandbox without sockets."""

    def blocked(*_arguments: object, **_named: object) -> None:
        raise error

    monkeypatch.setattr("socket.create_connection", blocked)
    with pytest.raises(ModelLoadError, match=f"Cannot reach .* to load gpt2: {words}. Nothing was loaded; what was"):
        load_model("gpt2")


def test_no_thread_is_left_behind_a_silent_server(monkeypatch: pytest.MonkeyPatch) -> None:
    with broken_network("trickle") as url:
        monkeypatch.setenv("HF_ENDPOINT", url)
        with pytest.raises(ModelLoadError):
            ask_hub("gpt2", threading.Event())
        end = time.monotonic() + 2
        while [t for t in threading.enumerate() if t.name == "sae_widget-probe"] and time.monotonic() < end:
            time.sleep(0.05)
        assert not [t for t in threading.enumerate() if t.name == "sae_widget-probe"]


def test_an_answer_is_enough(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    with fake_hub() as hub:
        hub.refusals["a/b"] = (302, "")
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        ask_hub("a/b", threading.Event())


def test_a_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with fake_hub() as proxy:
        monkeypatch.delenv("NO_PROXY")
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.setenv("HF_ENDPOINT", "http://hub.invalid")
        with pytest.raises(ModelLoadError, match="There is no model"):
            ask_hub("a/b", threading.Event())
        assert proxy.requests == ["GET http://hub.invalid/api/models/a/b"]


def test_a_password_in_the_address_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://me:CANARY@127.0.0.1:9")
    with pytest.raises(ModelLoadError) as caught:
        ask_hub("gpt2", threading.Event())
    assert "CANARY" not in str(caught.value)


@pytest.mark.parametrize("address", ["nonsense", "http://", "http://127.0.0.1:99999999"])
def test_an_address_that_is_none(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", address)
    with pytest.raises(ModelLoadError, match="Cannot reach"):
        ask_hub("gpt2", threading.Event())
