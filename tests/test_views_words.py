"""Progress in words: step, pace, time left."""

import pytest

from sae_widget.state import Status
from sae_widget.views.words import progress_words, sendable, share_done, time_words


@pytest.mark.parametrize(
    ("status", "share", "words"),
    [
        (Status("ready", ""), -1.0, ""),
        (
            Status("training", "", 620, 2000, 31_234.0, 8.2),
            0.31,
            "step 620 of 2,000, 31,000 tokens/s, 8 s left",
        ),
        (Status("paused", "", 620, 2000, 0.0, 8.2), 0.31, "step 620 of 2,000"),
        (Status("loading", "", 5, 10), 0.5, ""),
        (Status("training", "", 11, 10), 1.0, "step 11 of 10"),
    ],
)
def test_progress(status, share, words):
    assert share_done(status) == pytest.approx(share)
    assert progress_words(status) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.2, "0 s"),
        (8.4, "8 s"),
        (89, "89 s"),
        (90, "2 min"),
        (600, "10 min"),
        (7500, "2 h 5 min"),
        (1e30, "2777 h 47 min"),
    ],
)
def test_time_words(seconds, words):
    assert time_words(seconds) == words


@pytest.mark.parametrize(
    ("text", "sent"), [("plain 😀", "plain 😀"), ("a\ud83db", "a\ufffdb"), ("\ud83d\ude00", "😀"), ("", "")]
)
def test_half_characters_are_replaced_before_they_are_sent(text, sent):
    assert sendable(text) == sent
