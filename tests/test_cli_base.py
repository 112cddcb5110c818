"""How a command ends: who says it, and what stops it."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from sae_widget.cli.base import INTERRUPTED, Refused, StopFlag, first_process


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Handlers of this test alone, so that no signal ends the tests."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("size", "rank", "first"),
    [
        (None, None, True),
        ("1", None, True),
        ("1", "5", True),  # a rank that is left of something else
        ("2", "0", True),
        ("2", "1", False),
        ("16", "10", False),
        ("2", None, True),
    ],
)
def test_the_first_process_speaks(
    size: str | None, rank: str | None, first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("WORLD_SIZE", size), ("RANK", rank)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    assert first_process() is first
    assert Refused("no").told is first
    assert (Refused("no", told=not first).told, Refused("no", told=first).told) == (not first, first)


def test_a_refusal_has_a_sentence_and_a_status() -> None:
    refused = Refused("It cannot be.", INTERRUPTED)
    assert (str(refused), refused.status, Refused("It").status) == ("It cannot be.", 130, 1)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("patient", [False, True])
def test_the_first_signal_is_noted_and_the_second_ends(number: signal.Signals, patient: bool) -> None:
    with StopFlag(patient=patient) as flag:
        assert not flag.stopped
        signal.raise_signal(number)
        assert flag.stopped
        ended = False
        try:
            signal.raise_signal(number)
        except KeyboardInterrupt:
            ended = True
        assert flag.stopped and ended is not patient
    assert signal.getsignal(number) is signal.SIG_IGN


def test_what_fails_inside_gives_the_handlers_back() -> None:
    with pytest.raises(ZeroDivisionError), StopFlag():
        raise ZeroDivisionError
    assert {signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)} == {signal.SIG_IGN}
