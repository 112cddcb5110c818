"""What a person does with an explorer in a page: press buttons, click features, read the panes."""

from __future__ import annotations

import re

from playwright.sync_api import Locator, expect

from tests.browser.page import NotebookPage

LINKED = ("bars", "heatmap", "tokens", "card")  # panes that say which feature is selected
PANES = ("controls", "status", "chart", "health", *LINKED)
IMPORT = "from sae_widget import SuperpositionExplorer\n"
# Reads and trains in a second or two, and has features that fire.
QUICK = "corpus_tokens=3000, d_sae=256, k=8, steps=120, batch_size=256, layer=2"
# The same, and goes on until it is stopped.
ENDLESS = QUICK.replace("steps=120", "steps=5_000_000")

# From the next pointerdown until each pane has another data-selected, and the frame with it is painted.
_WATCH_HIGHLIGHT = """(panes) => {
    window.painted = {};
    let clicked = null;
    window.addEventListener("pointerdown", (event) => { clicked = event.timeStamp; }, {once: true, capture: true});
    for (const [name, node] of Object.entries(panes)) {
        const before = node.dataset.selected ?? "";
        const observer = new MutationObserver(() => {
            if (clicked === null || (node.dataset.selected ?? "") === before) return;
            observer.disconnect();
            requestAnimationFrame(() => {
                const after = new MessageChannel();
                after.port1.onmessage = () => { window.painted[name] = performance.now() - clicked; };
                after.port2.postMessage(0);
            });
        });
        observer.observe(node, {attributeFilter: ["data-selected"]});
    }
}"""


def cell(settings: str = QUICK, name: str = "explorer") -> str:
    """Code of a cell that makes and shows an explorer."""
    return f"{IMPORT}{name} = SuperpositionExplorer({settings})\n{name}"


