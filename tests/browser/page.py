"""A notebook in a browser page: run its cells, look at its panes, take its picture."""

from __future__ import annotations

import contextlib
import re
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from playwright.sync_api import ConsoleMessage, Error, Locator, Page, Request, TimeoutError, ViewportSize

from tests.browser.server import REPOSITORY

if TYPE_CHECKING:
    from tests.browser.lab import Lab

SCREENSHOTS = REPOSITORY / "artifacts" / "screenshots"
LIGHT, DARK = "JupyterLab Light", "JupyterLab Dark"
# What JupyterLab itself says on a good day; everything else is somebody's fault.
HARMLESS = re.compile(
    r"favicon|/static/.*\.map|lsp/status|Failed to fetch.*(news|extension)|ResizeObserver loop"
    r"|WebSocket is closed before|Canceled future for|net::ERR_ABORTED"
)

# In every page: the notebook's panel, wherever JupyterLab has put the focus.
_PANEL = """window.notebookPanel = () => {
    for (const widget of window.jupyterapp?.shell?.widgets('main') ?? [])
        if (widget.sessionContext && widget.content?.model) return widget;
    return null;
};"""
# In every page: the last things that the mouse did, and on what, for a test that fails.
_MOUSE = """window.mouseDid = [];
for (const kind of ['mousedown', 'mouseup', 'click']) document.addEventListener(kind, (event) => {
    const { tagName, className, textContent, disabled } = event.target, words = (textContent ?? '').slice(0, 20);
    window.mouseDid.push(`${kind} ${tagName} .${className} ${words}${disabled ? ' disabled' : ''}`);
    window.mouseDid.splice(0, window.mouseDid.length - 6);
}, true);"""
_IDLE = """() => {
    const kernel = window.notebookPanel()?.sessionContext.session?.kernel;
    return kernel?.connectionStatus === 'connected' && kernel.status === 'idle';
}"""
_SETTLED = """async () => {
    const panel = window.notebookPanel();
    await window.jupyterapp.restored;
    await panel.context.ready;
    await panel.sessionContext.ready;
    await panel.revealed;
    window.jupyterapp.shell.activateById(panel.id);
}"""
_SELECT = """(index) => {
    const notebook = window.notebookPanel().content;
    notebook.deselectAll();
    notebook.activeCellIndex = index;
}"""
_EXECUTE = """async ([command, args, wait]) => {
    const done = window.jupyterapp.commands.execute(command, args);
    if (wait) await done;
}"""
# What is in the output areas, as a tree of tags, classes and data; the page's own faults need not be in its console.
_TREE = """() => {
    const lines = [];
    const walk = (node, depth) => {
        if (lines.length > 150 || node.matches('svg, .widget-inline-hbox, .jp-OutputPrompt')) return;
        const data = Object.entries(node.dataset ?? {}).map(([k, v]) => ` ${k}=${String(v).slice(0, 20)}`).join('');
        const words = node.children.length ? '' : ` ${(node.textContent ?? '').slice(0, 40)}`;
        lines.push(`${' '.repeat(depth)}${node.tagName.toLowerCase()}.${[...node.classList].join('.')}${data}${words}`);
        if (depth < 8) for (const child of node.children) walk(child, depth + 1);
    };
    for (const area of document.querySelectorAll('.jp-Notebook .jp-Cell-outputArea')) walk(area, 0);
    return lines.join('\\n');
}"""
_COUNT = "(index) => window.notebookPanel().content.widgets[index]?.model?.executionCount ?? null"
_OUTPUTS = "(index) => window.notebookPanel().content.widgets[index].model.outputs?.toJSON() ?? []"


