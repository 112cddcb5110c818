"""The page's clock: its ticks make the publisher speak (F32)."""

import time

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


def test_without_colab_there_is_no_clock(tiny_gpt2_dir, sae_widget_home):
    explorer = SuperpositionExplorer("a text", model=str(tiny_gpt2_dir), layer=1)
    try:
        assert not any(isinstance(child, PageClock) for child in explorer.children)
    finally:
        explorer.close()