class ExplorerPage:
    """One explorer, or one of its displays, below a cell of a notebook."""

    def __init__(self, nb: NotebookPage, index: int = 0, nth: int = 0) -> None:
        self.nb, self.index, self.nth = nb, index, nth

    def pane(self, name: str) -> Locator:
        """A pane of this explorer."""
        return self.nb.pane(name, self.index, self.nth)

    def attribute(self, pane: str, name: str) -> str:
        """An attribute of a pane now; empty when it has none."""
        return self.pane(pane).get_attribute(f"data-{name}") or ""

    def wait(self, pane: str, name: str, test: str, timeout: float = 60.0) -> str:
        """Wait until an attribute passes a test of ``value``, as ``NotebookPage.wait_attribute``."""
        return self.nb.wait_attribute(self.pane(pane), f"data-{name}", test, timeout)

    def wait_phase(self, *phases: str, timeout: float = 60.0) -> None:
        """Wait until the status line says one of these phases."""
        self.wait("status", "phase", f"{list(phases)!r}.includes(value)", timeout)

    def wait_painted(self) -> None:
        """Wait until every pane has drawn and nothing is left to load or read."""
        for name in PANES:
            self.wait(name, "draws", "Number(value) > 0")
        self.wait_phase("ready")

    def wait_features(self) -> None:
        """Wait until features are drawn in the bars and in the heatmap."""
        self.wait("bars", "bars", "Number(value) > 0")
        self.pane("heatmap").locator(".saew-list").wait_for(state="attached")

    def button(self, name: str) -> Locator:
        """A button of the form or of the status line."""
        # An icon may stand before the words.
        named = re.compile(rf"(^|\s){re.escape(name)}$")
        return self.nb.output(self.index).get_by_role("button", name=named).nth(self.nth)

    def press(self, name: str) -> None:
        """Press a button, as soon as it can be pressed."""
        button = self.nb.scroll_into_view(self.button(name))
        expect(button).to_be_enabled(timeout=30_000)
        button.click()

    def train(self) -> None:
        """Press Train and wait until it trains, or has trained."""
        self.press("Train")
        self.wait("chart", "points", "Number(value) > 0")

    def trained(self) -> None:
        """Press Train and wait for the end, with the new features drawn."""
        self.train()
        self.wait_phase("ready", timeout=120)
        self.wait_features()

    def type_text(self, text: str) -> None:
        """Type a text over the one in the box and read it with Ctrl+Enter."""
        box = self.nb.scroll_into_view(self.pane("controls").locator("textarea").first)
        box.fill(text)
        box.press("Control+Enter")

    # Selecting

    def bar_place(self, index: int) -> tuple[float, float]:
        """Where a bar's column is on the screen."""
        plot = self.nb.scroll_into_view(self.pane("bars").locator(".sae-plot"))
        plot.locator(".bargroup").nth(index).wait_for(state="attached")
        bar = plot.locator(".bargroup").nth(index).locator("rect").first
        left, width = bar.evaluate("(r) => [r.getBoundingClientRect().x, r.getBoundingClientRect().width]")
        area = plot.bounding_box()
        assert area is not None
        return left + width / 2, area["y"] + area["height"] / 2

    def click_bar(self, index: int) -> str:
        """Click a bar; returns the feature that is selected then."""
        before = self.attribute("bars", "selected")
        self.nb.page.mouse.click(*self.bar_place(index))
        return self.wait("bars", "selected", f"value !== '' && value !== {before!r}")

    def row_place(self, row: int) -> tuple[float, float]:
        """Where a row of the heatmap is on the screen, of the rows that show before its list is scrolled."""
        shown = self.nb.scroll_into_view(self.pane("heatmap").locator(".saew-list"))
        shown.evaluate("(list) => { list.scrollTop = 0; }")
        canvas = shown.locator("canvas").bounding_box()
        assert canvas is not None
        rows = int(self.nb.run_code("print(min(explorer.state.rows, explorer.sae.d_sae))"))
        return canvas["x"] + canvas["width"] / 2, canvas["y"] + (row + 0.5) * canvas["height"] / rows

    def click_row(self, row: int) -> str:
        """Click a row of the heatmap; returns the feature that is selected then."""
        before = self.attribute("heatmap", "selected")
        self.nb.page.mouse.click(*self.row_place(row))
        return self.wait("heatmap", "selected", f"value !== '' && value !== {before!r}")

    def timed_click(self, place: tuple[float, float], panes: tuple[str, ...] = LINKED) -> dict[str, float]:
        """Click, and the milliseconds from the event's own timestamp until each pane had painted its highlight."""
        nodes = {name: self.pane(name).element_handle() for name in panes}
        self.nb.page.evaluate(_WATCH_HIGHLIGHT, nodes)
        self.nb.page.mouse.click(*place)
        self.nb.page.wait_for_function("(n) => Object.keys(window.painted).length === n", arg=len(panes))
        return self.nb.page.evaluate("() => window.painted")

    def token(self, index: int) -> Locator:
        """A token of the strip."""
        return self.pane("tokens").locator(f".saew-token[data-token='{index}']")

    def wait_token(self, part: str) -> None:
        """Wait until the strip shows a text with this in it."""
        self.nb.page.wait_for_function(
            """([strip, part]) => strip.isConnected && strip.textContent.includes(part)""",
            arg=[self.pane("tokens").locator(".saew-strip").element_handle(), part],
        )

    def tokens(self) -> list[str]:
        """The tokens as they are shown."""
        return self.pane("tokens").locator(".saew-token").all_text_contents()

    def wait_selected(self, feature: str, panes: tuple[str, ...] = LINKED) -> None:
        """Wait until every linked pane says that this feature is selected ("" for none)."""
        for name in panes:
            self.wait(name, "selected", f"(value ?? '') === {feature!r}")

    def selected_in_kernel(self, name: str = "explorer") -> str:
        """What the kernel holds as the selected feature."""
        return self.nb.run_code(f"print({name}.selected_feature)").strip()
