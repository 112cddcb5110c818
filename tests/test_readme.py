"""What README.md tells a person to type works as it stands, a block of Python a cell."""

from __future__ import annotations

import ast
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from sae_widget import SuperpositionExplorer
from sae_widget.cli import _parser

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
AS_TOLD, QUICK = "d_sae=1024)", "d_sae=1024, model='bundled', steps=20, corpus_tokens=2000)"


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.M | re.S)


def run_cell(code, names):
    """Run a cell as a kernel does; what its last line shows, or None."""
    *before, last = ast.parse(code).body
    exec(compile(ast.Module(before, []), "README.md", "exec"), names)
    if isinstance(last, ast.Expr):
        return eval(compile(ast.Expression(last.value), "README.md", "eval"), names)
    exec(compile(ast.Module([last], []), "README.md", "exec"), names)
    return None


def test_the_ten_lines(tmp_path, monkeypatch, sae_widget_home):
    monkeypatch.chdir(tmp_path)
    first, *others = blocks("python")
    assert first.count(AS_TOLD) == 1 and 8 <= sum(bool(line) for cell in (first, *others) for line in cell.splitlines())
    names, shown = {}, []
    try:
        for cell in (first.replace(AS_TOLD, QUICK), *others):
            shown.append(run_cell(cell, names))
        explorer, (sae, features, last), loaded = shown
        assert isinstance(explorer, SuperpositionExplorer) and isinstance(loaded, SuperpositionExplorer)
        assert sae is features.sae is explorer.sae and sae.d_sae == 1024 and last.step == 20
        assert len(repr(shown[1])) < 600
        assert loaded.wait(60) and loaded.sae.d_sae == 1024
    finally:
        for made in shown:
            if isinstance(made, SuperpositionExplorer):
                made.close()


def test_the_commands_are_known(capsys):
    told = [line.split("#")[0] for block in blocks("console") for line in block.splitlines()]
    own = [shlex.split(line)[1:] for line in told if line.startswith("sae-widget ")]
    assert [arguments[0] for arguments in own] == ["train", "train", "info"]
    for arguments in own:
        assert _parser().parse_args(arguments).run
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    used = [line.split()[1] for line in told if line.startswith("make ")] + re.findall(r"`make ([a-z-]+)", README)
    assert {"lab", "test", "links", "bench"} <= set(used) <= set(targets)


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_links_prints_what_colab_needs():
    done = subprocess.run(
        ["make", "-s", "links", "REPOSITORY=owner/name"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    binder, colab, first_cell = done.stdout.splitlines()
    assert "/owner/name/main?urlpath=" in binder and "/owner/name/blob/main/notebooks/" in colab
    line = first_cell.partition(": ")[2]
    assert line == '%pip install "sae-widget @ git+https://github.com/owner/name@main"' and line in README
