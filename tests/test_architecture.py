"""The shape of the package, read from its source: ranks, what may import widgets, sizes, and unsafe calls."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "sae_widget"
TESTS = Path(__file__).parent
WIDGET_LIBRARIES = {"ipywidgets", "bqplot", "anywidget"}
HEAVY = ("torch", "transformers", "bqplot", "ipywidgets", "anywidget", "numpy")
MAX_LINES = 350

# A module imports only from ranks below its own; CONTRIBUTING.md has the same table in words. A folder is one
# entry: its members may import each other, never the folder's own ``__init__``.
RANKS = {
    "cells": 0,
    "config": 0,
    "journal": 0,
    "threads": 0,
    "ways": 0,
    "views.palette": 0,
    "activations": 1,
    "memory": 1,
    "metrics": 1,
    "muon": 1,
    "ngram": 1,
    "sae": 1,
    "toy": 1,
    "checkpoint": 2,
    "data": 3,
    "features": 2,
    "fidelity": 2,
    "pretrain": 2,
    "recovery": 2,
    "training": 2,
    "autosave": 3,
    "bundled": 3,
    "runs": 3,
    "state": 3,
    "bundle": 4,
    "names": 4,
    "inputs": 4,
    "layers": 4,
    "runner": 4,
    "views": 4,
    "explorer": 5,
    "": 6,  # sae_widget/__init__.py
    "__main__": 6,
    "cli": 6,
}
# What views share; besides these no view imports another.
SHARED_VIEWS = {
    "views.axes",
    "views.base",
    "views.palette",
    "views.pane",
    "views.selection",
    "views.tree",
    "views.words",
}
# Panes in several files.
PARTS_OF_A_VIEW = {
    "views.controls": {f"views.{part}_controls" for part in ("open", "save", "source", "train")},
    "views.health": {"views.measures"},
    "views.source_controls": {"views.fields", "views.presets"},
    "views.train_controls": {"views.advanced_controls", "views.fields", "views.kind_controls"},
    "views.kind_controls": {"views.fields"},
    "views.open_controls": {"views.fields"},
    "views.save_controls": {"views.fields"},
    "views.advanced_controls": {"views.fields"},
}


def modules() -> dict[str, Path]:
    """Every module of the package by its name below ``sae_widget`` ("" is the package itself)."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imports(path: Path) -> Iterator[str]:
    """Dotted names that a file imports, wherever in the file; ``from a import b`` gives ``a.b``."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}:{node.lineno}: write imports from the top, not relative"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own_imports(path: Path) -> Iterator[str]:
    """Modules of this package that a file imports, by their name below ``sae_widget``."""
    for name in imports(path):
        if name == "sae_widget.__version__":
            continue  # a string, and no reason to import anything
        if name == "sae_widget" or name.startswith("sae_widget."):
            below = name.partition(".")[2]
            while below not in MODULES:  # the last part was a class or function
                below = below.rpartition(".")[0]
            yield below


def rank_of(name: str) -> tuple[str, int]:
    """The entry of the table that a module belongs to, and its rank."""
    for entry in (name, name.split(".")[0]):
        if entry in RANKS:
            return entry, RANKS[entry]
    raise AssertionError(f"sae_widget.{name} has no rank: give it one in RANKS and in CONTRIBUTING.md")


@pytest.mark.parametrize("name", MODULES, ids=lambda name: name or "__init__")
def test_imports_point_only_downward(name: str) -> None:
    entry, rank = rank_of(name)
    for other in own_imports(MODULES[name]):
        other_entry, other_rank = rank_of(other)
        if other_entry == entry:
            is_init = MODULES[other].name == "__init__.py"
            assert not is_init, f"{name} imports {other}: a member never imports its folder's __init__"
        else:
            assert other_rank < rank or rank == 6, f"{name} (rank {rank}) imports {other} (rank {other_rank})"


@pytest.mark.parametrize("name", [name for name in MODULES if name.startswith("views.")])
def test_views_do_not_know_each_other(name: str) -> None:
    known = {other for other in own_imports(MODULES[name]) if other.startswith("views")}
    foreign = known - SHARED_VIEWS - PARTS_OF_A_VIEW.get(name, set())
    assert not foreign, f"{name} imports {sorted(foreign)}"


@pytest.mark.parametrize("name", [n for n in MODULES if not n.startswith("views") and n != "explorer"])
def test_widgets_are_imported_only_in_views_and_explorer(name: str) -> None:
    roots = {found.split(".")[0] for found in imports(MODULES[name])}
    assert not roots & WIDGET_LIBRARIES, f"{name} imports {sorted(roots & WIDGET_LIBRARIES)}"


def test_everything_below_the_views_works_without_widgets() -> None:
    names = [name for name in MODULES if rank_of(name)[1] <= 4 and not name.startswith("views")]
    code = f"""
