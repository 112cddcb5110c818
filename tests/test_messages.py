"""What goes to the page (T9, F02, F30, F31): few messages, small ones, no NaN, and both sides equal at the end."""

from __future__ import annotations

import json
import time
from typing import Any

import comm
import numpy as np
import pytest
from ipywidgets.widgets.widget import _instances, _put_buffers, _remove_buffers

from sae_widget import SuperpositionExplorer
from tests.running import until

SECONDS = 5.0


class Page:
    """The other end of every comm: what a browser would hold, and when how much came."""

    def __init__(self) -> None:
        self.models: dict[str, dict[str, Any]] = {}
        self.came: list[tuple[float, int]] = []

    def take(self, comm_id: str, kind: str, data: dict[str, Any], buffers: Any) -> None:
        """One message."""
        copies = [bytes(buffer) for buffer in buffers or ()]
        text = json.dumps(data, allow_nan=False)  # JSON knows no NaN: a page gets the string "nan" instead of it
        self.came.append((time.monotonic(), len(text) + sum(map(len, copies))))
        if kind == "comm_close":
            self.models.pop(comm_id, None)
            return
        told = json.loads(text)
        if "state" in told:
            _put_buffers(told["state"], told.get("buffer_paths", []), copies)
            self.models.setdefault(comm_id, {}).update(told["state"])

    def rates(self, begin: float, end: float) -> tuple[float, float]:
        """Messages and bytes a second between two moments."""
        sizes = [size for at, size in self.came if begin <= at < end]
        return len(sizes) / (end - begin), sum(sizes) / (end - begin)


@pytest.fixture
def page(monkeypatch):
    made = Page()

    def publish(self, msg_type, data=None, metadata=None, buffers=None, **_keys):
        made.take(self.comm_id, msg_type, data or {}, buffers)

    monkeypatch.setattr(comm.DummyComm, "publish_msg", publish)
    return made


def kernel_side(model_id: str) -> dict[str, Any]:
    """What Python holds of a widget, as the page would be told it."""
    state, paths, buffers = _remove_buffers(_instances[model_id].get_state())
    told: dict[str, Any] = json.loads(json.dumps(state))
    _put_buffers(told, paths, [bytes(buffer) for buffer in buffers])
    return told


def test_a_fast_training_sends_little_and_the_last_state_always(page, tiny_gpt2_dir, sae_widget_home):
    before = set(_instances)
    explorer = SuperpositionExplorer(
        "It was the best of times, it was the worst of times. " * 4,
        model=str(tiny_gpt2_dir), layer=1, d_sae=4096, k=16, steps=10**6, batch_size=16, corpus_tokens=2000,
    )  # fmt: skip
    try:
        explorer.train()
        until(lambda: explorer.state.status.phase == "training" and explorer.state.status.step > 20, 60)
        explorer.selected_feature = 7
        steps, began = len(explorer.history), time.monotonic()
        while time.monotonic() - began < SECONDS:
            time.sleep(0.05)
        messages, size = page.rates(began, time.monotonic())
        steps = len(explorer.history) - steps
        explorer.stop()
        assert explorer.wait(60)
        assert steps > 20 * SECONDS  # else nothing was tried
        print(f"{messages:.1f} messages/s, {size / 1000:.0f} kB/s, {steps / SECONDS:.0f} steps/s")
        assert 1 < messages <= 30
        assert size <= 200_000
        own = [model_id for model_id in _instances if model_id not in before]
        assert len(own) > 50
        for model_id in own:
            until(lambda model_id=model_id: page.models[model_id] == kernel_side(model_id), 5)
        (shown,) = [model["message"] for model in page.models.values() if model.get("phase") == "ready"]
        assert shown == explorer.status
    finally:
        explorer.close()
    assert not [model_id for model_id in own if model_id in page.models]


@pytest.mark.parametrize("start_token", [True, False])
def test_a_text_of_one_token_sends_no_nan(page, tiny_gpt2_dir, sae_widget_home, start_token):
    explorer = SuperpositionExplorer(
        "a", model=str(tiny_gpt2_dir), layer=1, prepend_bos=start_token, d_sae=24, k=3, steps=30, corpus_tokens=300
    )
    try:
        explorer.train(blocking=True)
        explorer.selected_feature = int(explorer.features.prompt.strongest[-1])
        assert explorer.wait(30)
        prompt, stats = explorer.features.prompt, explorer.features.stats
        for values in (prompt.acts, prompt.mean, prompt.max, stats.frequency, stats.mean, stats.max):
            assert np.isfinite(values).all()
        assert prompt.counted.tolist() == ([False, True] if start_token else [True])
        assert prompt.max.max() > 0
        explorer.state.corpus = "text"
        explorer.train(blocking=True)
        assert explorer.state.status.phase == "failed"
        assert "besides the first of each text, need at least 2. Nothing was trained; give a longer text." in (
            explorer.status
        )
        assert explorer.features.stats is stats
    finally:
        explorer.close()
    assert page.came
