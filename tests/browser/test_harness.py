"""The harness itself, with a widget of thirty lines: so that a red test elsewhere is about the explorer."""

from __future__ import annotations

import sys
from pathlib import Path

import psutil
import pytest

from tests.browser.lab import DARK, Lab
from tests.browser.launcher import WARM
from tests.browser.server import LabServer
from tests.running import until

WIDGET = '''
import anywidget, traitlets

class Counter(anywidget.AnyWidget):
    _esm = """
    export default { render({ model, el }) {
        el.dataset.pane = "counter";
        const button = document.createElement("button");
        const draw = () => {
            button.textContent = `pressed ${model.get("count")}`;
            el.dataset.draws = Number(el.dataset.draws ?? 0) + 1;
            el.dataset.count = model.get("count");
        };
        button.addEventListener("pointerdown", () => {
            model.set("count", model.get("count") + 1); model.save_changes();
        });
        model.on("change:count", draw);
        el.append(button);
        draw();
    } };
    """
    count = traitlets.Int(0).tag(sync=True)

counter = Counter()
counter
'''


def test_runs_cells_and_sees_widgets(lab: Lab) -> None:
    nb = lab.open([WIDGET, "counter.count += 10", "print(counter.count)"], warm=False)
    nb.run_cell(0)
    pane = nb.scroll_into_view(nb.pane("counter", 0))
    nb.wait_attribute(pane, "data-count", "value === '0'")
    pane.locator("button").click()
    nb.wait_attribute(pane, "data-count", "value === '1'")
    nb.run_cell(1)
    nb.wait_attribute(pane, "data-count", "value === '11'")
    assert nb.run_code("print(counter.count)").strip() == "11"
    nb.run_cell(2)
    assert nb.outputs(2)[0]["text"].strip() == "11"
    assert nb.screenshot("harness", pane).stat().st_size > 200


def test_kernel_is_this_python(lab: Lab) -> None:
    nb = lab.open(["import sys"], warm=False)
    assert nb.run_code("import sys; print(sys.prefix)").strip() == sys.prefix


def test_a_warm_kernel_has_imported_can_be_interrupted_and_ends(lab: Lab) -> None:
    nb = lab.open(["import time; print('begun'); time.sleep(60)"])
    about = "import os, sys; print(sys.prefix, os.getcwd(), os.getpid(), 'sae_widget.views' in sys.modules)"
    prefix, folder, number, imported = nb.run_code(about).split()
    assert (prefix, folder, imported) == (sys.prefix, str(lab.server.root), "True")
    nb.run_cell(0, wait=False)
    nb.output(0).get_by_text("begun").wait_for()
    nb.execute("notebook:interrupt-kernel", wait=False)
    nb.wait_kernel_idle()
    assert "KeyboardInterrupt" in str(nb.outputs(0))
    assert nb.run_code("print(os.getpid())").split() == [number]
    nb.restart_kernel()
    another = nb.run_code("import os; print(os.getpid())").strip()
    until(lambda: not Path(f"/proc/{number}").exists())
    nb.close()
    until(lambda: not Path(f"/proc/{another}").exists())


def test_warm_kernels_end_with_what_they_are_copies_of() -> None:
    server = LabServer(warm=True)
    try:
        server.start_kernel(f"{WARM}nobody.ipynb")
        assert server._warm is not None
        original = psutil.Process(server._warm.pid)
        until(original.children)
        copies = original.children()
        original.kill()
        until(lambda: not any(copy.is_running() for copy in copies), 30)
    finally:
        server.close()


def test_code_behind_a_cell_that_fails_is_run_all_the_same(lab: Lab) -> None:
    nb = lab.open(["1"])
    nb.run_cell(0)
    nb.page.evaluate(
        """() => {
            const kernel = window.notebookPanel().sessionContext.session.kernel;
            kernel.requestExecute({code: 'import time; time.sleep(1); 1 / 0', stop_on_error: true});
        }"""
    )
    assert nb.run_code("print(7)") == "7\n"


def test_dark_theme_and_back(lab: Lab) -> None:
    nb = lab.open(["1"], theme=DARK, warm=False)
    assert nb.page.evaluate("document.body.dataset.jpThemeName") == DARK
    nb.theme("JupyterLab Light")
    assert nb.page.evaluate("document.body.dataset.jpThemeLight") == "true"


def test_reload_keeps_the_widget(lab: Lab) -> None:
    nb = lab.open([WIDGET], warm=False)
    nb.run_cell(0)
    nb.execute("docmanager:save")
    nb.run_code("counter.count = 5")
    nb.reload()
    pane = nb.scroll_into_view(nb.pane("counter", 0))
    nb.wait_attribute(pane, "data-count", "value === '5'")


def test_an_error_in_a_cell_or_in_the_page_is_seen(lab: Lab) -> None:
    nb = lab.open(["raise ValueError('as expected')"], warm=False)
    with pytest.raises(AssertionError, match="as expected"):
        nb.run_cell(0)
    nb.page.evaluate("console.error('broken')")
    with pytest.raises(AssertionError, match="broken"):
        nb.assert_quiet()
    nb.errors.clear()


def test_nothing_leaves_the_machine(lab: Lab) -> None:
    nb = lab.open(["1"], warm=False)
    assert nb.page.evaluate("fetch('http://192.0.2.1/x').catch(() => 'refused')") == "refused"
    assert nb.external == ["http://192.0.2.1/x"] and any("ERR_NAME_NOT_RESOLVED" in error for error in nb.errors)
    nb.external.clear()
    nb.errors.clear()
