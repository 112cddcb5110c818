"""Every kind of SAE is chosen in the real form: only its own settings are seen, nothing is cut off, and it trains."""

from __future__ import annotations

from playwright.sync_api import expect

from sae_widget.sae import REGISTRY
from sae_widget.sae.base import SAE
from tests.browser.explorer import QUICK, ExplorerPage, cell
from tests.browser.lab import DARK, Lab

# Labels of the settings that not every kind has.
PENALTIES = {"standard": "L1 penalty", "gated": "L1 penalty", "jumprelu": "L0 penalty"}
FOLDED = {"matryoshka_batchtopk": {"Levels"}, "jumprelu": {"Bandwidth"}}
SOMETIMES = ("Per token (k)", "Per token (L0)", "Sparsity", "L1 penalty", "L0 penalty", "Levels", "Bandwidth")
LABELS = """(form) => [...form.querySelectorAll('.widget-label')]
    .filter((node) => node.offsetParent).map((node) => node.textContent.trim())"""
CUT_OFF = """(form) => [form, ...form.querySelectorAll('button, select, .widget-label')]
    .filter((node) => node.offsetParent && node.scrollWidth > node.clientWidth + 1)
    .map((node) => node.textContent.slice(0, 60))"""
# A list shows its choice in the room beside its arrow; the page does not say when that is too little.
WORDS_FIT = """(select) => {
    const style = getComputedStyle(select), pen = document.createElement('canvas').getContext('2d');
    pen.font = `${style.fontWeight} ${style.fontSize} ${style.fontFamily}`;
    const room = select.clientWidth - parseFloat(style.paddingLeft) - 18;
    return [...select.options].map((option) => option.text).filter((words) => pen.measureText(words).width > room);
}"""


def seen(page: ExplorerPage, wanted: set[str]) -> None:
    """Wait until of the settings that not every kind has just these are seen; nothing is cut off."""
    form = page.pane("controls")
    for label in SOMETIMES:
        found = form.locator(".widget-label").get_by_text(label, exact=True).locator("visible=true")
        expect(found).to_have_count(int(label in wanted))
    assert set(form.evaluate(LABELS)) & set(SOMETIMES) == wanted
    assert form.evaluate(CUT_OFF) == []


def test_each_kind_shows_its_own_settings_and_trains(lab: Lab) -> None:
    nb = lab.open([cell(QUICK)], width=900, height=2400)
    nb.execute("application:toggle-left-area")
    nb.run_cell(0)
    page = ExplorerPage(nb)
    page.wait_painted()
    nb.run_code("explorer.set(steps=30)")
    form = page.pane("controls")
    chooser = form.locator("select").filter(has=nb.page.locator("option", has_text=REGISTRY["topk"].words))
    assert chooser.evaluate(WORDS_FIT) == []
    for name, kind in REGISTRY.items():
        chooser.select_option(label=kind.words)
        form.get_by_text(kind.about).wait_for()
        if name in PENALTIES:
            form.get_by_role("button", name="Penalty", exact=True).click()
            seen(page, {"Sparsity", PENALTIES[name]})
            form.get_by_role("button", name="How many fire").click()
            seen(page, {"Sparsity", "Per token (L0)"})
        else:
            seen(page, {"Per token (k)"})
        if name in FOLDED:
            before = {"Sparsity", "Per token (L0)"} if name in PENALTIES else {"Per token (k)"}
            page.press("Advanced settings")
            seen(page, before | FOLDED[name])
            nb.screenshot(f"form-{name}", form)
            page.press("Hide advanced settings")
            seen(page, before)
        assert nb.run_code("print(explorer.settings.architecture)").strip() == name
        if kind.fire is not SAE.fire:  # as ``sae.base.trainable`` has it
            nb.run_code("explorer.reset(); explorer.wait(30)")
            expect(page.button("Reset")).to_be_disabled()  # the page has it too: nothing moves under the mouse any more
            page.trained()
            page.wait("chart", "step", "value === '30'")
            assert nb.run_code("print(explorer.sae.architecture, explorer.history.last.step)").split() == [name, "30"]


def test_the_frequencies_are_drawn_in_both_themes(lab: Lab) -> None:
    nb = lab.open([cell("")], theme=DARK, height=1900)
    nb.run_cell(0)
    page = ExplorerPage(nb)
    page.wait_painted()
    page.wait_features()
    health = page.pane("health")
    bars = health.locator(".sae-frequency-bar")
    expect(bars).to_have_count(11)
    total = nb.run_code("print(explorer.sae.d_sae)").strip()
    told = health.locator(".sae-frequency-column").evaluate_all(
        "(columns) => columns.map((column) => Number(column.title.split(' ')[0].replace(',', '')))"
    )
    assert sum(told) == int(total) and max(told) > 100
    heights = bars.evaluate_all("(bars) => bars.map((bar) => bar.getBoundingClientRect().height)")
    assert [height > 0 for height in heights] == [count > 0 for count in told]
    assert heights.index(max(heights)) == told.index(max(told))
