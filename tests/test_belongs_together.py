"""Random sequences of what a person can do: at rest, everything that is shown is of the same run, SAE, text and place.

Briefly in ``make test``, two hundred sequences in ``make soak``.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sae_widget import SuperpositionExplorer
from sae_widget.views.card import card_data
from sae_widget.views.health import current_numbers
from tests.published import published

GIVEN = {"architecture": "topk", "d_sae": 48, "k": 4, "batch_size": 64, "corpus_tokens": 600, "layer": 1, "steps": 40}
WAIT = 60.0


class Person:
    """Somebody who does this and that with an explorer."""

    def __init__(self, explorer: SuperpositionExplorer, folder: Path, seed: int) -> None:
        self.explorer, self.state, self.folder, self.draw = explorer, explorer.state, folder, random.Random(seed)
        self.did: list[str] = []
        self.actions: list[Callable[[], Any]] = [
            self.select, self.select, self.read, self.move, self.train, self.train, self.train_without_end,
            self.change_the_width, self.show, self.name, *(self.button(name) for name in BUTTONS),
        ]  # fmt: skip

    def button(self, name: str) -> Callable[[], Any]:
        def press() -> None:
            self.explorer._runner.command(name)

        press.__name__ = name
        return press

    def act(self) -> None:
        action = self.draw.choice(self.actions)
        self.did.append(action.__name__)
        action()
        time.sleep(self.draw.choice([0.0, 0.0, 0.02, 0.1, 0.3]))

    def select(self) -> None:
        self.state.selected = self.draw.choice([None, 3, 5, 39, 39])

    def read(self) -> None:
        self.state.text = self.draw.choice(["It was the best of times.", "A text of mine.", ""])

    def move(self) -> None:
        self.state.layer = self.draw.choice([1, 2])

    def train(self) -> None:
        self.explorer.set(steps=40)
        self.explorer._runner.command("train")

    def train_without_end(self) -> None:
        self.explorer.set(steps=1_000_000)
        self.explorer._runner.command("train")

    def change_the_width(self) -> None:
        self.explorer.set(d_sae=self.draw.choice([40, 48]))

    def show(self) -> None:
        anyway = self.draw.random() < 0.7
        with contextlib.suppress(RuntimeError):  # while it trains that is refused
            self.explorer.show(self.folder, anyway=anyway)

    def name(self) -> None:
        if self.explorer.features is not None:
            self.state.feature_names = {3: "vowels"}

    def rest(self) -> None:
        """Wait until nothing is left to do; what has no end is paused or stopped."""
        runner, end = self.explorer._runner, time.monotonic() + WAIT
        leave = self.draw.choice(["pause", "stop"])
        while not (runner.idle and runner.publisher.empty):
            if runner._trains and self.explorer.settings.steps > 40:
                runner.command(leave)
            assert time.monotonic() < end, (self.state.status, self.did)
            time.sleep(0.02)


BUTTONS = ("pause", "resume", "stop", "reset", "restore")


def check(person: Person) -> None:
    """Everything that is shown belongs together."""
    state, runner, features = person.state, person.explorer._runner, person.explorer.features
    said = person.did, state.status, state.faults
    at_rest = runner._job is None
    assert state.status.phase in (("ready", "failed") if at_rest else ("paused",)), said
    assert (features is None) == (runner.desk.shown is None), said
    if features is None:
        assert state.fidelity is None and not state.unmeasured, said
    else:
        assert features.key == runner.desk.shown.key and features.prompt.activations is state.activations, said
        if state.selected is not None and state.selected < features.sae.d_sae:
            card = state.card
            assert card is not None, said
            assert (card.feature, card.key, card.version) == (state.selected, features.key, features.version), said
            assert card.contexts is not None or "card" in state.faults, said
        found = runner.desk.predictions
        if at_rest:
            assert found is not None, said
            assert (state.fidelity, state.unmeasured) == (found.fidelity, found.why_not), said
            numbers = current_numbers(state)
            assert numbers is None or numbers.d_sae == features.sae.d_sae, said
            assert numbers is None or numbers.where != "on the latest batch", said
    card_data(state)
    if at_rest and "tokens" not in state.faults:
        assert (state.activations.layer, state.activations.texts) == (state.layer, (state.text,)), said
    assert "cancel" not in state.offers, said
    assert "restore" not in state.offers or (at_rest and runner._saved_here()), said


def play(model: Path, folder: Path, seeds: range) -> int:
    """One explorer after the other; at how many rests a feature of a trained SAE was selected."""
    rich = 0
    for seed in seeds:
        explorer = SuperpositionExplorer("It was the best of times.", model=str(model), **GIVEN)
        try:
            assert explorer.wait(WAIT)
            person = Person(explorer, folder, seed)
            if person.draw.random() < 0.7:
                explorer.train(blocking=True)
                explorer.state.selected = 5
            for _ in range(person.draw.randint(1, 3)):
                for _ in range(person.draw.randint(1, 6)):
                    person.act()
                person.rest()
                check(person)
                rich += explorer.state.selected is not None and explorer.features is not None
        finally:
            explorer.close()
    return rich


@pytest.fixture
def folder(tmp_path: Path, sae_widget_home: Path) -> Iterator[Path]:
    return published(tmp_path / "sae", model_name="gpt2-small", hook_name="blocks.8.hook_resid_pre")


@pytest.mark.timeout(300)
def test_any_sequence(tiny_gpt2_dir: Path, folder: Path) -> None:
    assert play(tiny_gpt2_dir, folder, range(12)) > 3


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_any_sequence_at_length(tiny_gpt2_dir: Path, folder: Path) -> None:
    assert play(tiny_gpt2_dir, folder, range(100, 300)) > 50
