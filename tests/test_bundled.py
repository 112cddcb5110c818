"""What ships: a model that beats an n-gram, an SAE for each place, small enough for the wheel."""

import json
from pathlib import Path

import pytest
import torch

import sae_widget
from sae_widget.activations.extract import get_activations
from sae_widget.activations.models import load_model
from sae_widget.bundled import bundled_sae, sae_folder
from sae_widget.features import feature_stats

FOLDER = Path(sae_widget.__file__).parent / "bundled"
REPORT = json.loads((FOLDER / "saes" / "report.json").read_text(encoding="utf-8"))
TEXT = (
    "The old man sat down by the fire and told the children a story about the sea. They listened until the clock "
    "struck nine, and then their mother came in with a candle and said that it was time for bed."
)


@pytest.fixture(scope="module")
def model():
    return load_model("bundled")


def test_the_card_says_that_it_beats_the_trigram():
    report = json.loads((FOLDER / "model" / "pretrain_report.json").read_text())
    assert report["held_out_perplexity"] <= 0.75 * report["trigram_perplexity"]
    card = (FOLDER / "README.md").read_text()
    for number in (f"{report['held_out_perplexity']:.1f}", f"{report['trigram_perplexity']:.1f}"):
        assert number in card


def test_the_card_says_of_each_sae_what_was_measured():
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    for row in REPORT["saes"]:
        both = f"{row['explained_variance']:.3f} | {row['explained_variance_with_first']:.3f}"
        assert f"| {row['place']} | {both} | {row['l0']:.1f} | {row['dead']} |" in card
    assert {row["folder"] for row in REPORT["saes"]} == {path.parent.name for path in FOLDER.glob("saes/*/cfg.json")}


def test_the_model_reads_better_than_its_alphabet(model):
    """The weights in the wheel give the loss that the card claims, within what one short text can tell."""
    ids = torch.tensor([model.tokenizer(TEXT)["input_ids"]])
    with torch.no_grad():
        logits = model.network(ids).logits[0, :-1]
    loss = torch.nn.functional.cross_entropy(logits, ids[0, 1:])
    assert 2.0 < float(loss) < 4.5


def test_size_in_the_wheel():
    assert sum(p.stat().st_size for p in FOLDER.rglob("*") if p.is_file()) <= 16_000_000


@pytest.mark.parametrize("layer", range(7))
def test_every_place_has_an_sae_that_reconstructs_held_out_text(model, layer):
    place = (layer, "resid_pre") if layer < 6 else (5, "resid_post")
    sae, stats = bundled_sae(*place, model.n_layer)
    told = {row["folder"]: row for row in REPORT["saes"]}[sae_folder(*place, model.n_layer).name]
    assert (sae.d_in, sae.d_sae) == (model.d_in, told["d_sae"])
    assert int(stats.dead.sum()) == told["dead"] <= 0.02 * told["d_sae"]
    assert stats.explained_variance == pytest.approx(told["explained_variance"], abs=0.03)  # that is of held-out books
    assert told["explained_variance"] > 0.8
    acts = get_activations(model, TEXT, *place, prepend_bos=True)
    assert feature_stats(sae, acts.values, acts.position).explained_variance > 0.5