class NotebookPage:
    """A notebook in a page and a workspace of its own. ``page`` is playwright's page, for everything not named here."""

    def __init__(self, lab: Lab, name: str, *, width: int, height: int) -> None:
        self.lab, self.name = lab, name
        self.workspace = f"w{uuid.uuid4().hex[:10]}"
        self.size = ViewportSize(width=width, height=height)
        self.errors: list[str] = []  # what the page's console called an error
        self.external: list[str] = []  # requests that wanted to leave the machine; the browser refuses them all
        self._pages: list[Page] = []
        self.page: Page = self._new_page()

    def _new_page(self) -> Page:
        page = self.lab.context.new_page()
        self._pages.append(page)
        page.set_viewport_size(self.size)
        page.add_init_script(_PANEL)
        page.add_init_script(_MOUSE)
        page.set_default_timeout(30_000)
        page.on("request", self._request)
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.errors.append(f"uncaught: {error}"))
        return page

    def _request(self, request: Request) -> None:
        if not request.url.startswith((self.lab.server.url, "data:", "blob:")):
            self.external.append(request.url)

    def _console(self, message: ConsoleMessage) -> None:
        text = f"{message.text} ({message.location.get('url', '')})"
        if message.type == "error" and not HARMLESS.search(text) and text not in self.errors:
            self.errors.append(text)

    # Opening

    @property
    def url(self) -> str:
        """Where the notebook is."""
        return f"{self.lab.server.url}/lab/workspaces/{self.workspace}/tree/{self.name}?reset"

    def load(self, page: Page | None = None, *, wait_kernel: bool = True) -> None:
        """Go to the notebook and wait until it can be run."""
        page = page or self.page
        page.goto(self.url)
        self._settle(page)
        if wait_kernel:
            page.wait_for_function(_IDLE, timeout=60_000)

    def _settle(self, page: Page) -> None:
        page.wait_for_function("() => Boolean(window.notebookPanel())", timeout=60_000)
        page.evaluate(_SETTLED)

    def second_tab(self) -> Page:
        """The same notebook, with the same kernel, in another tab."""
        page = self._new_page()
        self.load(page)
        return page

    def reload(self) -> None:
        """Reload the page as a person does; the kernel goes on."""
        self.page.reload()
        self._settle(self.page)

    # Running

    def execute(self, command: str, args: dict[str, Any] | None = None, *, wait: bool = True) -> None:
        """Run one of JupyterLab's commands."""
        self.page.evaluate(_EXECUTE, [command, args or {}, wait])

    def run_cell(self, index: int, *, wait: bool = True, check: bool = True) -> None:
        """Run one cell; with ``wait`` until it has ended, and with ``check`` an error output fails."""
        self.page.evaluate(_SELECT, index)
        self.execute("notebook:run-cell", wait=wait)
        if wait:
            self.page.wait_for_function(f"(i) => ({_COUNT})(i) !== null", arg=index, timeout=60_000)
            if check:
                self.check_outputs(index)

    def run_all(self, *, check: bool = True) -> None:
        """Run every cell and wait for the last."""
        self.execute("notebook:run-all-cells")
        if check:
            for index in range(self.page.evaluate("window.notebookPanel().content.widgets.length")):
                self.check_outputs(index)

    def run_code(self, code: str) -> str:
        """Run code in the notebook's kernel, outside of any cell; returns what it printed.

        The kernel reads cells in order: while one runs this waits for its end.
        """
        outputs = self.page.evaluate(
            """async (code) => {
                const kernel = window.notebookPanel().sessionContext.session.kernel;
                for (;;) {
                    const future = kernel.requestExecute({code, store_history: false, stop_on_error: false});
                    const lines = [];
                    future.onIOPub = (message) => {
                        const content = message.content;
                        if (message.header.msg_type === 'stream') lines.push(content.text);
                        if (message.header.msg_type === 'error') lines.push('!' + content.traceback.join('\\n'));
                    };
                    const reply = await future.done;
                    // What comes right behind a cell that failed, or was interrupted, is not run: the kernel says so.
                    if (reply.content.status !== 'aborted') return lines;
                }
            }""",
            code,
        )
        failed = [line for line in outputs if line.startswith("!")]
        assert not failed, f"the kernel says:\n{failed[0][1:]}"
        return "".join(outputs)

    def check_outputs(self, index: int) -> None:
        """Fail when a cell ended in an error."""
        errors = [out for out in self.outputs(index) if out["output_type"] == "error"]
        assert not errors, f"cell {index}: {errors[0]['ename']}: {errors[0]['evalue']}"

    def outputs(self, index: int) -> list[dict[str, Any]]:
        """The outputs of a cell as nbformat has them."""
        return self.page.evaluate(_OUTPUTS, index)

    def wait_kernel_idle(self, timeout: float = 60.0) -> None:
        """Wait until the kernel has nothing to run."""
        self.page.wait_for_function(_IDLE, timeout=timeout * 1000)

    def restart_kernel(self) -> None:
        """Restart the kernel without a question, and wait until it is there again."""
        self.page.evaluate("async () => { await window.notebookPanel().sessionContext.session.kernel.restart(); }")
        self.wait_kernel_idle()

    # Looking

    def cell(self, index: int) -> Locator:
        """A cell of the notebook."""
        return self.page.locator(f".jp-Notebook .jp-Cell[data-windowed-list-index='{index}']")

    def output(self, index: int) -> Locator:
        """The output area of a cell."""
        return self.cell(index).locator(".jp-Cell-outputArea")

    def pane(self, name: str, index: int | None = None, nth: int = 0) -> Locator:
        """A pane by its ``data-pane``: of the whole page, or of one cell's output."""
        return (self.page if index is None else self.output(index)).locator(f"[data-pane='{name}']").nth(nth)

    def scroll_into_view(self, locator: Locator) -> Locator:
        """Bring something on the screen; JupyterLab does not lay out what is off it."""
        locator.wait_for(state="attached")
        locator.evaluate("(element) => element.scrollIntoView({block: 'center', behavior: 'instant'})")
        locator.wait_for(state="visible")
        return locator

    def wait_attribute(self, locator: Locator, name: str, test: str, timeout: float = 30.0) -> str:
        """Wait until an attribute passes a JavaScript test of ``value`` (a string, or null); returns it.

        ``wait_attribute(chart, "data-draws", "Number(value) > 3")``
        """
        locator.wait_for(state="attached", timeout=timeout * 1000)
        element = locator.element_handle()
        try:
            self.page.wait_for_function(
                f"([element, name]) => {{ const value = element.getAttribute(name); return {test}; }}",
                arg=[element, name],
                timeout=timeout * 1000,
            )
        except TimeoutError as late:
            shown = element.evaluate("(element) => JSON.stringify({...element.dataset})")
            status = [line.inner_text() for line in self.page.locator("[data-pane='status']").all()]
            raise AssertionError(
                f"{name} never passed {test!r}; the element says {shown}, the status line {status}, "
                f"the console {self.errors}, the mouse {self.page.evaluate('window.mouseDid')}"
            ) from late
        return locator.get_attribute(name) or ""

    def draws(self, locator: Locator) -> int:
        """How often a pane has drawn."""
        return int(locator.get_attribute("data-draws") or 0)

    def frames(self, count: int = 2) -> None:
        """Wait until the browser has painted that many frames."""
        self.page.evaluate(
            """(count) => new Promise((done) => {
                const next = (left) => left ? requestAnimationFrame(() => next(left - 1)) : done();
                next(count);
            })""",
            count,
        )

    def theme(self, name: str) -> None:
        """Change JupyterLab's theme and wait until the page wears it."""
        self.execute("apputils:change-theme", {"theme": name})
        self.wait_theme(name)

    def wait_theme(self, name: str) -> None:
        """Wait until the page wears a theme and its splash is gone."""
        self.page.wait_for_function(
            "(name) => document.body.dataset.jpThemeName === name && !document.querySelector('#jupyterlab-splash')",
            arg=name,
        )

    def screenshot(self, name: str, locator: Locator | None = None) -> Path:
        """Save a picture of the page, or of one element, in ``artifacts/screenshots``."""
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        path = SCREENSHOTS / f"{name}.png"
        self.frames()
        (locator or self.page).screenshot(path=path, animations="disabled")
        return path

    def assert_quiet(self) -> None:
        """No error in the console, and no request that left the machine."""
        assert not self.errors, "the console says:\n" + "\n".join(self.errors)
        assert not self.external, "the page wanted to reach:\n" + "\n".join(self.external)

    def describe(self) -> str:
        """What a failed test should say of the page: its console's errors, what it shows, what it wanted to reach."""
        try:
            shown = self.page.evaluate(_TREE)
        except Error as gone:
            shown = f"nothing can be read from it: {gone}"
        return f"errors {self.errors}, requests that were refused {self.external}, in the outputs:\n{shown}"

    def close(self) -> None:
        """End the kernel and close the page."""
        with contextlib.suppress(Error):  # the page may be gone; the server's end takes the kernel with it
            self.page.evaluate("() => window.notebookPanel().sessionContext.shutdown()")
        for page in self._pages:
            page.close()
