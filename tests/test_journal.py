"""Faults print nothing into a cell; their tracebacks are kept, the newest ones."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sae_widget.journal import KEPT, Journal

ROOT = Path(__file__).resolve().parents[1]
FAULTS = """
import sys
from sae_widget import SuperpositionExplorer
explorer = SuperpositionExplorer("a text", model=sys.argv[1], layer=1, corpus="text", d_sae=24, k=3, steps=5)
assert explorer.wait(60)

def broken(*arguments, **named):
    raise RuntimeError("injected")

explorer._runner.desk.start_training = broken  # a fault of the worker (F26)
explorer.train(blocking=True)
assert "injected" in explorer.status
explorer.state.observe(broken, names=["history_tick"])  # of an observer (F27)
del explorer._runner.desk.start_training
explorer.train(blocking=True)
assert len(explorer.history) == 5
for view in explorer._views:  # of a drawing
    view.draw = broken
explorer.state.faults = {"chart": "anything"}
assert explorer.log.count("Traceback") >= 3 and explorer.log.count("RuntimeError: injected") >= 3
explorer.close()
"""


def test_faults_print_nothing_and_can_be_read_afterwards(tiny_gpt2_dir, sae_widget_home):
    done = subprocess.run(
        [sys.executable, "-c", FAULTS, str(tiny_gpt2_dir)],
        cwd=ROOT, env=os.environ, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.fixture
def logger():
    made = logging.Logger("alone")  # not the package's: pytest listens there
    journal = Journal()
    made.addHandler(journal)
    return made, journal


def test_warnings_are_kept_with_their_tracebacks_and_the_oldest_go(logger):
    made, journal = logger
    assert journal.text == ""
    made.info("not worth keeping")
    try:
        raise ValueError("odd")
    except ValueError:
        made.exception("it failed")
    assert "it failed\nTraceback" in journal.text
    assert journal.text.endswith("ValueError: odd")
    for i in range(KEPT):
        made.warning("number %d", i)
    assert "odd" not in journal.text
    assert journal.text.count("number") == KEPT
