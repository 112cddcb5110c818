"""Following a run: what its SAE says of the training that it comes from, which may be anything."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sae_widget.checkpoint import save_sae
from sae_widget.runner import follow
from sae_widget.runner.follow import FollowingLoop
from sae_widget.runs import RunInfo
from sae_widget.runs.watch import News
from sae_widget.training.history import NAMES
from tests.test_sae import random_sae

INFO = RunInfo(total=9, model="m", layer=0, hook_name="resid_pre", tokens=1, sae_step=4, settings={"d_sae": 10, "k": 3})


class Loop(FollowingLoop):
    """The following alone: what it opens and says is noted."""

    def __init__(self) -> None:
        self.opened: list[str] = []
        self.said: list[str] = []
        self.desk = SimpleNamespace(open=self._note, site_words="after block 1", shown=None)  # type: ignore[assignment]
        self._history, self._followed = None, None
        self.publisher = SimpleNamespace(post=lambda **_: None)  # type: ignore[assignment]
        self._cond, self._poked = _Condition(), False  # type: ignore[assignment]

    def _note(self, sae: Any, stats: Any, source: str, key: str) -> None:
        self.opened.append(source)

    def _show_features(self) -> None:
        pass

    def _say(self, phase: str, text: str, **_: Any) -> None:  # type: ignore[override]
        self.said.append(f"{phase}: {text}")


class _Condition:
    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass

    def wait(self, seconds: float) -> None:
        pass


def an_sae(folder: Path, noted: Any) -> Path:
    save_sae(random_sae("topk"), folder)
    told = json.loads((folder / "cfg.json").read_text())
    told["metadata"]["sae_widget"]["metadata"] = noted
    (folder / "cfg.json").write_text(json.dumps(told))
    return folder


STRANGE = [
    {},
    {"training": None},
    {"training": 7},
    {"training": "steps"},
    {"training": ["steps"]},
    {"training": {}},
    {"training": {"steps": None}},
    {"training": {"steps": "4"}},
    {"training": {"steps": math.nan}},
    {"training": {"steps": math.inf}},
    {"training": {"steps": True}},
    {"training": {"steps": [4]}},
    {"training": {"steps": -4}},
]


def test_the_step_of_an_sae_is_that_which_it_says(tmp_path: Path) -> None:
    loop = Loop()
    assert loop._open_sae(an_sae(tmp_path, {"training": {"steps": 7}}), ", step 7") == 7
    assert loop.opened == [f"the SAE of {tmp_path.name}, after block 1, step 7"]


@pytest.mark.parametrize("noted", STRANGE, ids=str)
def test_an_sae_that_does_not_say_it_is_opened_all_the_same(noted: Any, tmp_path: Path) -> None:
    loop = Loop()
    assert loop._open_sae(an_sae(tmp_path, noted)) == 0
    assert len(loop.opened) == 1


@pytest.mark.parametrize("noted", [{"training": {"steps": 4}}, *STRANGE], ids=str)
def test_it_is_opened_once_for_each_step_and_once_at_the_end(
    noted: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = iter([INFO, INFO, INFO, replace_info(state="stopped", sentence="Enough.")])

    class Looking:
        def __init__(self, path: Path) -> None:
            self.path = path

        def look(self) -> News:
            return News(next(looks), np.empty((0, len(NAMES))), False, False)

    monkeypatch.setattr(follow, "Watch", Looking)
    loop = Loop()
    loop.state = SimpleNamespace(history=None)  # type: ignore[assignment]
    assert len(list(loop._following(an_sae(tmp_path, noted)))) == 3
    name = f"the SAE of {tmp_path.name}, after block 1, step 4"
    assert loop.opened == [name, name]
    assert loop.said[-1] == f"ready: The run in {tmp_path.name} has ended: Enough."


def replace_info(**changes: Any) -> RunInfo:
    return INFO.model_copy(update=changes)
