"""An SAE from elsewhere in a real page: it waits for a word, and then every pane shows it."""

from __future__ import annotations

from tests.browser.explorer import ExplorerPage, cell
from tests.browser.lab import Lab

ELSEWHERE = """
import torch
from sae_widget.sae import StandardSAE
draw = lambda *shape: torch.randn(shape, generator=torch.Generator().manual_seed(len(shape)))
told = {"model_name": "gpt2", "layer": 8, "hook_name": "resid_pre"}
parts = {"W_enc": draw(192, 40), "b_enc": draw(40), "W_dec": draw(40, 192), "b_dec": draw(192)}
elsewhere = StandardSAE(**parts, metadata=told)
"""


def test_an_sae_of_another_model_is_shown_after_a_word(lab: Lab) -> None:
    """F53, F57: asked for in a cell, and in the page with the keyboard alone."""
    nb = lab.open([cell()])
    nb.run_cell(0)
    page = ExplorerPage(nb)
    page.wait_painted()
    page.wait_features()
    nb.run_code(ELSEWHERE + "explorer.show(elsewhere)")
    page.pane("status").get_by_text("This SAE was trained on gpt2 resid_pre 8, the explorer reads bundled").wait_for()
    page.press("Keep what is here")
    page.pane("status").get_by_text("The other SAE was not loaded.").wait_for()
    assert not page.button("Load anyway").is_visible()
    assert nb.run_code("print(explorer.sae.d_sae)").strip() != "40"

    nb.run_code("from sae_widget import save_sae\nsave_sae(elsewhere, 'runs/elsewhere')")
    form = page.pane("controls")
    field = nb.scroll_into_view(form.get_by_label("folder of a saved SAE"))
    assert page.button("Show").is_disabled()
    field.fill("runs/elsewhre")
    field.press("Tab")  # leaving the field asks for nothing
    assert page.button("Show").evaluate("(button) => button === document.activeElement")
    page.button("Show").press("Enter")
    form.get_by_text("runs/elsewhre: there is no such folder.").wait_for()
    form.get_by_text("Now:").wait_for(state="detached")
    assert field.get_attribute("aria-invalid") == "true"
    field.fill("runs/elsewhere")
    field.press("Enter")
    form.get_by_text("This SAE was trained on gpt2 resid_pre 8, the explorer reads bundled").wait_for()
    anyway = form.get_by_role("button", name="Load anyway")
    field.fill("runs/elsewhere2")  # another folder in the field: the question is not about that one
    anyway.wait_for(state="hidden")
    field.fill("runs/elsewhere")
    anyway.wait_for()
    nb.screenshot("folder-question")
    form.get_by_role("button", name="Load anyway").press("Enter")
    page.pane("status").get_by_text("though trained on gpt2 resid_pre 8: 40 features.").wait_for()
    form.get_by_text("Now: the SAE of elsewhere").wait_for()
    assert field.get_attribute("aria-invalid") == "false"
    page.wait("bars", "bars", "value === '40'")
    page.wait_selected(page.click_bar(0))
    assert page.button("Continue").is_enabled()


def test_what_was_trained_is_saved_in_the_page_and_shown_again(lab: Lab) -> None:
    nb = lab.open([cell()], height=1500)
    nb.run_cell(0)
    page = ExplorerPage(nb)
    page.wait_painted()
    page.trained()
    weight = nb.run_code("print(float(explorer.sae.W_dec[3, 5]))")
    form = page.pane("controls")
    field = nb.scroll_into_view(form.get_by_label("name to save under"))
    assert page.button("Save").is_disabled()
    field.fill("../mine")
    page.press("Save")
    form.get_by_text("A name has 1 to 80 letters").wait_for()
    assert field.get_attribute("aria-invalid") == "true"
    field.fill("mine")
    field.press("Enter")
    form.get_by_text("Saved in saes/mine: your SAE, after block 2, step 120").wait_for()
    assert field.get_attribute("aria-invalid") == "false"
    field.press("Enter")
    form.get_by_text("There is something named saes/mine already.").wait_for()
    nb.screenshot("save-box")

    page.press("Reset")
    form.get_by_text("Now: the bundled SAE").wait_for()
    form.get_by_label("folder of a saved SAE").fill("saes/mine")
    page.press("Show")
    form.get_by_text("Now: the SAE of mine, after block 2").wait_for()
    assert nb.run_code("print(float(explorer.sae.W_dec[3, 5]))") == weight
