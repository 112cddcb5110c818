"""Heatmap and tokens in a real page: linked in the browser, deaf to HTML, alive while the kernel is busy."""

from __future__ import annotations

from tests.browser.lab import DARK

# Feature f fires on token f alone (and more weakly on the token behind it); 40 features of 24 dimensions.
SETUP = """
import numpy as np, torch
from sae_widget.activations.base import Activations
from sae_widget.features import Features, FeatureStats, PromptFeatures
from sae_widget.sae import StandardSAE
from sae_widget.state import ExplorerState, Status
from sae_widget.views.heatmap import WeightHeatmap
from sae_widget.views.tokens import TokenStrip
import ipywidgets

labels = ("<|endoftext|>", *LABELS)
n, d_in, d_sae = len(labels), 24, 40
ends = torch.arange(n)
activations = Activations(torch.zeros(n, d_in), ends, ends, torch.zeros(n, dtype=torch.long),
    torch.stack([(ends - 1).clamp_min(0), ends], 1), labels, ("x" * n,), (), "hand", 0, "resid_pre")
ids = np.stack([np.arange(n), np.maximum(np.arange(n) - 1, 0)], 1).ravel().astype(np.uint32)
acts = np.tile(np.array([3.0, 0.5], np.float32), n)
top = np.zeros(d_sae, np.float32); top[1:n] = 3.0
prompt = PromptFeatures(activations, (np.arange(n + 1) * 2).astype(np.uint32), ids, acts, top / n, top,
    np.arange(n, dtype=np.int32), np.arange(n) > 0)
W = torch.randn(d_sae, d_in, generator=torch.Generator().manual_seed(0))
sae = StandardSAE(W.T.contiguous(), torch.zeros(d_sae), W, torch.zeros(d_in))
frequency = np.linspace(0.5, 0, d_sae, dtype=np.float32)
stats = FeatureStats(frequency, top, top * 2, frequency == 0, 1000, 2.0, 0.8, 0.9)
state = ExplorerState(rows=16, sort="number", status=Status("ready", "Ready"), feature_names=NAMES)
state.features = Features(sae, stats, prompt, "by hand", 1)
tokens, heat = TokenStrip(state), WeightHeatmap(state)
ipywidgets.VBox([tokens.widget, heat.widget])
"""
WORDS = ["·was", "·the", "·best", "·of", "·times"]


def panes(lab, labels=WORDS, names=None, cells=(), **how):
    code = SETUP.replace("LABELS", repr(list(labels))).replace("NAMES", repr(names or {}))
    page = lab.open([code, *cells], **how)
    page.run_cell(0)
    found = page.pane("tokens", 0), page.pane("heatmap", 0)
    for pane in found:
        page.scroll_into_view(pane)
        page.wait_attribute(pane, "data-draws", "Number(value) > 0")
    return page, *found


def token(pane, index):
    return pane.locator(".saew-strip .saew-token").nth(index)


def kernel_says(page, expression, wanted):
    """Wait until the kernel holds a value: a change of the page waits its turn while another is on its way."""
    for _ in range(100):
        said = page.run_code(f"print({expression})").strip()
        if said == wanted:
            return
        page.frames(1)
    raise AssertionError(f"{expression} is {said}, wanted {wanted}")


def test_click_hover_keys_and_escape(lab):
    page, tokens, heat = panes(lab)
    token(tokens, 3).click()
    for pane in (tokens, heat):
        page.wait_attribute(pane, "data-selected", "value === '3'")
    page.wait_attribute(tokens, "data-lit", "value === '2'")
    assert token(tokens, 3).get_attribute("data-act") == "3" and token(tokens, 4).get_attribute("data-act") == "0.5"
    assert tokens.locator(".saew-tip").inner_text() == "3"
    assert "50% of its maximum 6" in tokens.locator(".saew-summary").inner_text()
    assert heat.locator("[role=option]").get_attribute("aria-label").startswith("feature 3")
    kernel_says(page, "state.selected, state.token", "3 3")

    sheet = heat.locator(".saew-sheet")
    sheet.hover(position={"x": 400, "y": 18 + 24 * 5 + 8})  # the sixth row: feature 5
    page.wait_attribute(tokens, "data-focus", "value === '5'")
    assert "dimension" in heat.locator(".saew-readout").inner_text()
    kernel_says(page, "state.selected", "3")
    page.page.mouse.move(2, 2)
    page.wait_attribute(tokens, "data-focus", "value === '3'")

    heat.locator(".saew-list").focus()
    page.page.keyboard.press("ArrowDown")
    page.wait_attribute(tokens, "data-selected", "value === '4'")
    page.page.keyboard.press("[")
    page.wait_attribute(tokens, "data-selected", "value === '3'")
    page.page.keyboard.press("Escape")
    page.wait_attribute(heat, "data-selected", "value === ''")
    kernel_says(page, "state.selected", "None")


