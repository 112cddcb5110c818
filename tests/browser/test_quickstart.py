"""The quickstart notebook, as ``make lab`` opens it, runs from top to bottom in the page."""

from __future__ import annotations

from tests.browser.lab import Lab
from tests.browser.server import REPOSITORY

NOTEBOOK = REPOSITORY / "notebooks" / "00_quickstart.ipynb"


def test_quickstart_runs(lab: Lab) -> None:
    nb = lab.open(NOTEBOOK, warm=False)
    nb.run_all()
    pane = nb.page.locator("[data-pane='bars']").first
    nb.wait_attribute(pane, "data-bars", "Number(value) > 0", 60)
