"""sae_widget.runner.opening: two SAEs at once, twice the same word, strangers' metadata, and what waits for a word."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sae_widget.config import TrainConfig
from sae_widget.runner.opened import Opened, opened_from
from sae_widget.runner.opening import OpeningLoop
from sae_widget.runs import describe
from sae_widget.sae import SAE, StandardSAE
from sae_widget.state import ExplorerState
from tests.published import D_IN, published, tensors

Start = Callable[..., tuple[ExplorerState, Any]]
NONE = "No SAE is waiting to be loaded."


def an_sae(seed: int = 3, **metadata: Any) -> SAE:
    return StandardSAE(**tensors(seed=seed), metadata=metadata)


def do(runner: Any, name: str) -> None:
    runner.command(name)
    assert runner.wait(60)


def test_of_two_that_are_asked_for_at_once_the_last_one_is_shown(start: Start) -> None:
    state, runner = start()
    first, second = an_sae(3), an_sae(4, hook_name="mlp_out", layer=0)
    for sae in (first, second, second):
        runner.open(opened_from(sae))
    assert runner.wait(60)
    assert state.features.sae is second and (state.layer, state.hook_name) == (0, "mlp_out")
    assert not state.status.trouble and state.features.stats is not None


def test_nothing_that_was_asked_for_is_nothing_that_is_done(start: Start) -> None:
    state, runner = start()
    before = state.status
    do(runner, "open")
    assert state.features is None and state.status == before
    for word in ("load_anyway", "keep"):
        do(runner, word)
        assert state.status.message == NONE and state.status.phase == "ready"


@pytest.mark.parametrize(
    "told",
    [
        {"layer": "two"},
        {"layer": 10**30},
        {"layer": -1},
        {"layer": None, "hook_name": ["resid_pre"]},
        {"hook_name": "mlp_out\n"},
        {"model_name": {"a": 1}},
        {"model_name": "other\n\x1b[31m\u202e"},
    ],
)
def test_a_place_that_nobody_understands_waits_for_a_word(start: Start, told: dict[str, Any]) -> None:
    state, runner = start()
    runner.open(opened_from(an_sae(**told)))
    assert runner.wait(60)
    assert state.offers == ("load_anyway", "keep") and state.features is None
    assert state.status.message.startswith("This SAE was trained on ") and state.status.message.isprintable()
    do(runner, "load_anyway")
    assert (state.layer, state.hook_name) == (2, "resid_pre") and state.offers == ()
    assert ", though trained on " in state.status.message and not state.status.trouble
    shown = state.features
    do(runner, "load_anyway")  # once more is once
    assert state.features is shown and state.status.message == NONE


@pytest.mark.parametrize(
    "told", [{"prepend_bos": "yes"}, {"context_size": 10**30}, {"seqpos_slice": [0, 9, 0]}, {"release": ["a", 3]}]
)
def test_what_is_said_besides_in_another_type_stops_nothing(start: Start, told: dict[str, Any]) -> None:
    state, runner = start(prepend_bos=False)
    sae = an_sae(**told)
    runner.open(opened_from(sae))
    assert runner.wait(60)
    assert state.features.sae is sae and state.status.phase == "ready" and not state.status.trouble
    assert state.prepend_bos is False


def test_of_two_that_wait_the_last_one_is_meant(start: Start) -> None:
    state, runner = start()
    first, second = an_sae(3, model_name="one"), an_sae(4, model_name="two")
    for sae in (first, second):
        runner.open(opened_from(sae))
        assert runner.wait(60)
    assert "trained on two" in state.status.message and state.features is None
    do(runner, "load_anyway")
    assert state.features.sae is second
    runner.open(opened_from(first))
    assert runner.wait(60)
    runner.open(opened_from(an_sae(5)))  # of this model: the question is over
    assert runner.wait(60)
    assert state.offers == ()
    shown = state.features
    do(runner, "load_anyway")
    assert state.features is shown and state.status.message == NONE


def test_another_wish_that_is_refused_ends_the_question(start: Start) -> None:
    state, runner = start()
    runner.open(opened_from(an_sae(3, model_name="one")))
    assert runner.wait(60)
    assert state.offers == ("load_anyway", "keep")
    runner.open(opened_from(StandardSAE(**tensors(d_in=D_IN + 1))))
    assert runner.wait(60)
    assert "it cannot be shown there" in state.status.message and state.offers == ()
    do(runner, "load_anyway")
    assert state.features is None and state.status.message == NONE


def test_a_question_is_not_asked_below_a_sentence_about_another_folder(start: Start) -> None:
    state, runner = start()
    state.folder = "/no/such/folder"
    do(runner, "show")
    assert "/no/such/folder" in state.faults["folder"]
    runner.open(opened_from(an_sae(3, model_name="one")))
    assert runner.wait(60)
    assert state.offers == ("load_anyway", "keep") and state.faults == {}


def test_what_waits_is_there_when_its_folder_is_gone(start: Start, tmp_path: Path) -> None:
    folder = published(tmp_path / "sae", model_name="gpt2-small")
    state, runner = start(folder=str(folder))
    do(runner, "show")
    assert state.faults == {"folder": state.status.message}
    shutil.rmtree(folder)
    do(runner, "load_anyway")
    assert state.features.sae.d_in == D_IN and state.faults == {}
    assert state.status.message.startswith("Showing the SAE of sae, after block 2, though trained on gpt2")
    shown = state.features
    do(runner, "show")  # it is read again, and is gone
    assert state.features is shown and "there is no such folder" in state.faults["folder"]


def test_names_are_told_with_the_key_before_anything_is_shown() -> None:
    told: list[tuple[str, dict[int, str]]] = []
    loop = OpeningLoop(ExplorerState(), expect=lambda key, names: told.append((key, names)))
    place = {"model": "gpt2", "layer": 3, "hook_name": "mlp_out", "prepend_bos": False}
    opened = Opened(an_sae(), None, "one", "first", describe(TrainConfig(), {3: "vowels"}, **place))
    for given in (opened, replace(opened, key="second", saved=None)):
        loop.open(given)
    assert told == [("first", {3: "vowels"}), ("second", {})]
    loop.close()