def test_pages_keys_across_pages_and_the_way_back(lab):
    page, tokens, heat = panes(lab)
    token(tokens, 2).click()
    heat.get_by_label("Next page").click()
    chip = heat.locator(".saew-foot .saew-chip")
    chip.get_by_text("Feature 2 is on page 1: go there").wait_for()
    heat.locator(".saew-where").get_by_text("page 2 of 3").wait_for()
    chip.click()
    heat.locator(".saew-where").get_by_text("page 1 of 3").wait_for()
    chip.wait_for(state="hidden")
    heat.locator(".saew-list").focus()
    page.page.keyboard.press("End")
    page.wait_attribute(heat, "data-selected", "value === '15'")
    page.page.keyboard.press("ArrowDown")
    page.wait_attribute(heat, "data-selected", "value === '16'")
    heat.get_by_text("4 × 4").click()
    page.wait_attribute(heat.locator(".saew-sheet"), "data-arrangement", "value === 'grid'")
    heat.locator(".saew-number").get_by_text("Feature 16").wait_for()
    assert page.run_code("print(state.layout, state.page, state.selected)").split() == ["grid", "1", "16"]


BUSY = """
import pathlib, time
while not pathlib.Path("enough").exists():
    time.sleep(0.05)
"""


def test_a_click_is_shown_while_the_kernel_is_busy(lab):
    page, tokens, heat = panes(lab, cells=[BUSY])
    page.run_cell(1, wait=False)
    page.page.wait_for_function("() => window.notebookPanel().sessionContext.session.kernel.status === 'busy'")
    paints = []
    for index in (1, 2, 3, 4, 5, 1, 2, 3, 4, 5):
        token(tokens, index).click()
        for pane in (tokens, heat):
            page.wait_attribute(pane, "data-selected", f"value === '{index}'")
            paints.append(float(page.wait_attribute(pane, "data-paint-ms", "value !== null")))
    assert sorted(paints)[len(paints) // 2] < 250
    (page.lab.server.root / "enough").touch()
    page.wait_kernel_idle()
    # The page sends the last click when the kernel has answered the first: Python hears of it a little later.
    told = ""
    for _ in range(50):
        told = page.run_code("print(state.selected)").strip()
        if told == "5":
            break
    assert told == "5" and heat.get_attribute("data-selected") == "5"


PAYLOADS = [
    '<img src=x onerror="window.PWN=1">',
    "<script>window.PWN=1</script>",
    "{{constructor.constructor('window.PWN=1')()}}",
    "$\\href{javascript:window.PWN=1}{x}$",
    '" onmouseover="window.PWN=1" x="',
    "javascript:window.PWN=1",
    "</style><svg onload=window.PWN=1>",
    "\u202egnp.exe",
]


def test_tokens_and_names_are_shown_as_text(lab):
    page, tokens, heat = panes(lab, labels=PAYLOADS, names=dict(enumerate(PAYLOADS)))
    for index, payload in enumerate(PAYLOADS, 1):
        assert token(tokens, index).text_content() == payload
        token(tokens, index).hover()
        token(tokens, index).click()
        page.wait_attribute(heat, "data-selected", f"value === '{index}'")
    heat.locator(".saew-sheet").hover(position={"x": 300, "y": 60})
    heat.get_by_text("4 × 4").click()
    page.wait_attribute(heat.locator(".saew-sheet"), "data-arrangement", "value === 'grid'")
    assert page.page.evaluate("window.PWN") is None
    assert page.page.locator("[data-pane] img, [data-pane] script, [data-pane] svg").count() == 0
    assert PAYLOADS[0] in heat.locator(".saew-rows").text_content()


def test_shown_twice_both_follow(lab):
    page, tokens, heat = panes(lab, cells=["ipywidgets.VBox([tokens.widget, heat.widget])"])
    page.run_cell(1)
    second = page.pane("heatmap", 1)
    page.scroll_into_view(second)
    page.wait_attribute(second, "data-draws", "Number(value) > 0")
    page.scroll_into_view(tokens)
    token(tokens, 4).click()
    for pane in (tokens, heat, second, page.pane("tokens", 1)):
        page.wait_attribute(pane, "data-selected", "value === '4'")
    ids = page.page.evaluate("[...document.querySelectorAll('[data-pane] [id]')].map((node) => node.id)")
    assert len(ids) == len(set(ids))


def brightness(heat):
    """How bright the strips are on the whole, 0 to 255."""
    return heat.locator("canvas").evaluate(
        """(canvas) => {
            const { data } = canvas.getContext('2d').getImageData(canvas.width / 2, 0, 1, canvas.height);
            let sum = 0, n = 0;
            for (let i = 0; i < data.length; i += 4) {
                if (data[i + 3] !== 255) continue;
                sum += data[i] + data[i + 1] + data[i + 2];
                n += 3;
            }
            return sum / n;
        }"""
    )


CLIPPED = """(root) => [...root.querySelectorAll('button, select, .saew-title, .saew-scale, .saew-where')]
    .filter((node) => node.offsetParent && node.scrollWidth > node.clientWidth + 1)
    .map((node) => node.textContent)"""


def test_the_panes_follow_the_theme_and_the_width_and_clip_nothing(lab):
    page, tokens, heat = panes(lab)
    light = brightness(heat)
    draws = page.draws(heat)
    page.theme(DARK)
    page.wait_attribute(heat, "data-theme", "value === 'dark'")
    page.wait_attribute(heat, "data-draws", f"Number(value) > {draws}")
    assert light > 130 > brightness(heat)
    for width in (1400, 900):
        draws = page.draws(heat)
        if width != 1400:
            page.page.set_viewport_size({"width": width, "height": 1000})
            page.wait_attribute(heat, "data-draws", f"Number(value) > {draws}")
        for pane in (tokens, heat):
            assert pane.evaluate("(root) => root.scrollWidth - root.clientWidth") <= 0
        assert heat.evaluate(CLIPPED) == []
