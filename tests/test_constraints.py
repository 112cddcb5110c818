"""``constraints.txt``: one pin of each package for every Python that ``pyproject.toml`` promises."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).resolve().parents[1]
PROMISED = SpecifierSet(
    re.findall(r'^requires-python = "(.+)"$', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.M)[0]
)


def pins(name: str) -> list[Requirement]:
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    return [Requirement(line) for line in lines if line.strip() and not line.startswith("#")]


PINS = pins("constraints.txt")


@pytest.mark.parametrize("python", [f"3.{minor}" for minor in range(8, 20) if f"3.{minor}" in PROMISED])
def test_each_package_has_one_pin(python: str) -> None:
    holds = [pin for pin in PINS if pin.marker is None or pin.marker.evaluate({"python_version": python})]
    assert Counter(pin.name for pin in holds) == Counter({pin.name for pin in PINS})
    assert all(re.fullmatch(r"==[\d.]+", str(pin.specifier)) for pin in holds)


def test_the_oldest_python_has_its_own_pins() -> None:
    """Their newest releases are not for Python 3.10: pip ended in ResolutionImpossible."""
    old = {pin.name for pin in PINS if pin.marker is not None and pin.marker.evaluate({"python_version": "3.10"})}
    assert {"transformers", "numpy", "filelock", "platformdirs", "ipykernel", "hypothesis", "pytest-randomly"} <= old


def test_the_peers_are_pinned_beside_the_others() -> None:
    """Both files are used together, so no package may stand in both."""
    peers = pins("constraints-peers.txt")
    assert all(re.fullmatch(r"==[\d.]+", str(pin.specifier)) for pin in peers)
    assert not {pin.name for pin in peers} & {pin.name for pin in PINS}
    assert {"sae-lens", "dictionary-learning", "eai-sparsify"} <= {pin.name for pin in peers}
