"""The runner between places and runs: examples, continued runs and settings belong to the SAE that is shown."""

import threading

import torch

from sae_widget.activations.base import ModelLoadError
from sae_widget.autosave import saved_runs
from sae_widget.config import TrainConfig
from sae_widget.features import top_contexts
from sae_widget.training import TrainingFault
from tests.running import ENDLESS, QUICK, begin, train, until, weights


def look(state, runner, feature):
    """Select a feature and wait for its card."""
    state.selected = feature
    until(lambda: state.card is not None and state.card.feature == feature)
    assert runner.wait(30)
    return state.card


def test_examples_are_read_where_the_sae_reads(start):
    state, runner = start()
    train(runner)
    state.layer = 1
    assert runner.wait(30)
    train(runner)
    feature = int(state.features.stats.frequency.argmax())
    card = look(state, runner, feature)
    assert runner.desk.corpus.layer == 1
    assert card.contexts == top_contexts(state.features.sae, runner.desk.corpus, feature)
    state.layer = 2  # its SAE comes back, and the examples must not be those of layer 1's activations
    assert runner.wait(30)
    again = look(state, runner, int(state.features.stats.frequency.argmax()))
    assert runner.desk.corpus.layer == 2
    assert again.contexts == top_contexts(state.features.sae, runner.desk.corpus, again.feature)


def test_a_run_that_goes_on_after_another_place_is_measured_on_its_own_data(start):
    state, runner = start()
    train(runner)
    trained_on = runner.desk.corpus
    state.layer, state.selected = 1, 3
    assert runner.wait(30)
    state.layer = 2
    assert runner.wait(30)
    runner.command("resume")
    assert runner.wait(60)
    assert state.features.source.endswith("step 120")
    assert state.features.stats.n_tokens == int((trained_on.position != 0).sum())
    assert state.features.stats.explained_variance > 0.3


def test_a_run_goes_on_after_another_model(start, tiny_gpt2_dir):
    state, runner = start()
    train(runner)
    before = weights(state.features.sae)
    state.model = "bundled"
    assert runner.wait(60)
    state.model, state.layer = str(tiny_gpt2_dir), 2
    assert runner.wait(60)
    runner.command("resume")
    assert runner.wait(60)
    assert state.features.source.endswith("step 120")
    assert not torch.equal(weights(state.features.sae), before)


def test_what_an_sae_cannot_take_does_not_stop_what_it_can(start):
    state, runner = start(settings=ENDLESS)
    begin(state, runner)
    state.settings = state.settings.changed(d_sae=64)
    until(lambda: "d_sae: a change of this needs a new SAE" in state.status.message)
    state.settings = state.settings.changed(learning_rate=5e-4)
    until(lambda: runner.desk.trainer.config.learning_rate == 5e-4)
    assert runner.desk.trainer.config.d_sae == 48
    runner.command("stop")
    assert runner.wait(30)


def test_continue_goes_on_with_the_sae_as_it_is_whatever_the_form_says(start):
    state, runner = start()
    train(runner)
    state.settings = state.settings.changed(d_sae=64, seed=7, learning_rate=5e-4, steps=40)
    runner.command("resume")
    assert runner.wait(60)
    assert state.status.phase == "ready" and state.features.sae.d_sae == 48
    assert runner.desk.trainer.step == 100
    assert runner.desk.trainer.config.learning_rate == 5e-4


def test_reset_offers_what_it_put_aside(start):
    state, runner = start()
    train(runner)
    runner.command("reset")
    assert runner.wait(30)
    assert state.features is None and "restore" in state.offers and "Restore" in state.status.message
    runner.command("restore")
    assert runner.wait(30)
    assert state.features.sae.d_sae == 48
    assert state.features.key == saved_runs()[0].path.name


def test_what_a_new_run_replaces_is_offered_no_more(start):
    _, first = start()
    train(first)
    state, runner = start()  # a kernel that was restarted: the SAE of the one before is on disk
    assert state.offers == ("restore",)
    train(runner)
    assert state.offers == ()


def test_faults_show_in_the_pane_they_belong_to(start):
    state, runner = start(corpus="/no/such/folder")
    runner.command("train")
    assert runner.wait(30)
    assert list(state.faults) == ["controls"] and "/no/such/folder" in state.faults["controls"]
    state.corpus = "documentation"
    train(runner)
    assert state.faults == {}


def test_a_corpus_that_is_not_there_costs_a_card_only_its_examples(start):
    state, runner = start(model="bundled", corpus="/no/such/folder")
    card = look(state, runner, 5)
    assert state.status.phase == "ready"
    assert card.contexts is None and len(card.neighbours) > 0
    assert list(state.faults) == ["card"] and "/no/such/folder" in state.faults["card"]
    state.corpus, state.selected = "documentation", 6
    until(lambda: state.card.feature == 6)
    assert state.card.contexts and state.faults == {}


def test_live_settings_leave_what_an_sae_is():
    config, wanted = QUICK, TrainConfig(architecture="standard", d_sae=512, k=7, learning_rate=3e-4, steps=9)
    made = config.with_live(wanted)
    assert (made.architecture, made.d_sae, made.seed) == (config.architecture, config.d_sae, config.seed)
    assert (made.k, made.learning_rate, made.steps) == (7, 3e-4, 9)


