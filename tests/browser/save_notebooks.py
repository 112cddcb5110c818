"""Run the notebooks in a real JupyterLab and save them with pictures: ``python -m tests.browser.save_notebooks``.

A live widget cannot be stored in a file that others read without a kernel, so each explorer's output becomes
the picture of what it showed; running the cell brings the live one back.
"""

from __future__ import annotations

import base64
import sys
from pathlib import Path

import nbformat

from tests.browser.lab import Lab

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
WIDGET = "application/vnd.jupyter.widget-view+json"


def save(lab: Lab, path: Path) -> None:
    """Run one notebook from top to bottom and store its outputs."""
    notebook = nbformat.read(path, as_version=4)
    page = lab.open(path, width=1500, height=1400)
    page.page.add_style_tag(content=".jp-SideBar, #jp-left-stack { display: none !important; }")
    for index, cell in enumerate(notebook.cells):
        if cell.cell_type == "code":
            page.run_cell(index)
    page.wait_kernel_idle()
    count = 0
    for index, cell in enumerate(notebook.cells):
        if cell.cell_type != "code":
            continue
        count += 1
        cell.execution_count = count
        cell.outputs = []
        for output in page.outputs(index):
            data = output.get("data", {})
            if WIDGET in data:
                page.scroll_into_view(page.output(index))
                page.page.wait_for_timeout(1500)  # the charts' transitions
                picture = page.output(index).screenshot(type="png")
                output["data"] = {"image/png": base64.b64encode(picture).decode(), "text/plain": data["text/plain"]}
            cell.outputs.append(nbformat.from_dict(output))
            if "execution_count" in cell.outputs[-1]:
                cell.outputs[-1]["execution_count"] = count
    nbformat.validate(notebook)
    nbformat.write(notebook, path)


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
