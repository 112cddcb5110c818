"""The page's clock: its ticks make the publisher speak (F32)."""

import sys
import time
import types

import pytest
from anywidget._util import enable_custom_widget_manager_once

from sae_widget import SuperpositionExplorer
from sae_widget.views.clock import PageClock


def test_ticks_bring_the_news(tiny_gpt2_dir, sae_widget_home, monkeypatch):
    monkeypatch.setenv("SAE_WIDGET_POLL", "1")
    explorer = SuperpositionExplorer("a text", model=str(tiny_gpt2_dir), layer=1)
    try:
        (clock,) = [child for child in explorer.children if isinstance(child, PageClock)]
        end = time.monotonic() + 60
        while not explorer._runner.idle and time.monotonic() < end:
            time.sleep(0.02)
        clock.set_state({"ticks": clock.ticks + 1})  # what a message of the page does
        assert explorer.activations is not None
        assert explorer.state.status.phase == "ready"
        assert "keep it open" in explorer.status
        explorer.read("another text")
        assert explorer.wait(30)
        assert "keep it open" not in explorer.status  # once is enough
    finally:
        explorer.close()


@pytest.fixture
def colab(monkeypatch):
    """A kernel that looks like one of Colab's; what its page was asked."""
    asked = []
    output = types.ModuleType("google.colab.output")
    output.enable_custom_widget_manager = lambda: asked.append("show widgets of others")
    for name in ("google", "google.colab"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, "google.colab.output", output)
    enable_custom_widget_manager_once.cache_clear()
    yield asked
    enable_custom_widget_manager_once.cache_clear()


def test_on_colab_the_page_is_asked_once_to_show_widgets_of_others(colab, tiny_gpt2_dir, sae_widget_home):
    """anywidget does it; without it a page of Colab shows nothing at all."""
    for _ in range(2):
        explorer = SuperpositionExplorer("a text", model=str(tiny_gpt2_dir), layer=1)
        try:
            assert any(isinstance(child, PageClock) for child in explorer.children)
            assert colab == ["show widgets of others"]
        finally:
            explorer.close()


def test_without_colab_there_is_no_clock(tiny_gpt2_dir, sae_widget_home):
    explorer = SuperpositionExplorer("a text", model=str(tiny_gpt2_dir), layer=1)
    try:
        assert not any(isinstance(child, PageClock) for child in explorer.children)
    finally:
        explorer.close()
