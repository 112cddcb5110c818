"""One JupyterLab and one Chromium for all browser tests; each test closes the notebooks that it opened."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser.lab import Lab, NotebookPage

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every test of this folder is a browser test and has five minutes."""
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.browser)
            item.add_marker(pytest.mark.timeout(300))


@pytest.fixture(scope="session")
def lab_session() -> Iterator[Lab]:
    lab = Lab(warm=True)
    yield lab
    lab.close()


@pytest.fixture
def lab(lab_session: Lab, request: pytest.FixtureRequest) -> Iterator[Lab]:
    """``lab.open([...cells])``; a failed test leaves a picture of each page it had open, and what could be known."""
    before = lab_session.server.log.stat().st_size
    request.node.fault = ""  # a test that failed may be run once more
    yield lab_session
    pages: list[NotebookPage] = list(lab_session._open)
    if request.node.fault:
        said = lab_session.server.log.read_bytes()[before:].decode(errors="replace")
        # Past the capture: of a failure that was no failure the second time, pytest would show nothing.
        with request.config.pluginmanager.get_plugin("capturemanager").global_and_fixture_disabled():
            print(f"\n{request.node.name} failed:\n{request.node.fault[-3000:]}")
            for number, page in enumerate(pages):
                print(f"page {number}: {page.describe()}")
                if not page.page.is_closed():
                    page.screenshot(f"failed-{request.node.name}-{number}")
            print(f"the server and its kernels said: {said[-4000:]}")
    lab_session.close_pages()
    if not request.node.fault:
        for page in pages:
            page.assert_quiet()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):
    report = yield
    if report.when != "teardown" and report.failed:
        item.fault = report.longreprtext
    return report
