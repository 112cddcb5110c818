"""Run the notebooks in a real JupyterLab and save them with pictures: ``python -m tests.browser.save_notebooks``.

A live widget cannot be stored in a file that others read without a kernel, so each explorer's output becomes
the picture of what it showed; running the cell brings the live one back.
"""

from __future__ import annotations

import base64
import sys
from pathlib import Path

import nbformat

from tests.browser.lab import Lab, NotebookPage

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
WIDGET = "application/vnd.jupyter.widget-view+json"


def save(lab: Lab, path: Path) -> None:
    """Run one notebook from top to bottom and store its outputs."""
    notebook = nbformat.read(path, as_version=4)
    page = lab.open(path, width=1280, height=2400)
    page.page.add_style_tag(content=".jp-SideBar, #jp-left-stack { display: none !important; }")
    count = 0
    for index, cell in enumerate(notebook.cells):
        if cell.cell_type != "code":
            continue
        page.run_cell(index)
        count += 1
        cell.execution_count, cell.outputs = count, []
        for output in page.outputs(index):
            if WIDGET in output.get("data", {}):
                output["data"] = {"image/png": picture(page, index), "text/plain": "The explorer"}
            if "execution_count" in output:
                output["execution_count"] = count
            cell.outputs.append(nbformat.from_dict(output))
    nbformat.validate(notebook)
    nbformat.write(notebook, path)


def picture(page: NotebookPage, index: int) -> str:
    """What the explorer of a cell shows once it is ready, as a PNG in base64."""
    page.page.wait_for_function(
        "(i) => document.querySelectorAll(`.jp-Cell[data-windowed-list-index='${i}'] [data-pane]`).length > 5",
        arg=index,
    )
    page.scroll_into_view(page.pane("status", index))
    page.wait_attribute(page.pane("bars", index), "data-bars", "Number(value) > 0", 60)
    page.page.wait_for_timeout(2000)  # the charts' transitions
    return base64.b64encode(page.output(index).locator(".sae-widget").first.screenshot(type="png")).decode()


def main() -> int:
    """Every notebook, or those that are named."""
    lab = Lab()
    try:
        for path in [Path(name) for name in sys.argv[1:]] or sorted(NOTEBOOKS.glob("*.ipynb")):
            save(lab, path)
    finally:
        lab.close()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
