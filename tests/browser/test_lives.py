"""What happens around an explorer: two of them, two displays, a reload, a second tab, a restarted kernel."""

from __future__ import annotations

from tests.browser.explorer import ENDLESS, QUICK, ExplorerPage, cell
from tests.browser.lab import Lab


def test_two_explorers_train_and_select_apart(lab: Lab) -> None:
    nb = lab.open([cell(ENDLESS, "one"), cell(ENDLESS.replace("layer=2", "layer=1"), "two")])
    nb.run_cell(0)
    nb.run_cell(1)
    one, two = ExplorerPage(nb, 0), ExplorerPage(nb, 1)
    one.wait_painted()
    two.wait_painted()
    one.train()
    two.train()
    for page in (one, two):  # both move at the same time
        seen = int(page.wait("chart", "step", "Number(value) > 0"))
        page.wait("chart", "step", f"Number(value) > {seen}")
    for page in (one, two):
        page.press("Stop")
        page.wait_phase("ready")
        page.wait_features()
    first = one.click_bar(0)
    one.wait_selected(first)
    assert two.attribute("bars", "selected") == ""
    assert two.selected_in_kernel("two") == "None"
    second = two.click_bar(3)
    two.wait_selected(second)
    assert one.selected_in_kernel("one") == first


def test_one_explorer_shown_twice_is_one_trainer(lab: Lab) -> None:
    """F37"""
    nb = lab.open([cell(QUICK), "explorer"])
    nb.run_cell(0)
    nb.run_cell(1)
    above, below = ExplorerPage(nb, 0), ExplorerPage(nb, 1)
    above.wait_painted()
    above.trained()
    below.wait_features()
    assert above.attribute("chart", "step") == below.wait("chart", "step", "value === '120'")
    feature = below.click_bar(1)
    above.wait_selected(feature)
    below.wait_selected(feature)
    assert nb.run_code("print(len([t for t in __import__('threading').enumerate() if 'sae' in t.name.lower()]) <= 3)")


def test_the_same_cell_again_replaces_its_explorer(lab: Lab) -> None:
    """F36"""
    nb = lab.open([cell(ENDLESS)])
    nb.run_cell(0)
    page = ExplorerPage(nb)
    page.wait_painted()
    page.train()
    nb.run_code("first = explorer; before = __import__('threading').active_count()")
    nb.run_cell(0)
    page.wait_painted()
    assert nb.run_code("print(first.state.status.phase)").strip() == "closed" or "closed" in nb.run_code(
        "print(first.status)"
    )
    assert int(nb.run_code("print(before - __import__('threading').active_count())")) >= 0
    page.train()
    page.press("Stop")
    page.wait_phase("ready")


def test_reload_and_second_tab_while_training(lab: Lab) -> None:
    """F29"""
    nb = lab.open([cell(ENDLESS)])
    nb.run_cell(0)
    nb.execute("docmanager:save")
    page = ExplorerPage(nb)
    page.wait_painted()
    page.train()
    page.wait_phase("training")
    seen = int(page.attribute("chart", "step"))
    nb.reload()
    points = int(page.wait("chart", "points", "Number(value) > 1"))
    assert points > 1  # the early points are there, not only those from now on
    seen = int(page.wait("chart", "step", f"Number(value) > {seen}"))
    page.wait("chart", "step", f"Number(value) > {seen}")

    tab = nb.second_tab()
    chart = tab.locator("[data-pane='chart']")
    chart.wait_for(state="attached", timeout=60_000)
    tab.wait_for_function(
        "(seen) => Number(document.querySelector(\"[data-pane='chart']\")?.dataset.step) > seen", arg=seen
    )
    tab.close()
    page.press("Stop")
    page.wait_phase("ready")


def test_a_restarted_kernel_is_noticed_and_the_run_is_offered(lab: Lab) -> None:
    """F28"""
    nb = lab.open([cell(QUICK)])
    nb.run_cell(0)
    page = ExplorerPage(nb)
    page.wait_painted()
    page.trained()
    nb.restart_kernel()
    notice = page.pane("status").get_by_text("Not connected")
    notice.wait_for(state="visible", timeout=20_000)
    nb.run_cell(0)
    page.wait_painted()
    assert not page.pane("status").get_by_text("Not connected").is_visible()
    page.press("Restore the last trained SAE")
    nb.page.wait_for_function("() => document.querySelector('.sae-message').textContent.length > 0")
    page.wait_features()
    nb.run_code("explorer.wait(20)")
    assert nb.run_code("print(explorer.sae.d_sae)").strip() == "256"
