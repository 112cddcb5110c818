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
    """``lab.open([...cells])``; a failed test leaves a picture of each page it had open, and what the server said."""
    before = lab_session.server.log.stat().st_size
    yield lab_session
    pages: list[NotebookPage] = list(lab_session._open)
    failed = getattr(request.node, "failed", False)
    for number, page in enumerate(pages):
        if failed and not page.page.is_closed():
            page.screenshot(f"failed-{request.node.name}-{number}")
    if failed:
        said = lab_session.server.log.read_bytes()[before:]
        print("the server and its kernels said:", said[-4000:].decode(errors="replace"))
    lab_session.close_pages()
    if not failed:
        for page in pages:
            page.assert_quiet()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):
    report = yield
    if report.when != "teardown" and report.failed:
        item.failed = True
    return report
