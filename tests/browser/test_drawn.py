"""What is drawn is what the kernel holds: bars, strips, tokens, losses and numbers, read off the page again."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import numpy as np
import pytest

from tests.browser.explorer import QUICK, ExplorerPage, cell
from tests.browser.lab import DARK, Lab

# From the results themselves, not from the widgets that show them.
KERNEL = """
import json, numpy as np
from sae_widget.features import measured, order_features
from sae_widget.views.chart import MAX_POINTS

def truth():
    state, features = explorer.state, explorer.features
    order = order_features(features, state.sort, state.measure, state.token, hide_dense=state.hide_dense)
    heights, page = measured(features, state.measure, state.token), min(state.bar_page, (len(order) - 1) // 64)
    ids = [int(i) for i in order[64 * page : 64 * page + 64]]
    first = state.rows * min(state.page, (len(order) - 1) // state.rows)
    strips = [int(i) for i in order[first : first + state.rows]]
    prompt, acts, selected = features.prompt, [], state.selected
    if selected is not None:
        acts = [0.0] * len(prompt.activations.labels)
        for token in range(len(acts)):
            at = slice(int(prompt.indptr[token]), int(prompt.indptr[token + 1]))
            acts[token] = float(prompt.acts[at][prompt.ids[at] == selected].sum())
    trained = explorer.history is not None and len(explorer.history) > 0
    losses = explorer.history.series(("loss",), MAX_POINTS)["loss"] if trained else np.zeros(0)
    if state.log_loss:
        losses = np.log(losses)
    return {
        "ids": ids, "heights": [max(0.0, float(heights[i])) for i in ids], "selected": selected, "strips": strips,
        "weights": [[float(w) for w in features.sae.W_dec[i]] for i in strips[:3]], "acts": acts,
        "l0": float(features.stats.l0), "losses": [float(x) for x in losses],
    }
"""
# The same from the page: of the bars' rectangles, the strips' pixels, the tokens' shades and the losses' path.
PAGE = """() => {
    const pane = (name) => document.querySelector(`[data-pane='${name}']`);
    const number = (node, name) => Number(node?.getAttribute(name) ?? 0);
    const heights = [...pane("bars").querySelectorAll(".bargroup rect")].map((bar) => number(bar, "height"));
    const canvas = pane("heatmap").querySelector(".saew-sheet canvas");
    const { width, height, data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    const strips = [0, 1, 2].map((row) => {
        const y = 18 + 17 * row + 8, line = [];
        for (let x = 0; x < width; x++) {
            const at = 4 * (y * width + x);
            if (data[at + 3]) line.push(data[at + 2] - data[at]);  // blue less red: the sign of a weight, and its size
        }
        return line;
    });
    const names = [...pane("heatmap").querySelectorAll(".saew-row .saew-number")].map((node) => node.textContent);
    const path = pane("chart").querySelector("path.line")?.getAttribute("d") ?? "";
    return {
        heights, strips, names, path,
        ticks: [...pane("bars").querySelectorAll(".sae-tick:not([hidden])")].map((node) => Number(node.textContent)),
        chosen: pane("bars").querySelector(".sae-column-selected")?.hidden ? null
            : pane("bars").querySelector(".sae-column-selected")?.getAttribute("aria-label"),
        acts: [...pane("tokens").querySelectorAll(".saew-strip .saew-token")].map((node) => number(node, "data-act")),
        cards: pane("health").querySelector(".sae-health-row").textContent,
    };
}"""


def differences(drawn: dict[str, Any], true: dict[str, Any]) -> list[str]:
    """In words, what the page shows otherwise than the kernel has it."""
    found = []
    heights, wanted = np.array(drawn["heights"]), np.array(true["heights"])
    if len(heights) != len(wanted):
        found.append(f"{len(heights)} bars for {len(wanted)} features")
    elif wanted.max() > 0 and not np.allclose(heights / heights.max(), wanted / wanted.max(), atol=0.01):
        found.append(f"bars {heights[:5]} for {wanted[:5]}")
    if not drawn["ticks"] or not set(drawn["ticks"]) <= set(true["ids"]):  # those for which there is room
        found.append(f"numbers {drawn['ticks'][:5]} below the bars of {true['ids'][:5]}")
    chosen = f"Feature {true['selected']}" if true["selected"] in true["ids"] else None
    if (drawn["chosen"] or "").split(",")[0].split(" “")[0] != (chosen or ""):
        found.append(f"{drawn['chosen']} stands out for {chosen}")
    for name, feature in zip(drawn["names"], true["strips"], strict=False):
        if name != str(feature):
            found.append(f"a strip called {name} for {feature}")
            break
    for line, weights in zip(drawn["strips"], true["weights"], strict=True):
        middles = (
            (np.arange(len(weights)) + 0.5) * len(line) / len(weights)
        )  # here each dimension has pixels of its own
        seen = np.array(line)[middles.astype(int)]
        if np.corrcoef(seen, weights)[0, 1] < 0.75:
            found.append(f"a strip of pixels {seen[:6]} for the weights {np.round(weights[:6], 2)}")
            break
    acts, wanted_acts = np.array(drawn["acts"]), np.array(true["acts"])
    if true["selected"] is None:
        wanted_acts = np.zeros(len(acts))
    # The first position is left out.
    if len(acts) != len(wanted_acts) or not np.allclose(acts[1:], wanted_acts[1:], rtol=0.02, atol=0.01):
        found.append(f"tokens {acts.tolist()} for {wanted_acts.round(2).tolist()}")
    if f"{true['l0']:.1f}" not in drawn["cards"]:
        found.append(f"L0 {true['l0']:.1f} is not in {drawn['cards']}")
    points = [float(y) for y in re.findall(r"[ML][-\d.]+,([-\d.]+)", drawn["path"])]  # from above, in pixels
    if len(points) != len(true["losses"]):
        found.append(f"{len(points)} points for {len(true['losses'])} losses")
    elif points and np.corrcoef(points, true["losses"])[0, 1] > -0.999:
        found.append(
            f"a line from {points[0]} to {points[-1]} px for losses {true['losses'][0]} to {true['losses'][-1]}"
        )
    return found


def check(page: ExplorerPage, after: str) -> dict[str, Any]:
    """Wait until the page shows what the kernel holds; returns that."""
    end = time.monotonic() + 15
    while True:
        true = json.loads(page.nb.run_code("print(json.dumps(truth()))"))
        wrong = differences(page.nb.page.evaluate(PAGE), true)
        if not wrong:
            return true
        assert time.monotonic() < end, f"after {after}: {'; '.join(wrong)}"
        page.nb.frames(2)


@pytest.fixture
def page(lab: Lab) -> ExplorerPage:
    nb = lab.open([cell(QUICK)], height=2000)
    nb.run_cell(0)
    page = ExplorerPage(nb)
    page.wait_painted()
    page.wait_features()
    nb.run_code(KERNEL)
    return page


def test_every_pane_draws_what_the_kernel_holds(page: ExplorerPage) -> None:
    set_state = "explorer.state.{} = {}".format
    check(page, "the start")
    for name, value in (("measure", "'max'"), ("bar_page", "1"), ("bar_page", "0"), ("hide_dense", "False")):
        page.nb.run_code(set_state(name, value))
        check(page, f"{name} {value}")
    page.click_bar(2)
    chosen = check(page, "a click")
    page.nb.page.keyboard.press("Home")  # while the pointer rests on another bar, whose readout stays
    page.wait("bars", "selected", f"value === '{chosen['ids'][0]}'")
    stands_out = page.pane("bars").locator(".sae-column-selected")
    assert (stands_out.get_attribute("aria-label") or "").startswith(f"Feature {chosen['ids'][0]},")
    page.click_bar(2)
    page.nb.page.mouse.move(4, 4)
    assert chosen["selected"] == chosen["ids"][2] and any(chosen["acts"])
    for name, value in (
        *(
            ("bar_page", "1"),
            ("bar_page", "0"),
            ("measure", "'mean'"),
            ("page", "1"),
            ("page", "0"),
            ("sort", "'number'"),
        ),
        *(("sort", "'activation'"), ("token", "3"), ("measure", "'token'"), ("measure", "'mean'"), ("layer", "1")),
    ):
        page.nb.run_code(set_state(name, value))
        page.wait_phase("ready")
        check(page, f"{name} {value} with a feature selected")
    page.type_text("Superposition is the sum of all fears.")
    page.wait_token("fears")
    check(page, "another text")
    page.trained()
    trained = check(page, "a training")
    page.click_bar(5)
    check(page, "a click on what was trained")
    for log_loss in ("False", "True"):
        page.nb.run_code(set_state("log_loss", log_loss))
        check(page, f"log_loss {log_loss}")
    page.nb.run_code("explorer.state.settings = explorer.state.settings.changed(seed=1)")
    page.nb.run_code("explorer.train(); explorer.wait(60)")
    assert check(page, "another training")["losses"] != trained["losses"]
    page.nb.theme(DARK)
    check(page, "another theme")
    page.nb.execute("docmanager:save")
    page.nb.reload()
    page.wait_features()
    check(page, "a reload")
    page.press("Reset")
    page.wait_phase("ready")
    assert not check(page, "a reset")["losses"]
