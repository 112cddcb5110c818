"""The desk: all or nothing when reading, one SAE for each place, no SAE of another place."""

import pytest
import torch

from sae_widget.config import TrainConfig
from sae_widget.features import FeatureStats
from sae_widget.runner.desk import Desk
from sae_widget.sae.standard import StandardSAE


@pytest.fixture
def desk(tiny_gpt2):
    made = Desk()
    made.take_model(tiny_gpt2)
    made.read("some text here", 1, "resid_pre", prepend_bos=True)
    return made


def an_sae(d_in=32, **metadata):
    zeros = torch.zeros
    return StandardSAE(zeros(d_in, 4), zeros(4), zeros(4, d_in), zeros(d_in), metadata=metadata)


def test_nothing_can_be_read_without_a_model():
    with pytest.raises(ValueError, match="no language model"):
        Desk().read("text", 0, "resid_pre", prepend_bos=True)


@pytest.mark.parametrize(("text", "layer", "hook"), [("", 1, "resid_pre"), ("x", 9, "resid_pre"), ("x", 1, "nose")])
def test_a_refused_text_or_place_changes_nothing(desk, text, layer, hook):
    before = desk.prompt, desk.site
    with pytest.raises(ValueError):
        desk.read(text, layer, hook, prepend_bos=True)
    assert (desk.prompt, desk.site) == before


def test_the_corpus_is_read_once_for_a_place(desk):
    assert sum(1 for _ in desk.read_training_data("documentation", 500, "")) >= 1
    corpus = desk.corpus
    assert corpus.n_tokens == 500
    assert list(desk.read_training_data("documentation", 500, "")) == []
    assert desk.corpus is corpus
    list(desk.read_training_data("text", 500, "only this text"))
    assert desk.corpus.texts == ("only this text",)


def test_statistics_while_training_and_at_the_end(desk):
    list(desk.read_training_data("documentation", 300, ""))
    trainer = desk.start_training(TrainConfig(d_sae=16, k=2, steps=5, batch_size=32), "a run")
    for _ in trainer.run():
        pass
    shown = desk.show_training(final=True)
    assert isinstance(shown.stats, FeatureStats)
    assert shown.source == "your SAE, after block 1, step 5"
    assert shown.sae.metadata["hook_name"] == "resid_pre"
    first, second = desk.features(), desk.features()
    assert second.version == first.version + 1
    desk.forget_training()
    assert desk.features() is None
    assert not desk.can_continue


def test_an_sae_of_another_place_is_refused_with_both_names(desk):
    other = an_sae(model_name="gpt2", layer=5, hook_name="mlp_out")
    with pytest.raises(ValueError, match=r"trained on gpt2 mlp_out 5, the explorer reads .* resid_pre 1"):
        desk.open(other, None, "a file", "its key")
    with pytest.raises(ValueError, match="reads 7 dimensions, after block 1 has 32"):
        desk.open(an_sae(d_in=7), None, "a file", "its key")
    desk.open(an_sae(), None, "a file", "its key")
    assert desk.features().source == "a file"