import importlib, sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {WIDGET_LIBRARIES!r}:
            raise ImportError(f"{{name}} is blocked")
sys.meta_path.insert(0, Blocked())
for name in {names!r}:
    importlib.import_module("sae_widget." + name)
"""
    done = run_python("-c", code)
    assert done.returncode == 0, done.stderr[-2000:]


def run_python(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=PACKAGE.parent, capture_output=True, text=True, timeout=100, check=False)


def test_import_is_quick_and_light() -> None:
    code = f"import sys, sae_widget; print(*[n for n in {HEAVY!r} if n in sys.modules])"
    run_python("-c", code)  # writes the byte code
    took = []
    for _ in range(3):
        done = run_python("-X", "importtime", "-c", code)
        assert done.stdout.strip() == "", f"import sae_widget brings {done.stdout.strip()}"
        (line,) = re.findall(r"^import time:\s+\d+ \|\s+(\d+) \| sae_widget$", done.stderr, re.M)
        took.append(int(line) / 1e6)
    assert min(took) < 0.3, f"import sae_widget took {min(took):.2f} s"


@pytest.mark.parametrize("name", MODULES, ids=lambda name: name or "__init__")
def test_every_module_has_a_test(name: str) -> None:
    """A file of tests has the module's name, or that of its folder, or names it; a view has its own."""
    dotted = f"sae_widget.{name}".rstrip(".")
    if not MODULES[name].read_text(encoding="utf-8").strip():
        return
    folder, _, last = dotted.rpartition(".")
    said = re.compile(rf"\b{re.escape(dotted)}\b|from {re.escape(folder)} import .*\b{last}\b")
    others = {path.stem: path for path in TESTS.rglob("test_*.py") if path != Path(__file__)}
    own_names = {f"test_{name.replace('.', '_')}"} | ({f"test_{name.split('.')[0]}"} - {"test_views"})
    if not own_names & others.keys():
        assert any(said.search(path.read_text(encoding="utf-8")) for path in others.values()), f"no test of {dotted}"


SOURCES = [*MODULES.values(), *sorted((PACKAGE / "views" / "static").glob("*.*"))]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_file_is_long(path: Path) -> None:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= MAX_LINES, f"{path.name} has {lines} lines: make it a folder of the same name"


def built_text(node: ast.expr) -> bool:
    """Whether an expression puts values into a string: an f-string, ``%``, ``+`` or ``format``."""
    if isinstance(node, ast.JoinedStr):
        return any(isinstance(part, ast.FormattedValue) for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Mod, ast.Add)):
        return True
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "format"


@pytest.mark.parametrize("name", MODULES, ids=lambda name: name or "__init__")
def test_no_value_is_pasted_into_html(name: str) -> None:
    """S1: ``HTML(f"...")`` would run what a text or a file name says."""
    for node in ast.walk(ast.parse(MODULES[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            given = [*node.args, *(keyword.value for keyword in node.keywords)]
            pasted = called in ("HTML", "HTMLMath") and any(built_text(value) for value in given)
            assert not pasted, f"{name}:{node.lineno}: a value is pasted into {called}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_text_is_read_as_html_or_code_in_the_page(path: Path) -> None:
    """S1, S13: the page is built with ``textContent``, and loads nothing from anywhere."""
    text = path.read_text(encoding="utf-8")
    for sink in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "new Function("):
        assert sink not in text, f"{path.name} uses {sink}"
    if path.suffix != ".py":
        assert not re.search(r"\beval\(|\bimport\s*\(|^\s*import\s.*from|@import", text, re.M)
        addresses = [found for found in re.findall(r"https?://\S+", text) if "www.w3.org" not in found]
        assert not addresses, f"{path.name} names {addresses}"


@pytest.mark.parametrize("name", MODULES, ids=lambda name: name or "__init__")
def test_no_pickle_and_no_foreign_code(name: str) -> None:
    """S3, S4: files of strangers are data."""
    path = MODULES[name]
    roots = {found.split(".")[0] for found in imports(path)}
    assert not roots & {"pickle", "cPickle", "dill", "joblib", "marshal", "shelve", "cloudpickle"}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in ("torch.load", "eval", "exec", "__import__"), f"{name}:{node.lineno}: {called}"
            for keyword in node.keywords:
                if keyword.arg in ("trust_remote_code", "allow_pickle"):
                    assert ast.unparse(keyword.value) == "False", f"{name}:{node.lineno}: {keyword.arg}"


def test_the_table_of_ranks_is_in_the_guide() -> None:
    guide = (PACKAGE.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d) \| (.+?) \|", guide, re.M)
    told = {name: int(rank) for rank, names in rows for name in re.findall(r"`([\w.]+)`", names)}
    assert told == {name or "__init__": rank for name, rank in RANKS.items()}
