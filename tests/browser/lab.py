"""A real JupyterLab with a real Chromium, for tests and benchmarks that look at the page.

One server and one browser, with its cache, serve a whole session; every notebook gets its own page, workspace and
kernel. Nothing here sleeps: each wait is for something that the page or the kernel says.
"""

from __future__ import annotations

import json
import uuid
from pathlib import Path

from playwright.sync_api import BrowserContext, sync_playwright

from tests.browser.launcher import WARM
from tests.browser.page import DARK, LIGHT, NotebookPage
from tests.browser.server import LabServer

__all__ = ["DARK", "LIGHT", "Lab", "NotebookPage"]

CHROMIUM = Path("/usr/bin/chromium")
CHROMIUM_FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # No name and no address but the server's: nothing can leave the machine. Playwright's ``route`` would do it too,
    # but switches the cache off, and every page would fetch and compile the whole of JupyterLab again.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]


class Lab:
    """One server and one browser; ``open`` gives a notebook in a page of its own."""

    def __init__(self, env: dict[str, str] | None = None, *, warm: bool = False) -> None:
        self.warm = warm  # whether kernels have imported what is heavy when they start, unless ``open`` says otherwise
        self.server = LabServer(env, warm=warm)
        try:
            self._playwright = sync_playwright().start()
            path = str(CHROMIUM) if CHROMIUM.exists() else None
            # A profile of its own in a new folder: only with one does Chromium keep the code that it has compiled.
            profile = self.server.home / "chromium"
            self.context: BrowserContext = self._playwright.chromium.launch_persistent_context(
                profile, executable_path=path, args=CHROMIUM_FLAGS
            )
        except BaseException:
            self.server.close()
            raise
        self._open: list[NotebookPage] = []

    def open(
        self,
        cells: list[str] | Path,
        *,
        theme: str = LIGHT,
        width: int = 1400,
        height: int = 1000,
        wait_kernel: bool = True,
        warm: bool | None = None,
    ) -> NotebookPage:
        """A notebook with these code cells (or a copy of a notebook file), ready to run."""
        warm = self.warm if warm is None else warm
        notebook = cells.read_text(encoding="utf-8") if isinstance(cells, Path) else _notebook(cells)
        name = f"{WARM if warm else 'nb-'}{uuid.uuid4().hex[:10]}.ipynb"
        (self.server.root / name).write_text(notebook, encoding="utf-8")
        self.server.setting("apputils-extension/themes", {"theme": theme})
        if warm:
            self.server.start_kernel(name)
        page = NotebookPage(self, name, width=width, height=height)
        self._open.append(page)
        page.load(wait_kernel=wait_kernel)
        page.wait_theme(theme)
        return page

    def close_pages(self) -> None:
        """Close every notebook that is still open, with its kernel."""
        while self._open:
            self._open.pop().close()

    def close(self) -> None:
        """End the browser, then the server."""
        try:
            self.close_pages()
            self.context.close()
            self._playwright.stop()
        finally:
            self.server.close()


def _notebook(cells: list[str]) -> str:
    kernel = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
    code = [
        {
            "cell_type": "code",
            "id": f"cell-{index}",
            "metadata": {},
            "execution_count": None,
            "outputs": [],
            "source": source,
        }
        for index, source in enumerate(cells)
    ]
    return json.dumps(
        {"cells": code, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5},
    )