def test_a_corpus_that_is_there_after_all_gives_what_the_last_one_did_not(start, tmp_path):
    state, runner = start(model="bundled", corpus="/no/such/folder", corpus_tokens=600)
    look(state, runner, 5)
    assert list(state.faults) == ["card"] and state.fidelity is None
    (tmp_path / "corpus.txt").write_text("A quick brown fox jumps over the lazy dog. " * 60)
    state.corpus = str(tmp_path / "corpus.txt")
    assert runner.wait(60)
    assert state.faults == {} and state.card.contexts is not None and state.fidelity is not None


def test_without_a_selected_feature_nothing_is_said_of_its_examples(start):
    state, runner = start(model="bundled", corpus="/no/such/folder")
    look(state, runner, 5)
    state.selected = None
    assert runner.wait(30)
    assert state.faults == {}


def test_what_is_restored_after_a_reset_is_what_the_next_reset_goes_back_to(start):
    state, runner = start()
    train(runner)
    for command in ("reset", "restore"):
        runner.command(command)
        assert runner.wait(30)
    restored = state.features.sae
    assert state.fidelity is not None and not state.unmeasured
    train(runner)
    runner.command("reset")
    assert runner.wait(30)
    assert state.features.sae is restored


def test_reset_takes_away_what_was_said_of_the_training(start):
    state, runner = start(settings=ENDLESS)
    begin(state, runner)
    fault = TrainingFault(runner.desk.trainer.step + 1, 1e-3, "loss", float("nan"))
    runner.desk.trainer._engine.advance = lambda *_: (_ for _ in ()).throw(fault)
    assert runner.wait(30)
    assert list(state.faults) == ["chart"]
    runner.command("reset")
    assert runner.wait(30)
    assert state.faults == {} and (state.history, state.history_of) == (None, "")


def test_a_model_whose_text_cannot_be_read_has_nothing_of_the_last_one(start):
    state, runner = start()
    train(runner)
    assert state.fidelity is not None
    state.text, state.model = "", "bundled"
    assert runner.wait(60)
    assert "0 tokens" in state.status.message and state.language_model.name == "bundled"
    assert (state.activations, state.features, state.fidelity, state.offers) == (None, None, None, ())


def test_a_training_that_follows_a_loading_at_once_offers_no_end_of_it(start):
    state, runner = start()
    state.model = "bundled"
    runner.command("train")
    assert runner.wait(60)
    assert state.offers == () and state.status.message.startswith("Trained 60 steps.")


def test_a_text_that_is_read_meanwhile_does_not_end_the_loading(start, monkeypatch):
    state, runner = start()
    go_on = threading.Event()

    def slow(name, *, progress, cancel):
        assert go_on.wait(20)
        raise ModelLoadError(f"{name} is not there.")

    monkeypatch.setattr("sae_widget.runner.loading.load_model", slow)
    state.model = "gpt2"
    until(lambda: state.offers == ("cancel",))
    state.text = "Another text."
    until(lambda: state.activations.texts == ("Another text.",))
    until(lambda: state.status.phase != "reading")
    assert (state.status.phase, state.status.message, state.offers) == ("loading", "Loading gpt2", ("cancel",))
    go_on.set()
    assert runner.wait(30)
    assert state.offers == ("retry",)
    state.text = "Yet another text."
    until(lambda: state.activations.texts == ("Yet another text.",))
    assert runner.wait(30)
    assert state.offers == ("retry",)  # the form still says gpt2
    state.model = "bundled"
    assert runner.wait(30)
    assert state.offers == ()


def test_a_reset_elsewhere_keeps_the_first_places_trainer(start):
    state, runner = start()
    train(runner)
    own, mine = state.history, weights(state.features.sae)
    state.layer = 1
    assert runner.wait(30)
    runner.command("reset")
    assert runner.wait(30)
    assert state.history is None
    state.layer = 2
    assert runner.wait(30)
    assert state.history is own and state.history_of == state.features.key
    assert torch.equal(weights(state.features.sae), mine)
    runner.command("resume")
    assert runner.wait(60)
    assert state.features.source.endswith("step 120") and len(own) == 120


def test_a_saved_run_is_offered_where_the_trainer_of_another_place_is_kept(start):
    state, runner = start(layer=1)
    train(runner)
    again, later = start()
    train(later)
    assert again.offers == ()
    again.layer = 1
    assert later.wait(30)
    assert again.offers == ("restore",)
    later.command("restore")
    assert later.wait(30)
    assert torch.allclose(weights(again.features.sae), weights(state.features.sae), atol=1e-5)


def test_settings_that_are_put_back_wait_no_more(start):
    state, runner = start(settings=ENDLESS)
    begin(state, runner)
    runner.command("pause")
    until(lambda: state.status.phase == "paused")
    said = state.status.message
    state.settings = ENDLESS.changed(d_sae=ENDLESS.d_sae + 8)
    until(lambda: "needs a new SAE" in state.status.message)
    assert state.status.trouble
    state.settings = ENDLESS
    until(lambda: state.status.message == said)
    assert (state.status.phase, state.status.trouble) == ("paused", False)
    runner.command("resume")
    state.settings = ENDLESS.changed(d_sae=ENDLESS.d_sae + 8)
    until(lambda: "needs a new SAE" in state.status.message)
    state.settings = ENDLESS
    until(lambda: state.status.message == "Training")
    runner.command("stop")


def test_the_history_says_with_which_settings_its_run_trains(start):
    state, runner = start(settings=ENDLESS)
    begin(state, runner)
    state.settings = ENDLESS.changed(learning_rate=ENDLESS.learning_rate / 2, d_sae=ENDLESS.d_sae + 8)
    until(lambda: state.history.config.learning_rate == ENDLESS.learning_rate / 2)
    assert state.history.config.d_sae == ENDLESS.d_sae
    runner.command("stop")
