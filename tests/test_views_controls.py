"""The form: state and fields agree, bad entries are refused in words, buttons ask the runner."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from sae_widget.config import HOOK_NAMES, MAX_TEXT_CHARS, TrainConfig
from sae_widget.state import PHASES, Status
from sae_widget.views.fields import STOP_FIRST
from sae_widget.views.presets import PRESETS
from sae_widget.views.source_controls import HOOK_WORDS, MODELS, OTHER
from sae_widget.views.train_controls import epoch_words
from tests.hand_made import activations, features, history, language_model


@pytest.fixture
def state(ready_state):
    return ready_state


def entries(form):
    training, source = form.training, form.source
    return {
        "d_sae": training.kind.d_sae,
        "k": training.kind.k,
        "l1_coefficient": training.kind.l1.entry,
        "learning_rate": training.learning_rate.entry,
        "steps": training.steps,
        "batch_size": training.batch,
        "seed": training.seed,
        "corpus_tokens": source.tokens,
    }


@pytest.mark.parametrize(
    ("name", "typed", "value"),
    [
        ("d_sae", "2,048", 2048),
        ("k", "8", 8),
        ("l1_coefficient", "0", 0.0),
        ("learning_rate", "3e-4", 3e-4),
        ("steps", "1e4", 10_000),
        ("batch_size", "0", 0),
        ("seed", "7", 7),
    ],
)
def test_an_entry_sets_the_state_and_the_state_the_entry(form, state, name, typed, value):
    entries(form)[name].box.value = typed
    assert getattr(state.settings, name) == value and state.refused == {}
    shown = entries(form)[name].box.value
    state.settings = TrainConfig()
    assert entries(form)[name].box.value != shown
    state.settings = state.settings.changed(**{name: value})
    assert entries(form)[name].box.value == shown


@pytest.mark.parametrize(
    ("name", "typed", "said"),
    [
        ("d_sae", "0", "Features must be between 1 and 131,072, got 0. Kept 1,024."),
        ("d_sae", "-5", "Features must be between 1 and 131,072, got -5. Kept 1,024."),
        ("d_sae", "1.5", "Features must be a whole number, got '1.5'. Kept 1,024."),
        ("d_sae", "True", "Features must be a whole number, got 'True'. Kept 1,024."),
        ("d_sae", "8", "k must be between 1 and d_sae (8), got 16. Kept 1,024."),
        ("k", "2000", "Per token (k) must be between 1 and d_sae (1024), got 2000. Kept 16."),
        ("learning_rate", "nan", "Learning rate must be between 1e-08 and 10, got nan. Kept 0.001."),
        ("learning_rate", "inf", "Learning rate must be between 1e-08 and 10, got inf. Kept 0.001."),
        ("learning_rate", "1e30", "Learning rate must be between 1e-08 and 10, got 1e+30. Kept 0.001."),
        ("learning_rate", "0", "Learning rate must be between 1e-08 and 10, got 0. Kept 0.001."),
        ("l1_coefficient", "-1", "L1 penalty must be between 0 and 1e+06, got -1. Kept 1."),
        ("steps", "0", "Steps must be between 1 and 10,000,000, got 0. Kept 2,000."),
        ("seed", "-1", "Seed must be between 0 and 4,294,967,295, got -1. Kept 0."),
        ("corpus_tokens", "3", "Tokens must be between 10 and 50,000,000, got 3. Kept 30,000."),
    ],
)
def test_a_bad_entry_is_refused_with_the_range_and_the_old_value_kept(form, state, name, typed, said):
    before, shown = state.settings, entries(form)[name].box.value
    entry = entries(form)[name]
    entry.box.value = typed
    assert state.settings == before and state.corpus_tokens == 30_000
    assert state.refused == {name: said}
    assert entry.box.value == shown and "sae-refused" in entry.box._dom_classes
    assert entry.below.value == f"⚠ {said}"
    entry.box.value = typed  # the same again
    assert entry.box.value == shown


def test_a_good_entry_takes_the_refusal_away(form, state):
    entry = form.training.steps
    entry.box.value = "none"
    assert state.refused
    entry.box.value = "500"
    assert state.refused == {} and "sae-refused" not in entry.box._dom_classes and state.settings.steps == 500


@hypothesis_settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(name=st.sampled_from(["d_sae", "k", "steps", "learning_rate", "seed"]), typed=st.text(max_size=12))
def test_whatever_is_typed_the_settings_are_whole(form, state, name, typed):
    entries(form)[name].box.value = typed
    assert isinstance(state.settings, TrainConfig) and form.head.fault == ""
    value = getattr(state.settings, name)
    shown = entries(form)[name].box.value
    assert float(shown.replace(",", "")) == pytest.approx(value, rel=1e-5)


def test_only_the_architectures_own_sparsity_is_shown(form, state):
    training = form.training
    assert training.kind.k.box.layout.display == "" and training.kind.l1.row.layout.display == "none"
    training.kind.architecture.value = "standard"
    assert state.settings.architecture == "standard"
    assert training.kind.k.box.layout.display == "none" and training.kind.l1.row.layout.display == ""
    assert training.kind.k.below.layout.display == "none"


def test_an_architecture_that_does_not_fit_is_refused(form, state):
    state.settings = TrainConfig(architecture="standard", d_sae=8, k=16)
    form.training.kind.architecture.value = "topk"
    assert state.settings.architecture == "standard" and form.training.kind.architecture.value == "standard"
    assert state.refused["architecture"] == "k must be between 1 and d_sae (8), got 16. Kept ReLU + L1 penalty."


def test_the_slider_and_the_field_are_one_value(form, state):
    rate = form.training.learning_rate
    rate.slider.value = 0.0123
    assert state.settings.learning_rate == 0.012 and rate.entry.box.value == "0.012"
    rate.entry.box.value = "5"  # beyond the slider's end, and allowed
    assert state.settings.learning_rate == 5.0 and rate.slider.value == pytest.approx(0.1)
    state.settings = state.settings.changed(learning_rate=1e-3)
    assert rate.slider.value == pytest.approx(1e-3) and state.settings.learning_rate == 1e-3


def test_widths_and_epochs_in_words(form, state):
    assert form.training.kind.d_sae.below.value == "= 341 × 3: overcomplete"
    state.settings = state.settings.changed(d_sae=16)
    assert form.training.kind.d_sae.below.value == "= 5.3 × 3: overcomplete"
    state.settings = state.settings.changed(k=2, d_sae=2)
    assert form.training.kind.d_sae.below.value == "= 0.67 × 3: too few to unmix anything"
    assert form.training.steps.below.value == "≈ 68 epochs of 30,000 tokens"
    state.corpus = "text"
    assert form.training.steps.below.value == ""
    state.activations = activations()
    assert form.training.steps.below.value == "≈ 512,000 epochs of 4 tokens"
    assert epoch_words(TrainConfig.original_tutorial(), 14) == "= 500 epochs: every step sees all tokens"


@pytest.mark.parametrize("phase", PHASES)
def test_buttons_follow_the_phase(form, state, phase):
    state.history, state.features = history(3), features()
    state.status = Status(phase, "", 3, 10)
    training = form.training
    assert training.train.disabled == (phase not in ("ready", "failed"))
    assert training.stop.disabled == (phase not in ("reading", "training", "paused"))
    assert training.pause.disabled == (phase not in ("training", "paused", "ready"))
    words = {"paused": "Resume", "ready": "Continue"}.get(phase, "Pause")
    assert training.pause.description == words
    locked = phase in ("training", "paused", "stopping")
    for widget in (
        form.source.model,
        form.source.layer,
        form.source.hook,
        training.kind.d_sae.box,
        training.kind.architecture,
    ):
        assert widget.disabled == locked and (widget.tooltip == STOP_FIRST) == locked
    for live in (training.learning_rate.entry.box, training.kind.l1.entry.box, training.kind.k.box, training.steps.box):
        assert not live.disabled


def test_without_a_run_there_is_nothing_to_continue_or_reset(form):
    assert form.training.pause.disabled and form.training.reset.disabled


def test_where_there_is_no_sae_nothing_is_continued_whatever_was_trained_elsewhere(form, state):
    state.history = history(3)
    assert form.training.pause.disabled and not form.training.reset.disabled


def test_an_sae_that_was_opened_can_be_trained_further(form, state):
    state.features = features()
    assert form.training.pause.description == "Continue" and not form.training.pause.disabled
    form.training.pause.click()
    assert state.command["do"] == "resume"
    assert form.training.reset.disabled  # nothing was trained yet


def test_each_press_is_a_command(form, state):
    state.history = history(1)
    training, done = form.training, []
    state.observe(lambda change: done.append(change.new), names=["command"])
    training.train.click()
    state.status = Status("training", "", 1, 10)
    training.pause.click()
    state.status = Status("paused", "", 1, 10)
    training.pause.click()
    training.stop.click()
    training.reset.click()
    form.source.load_gpt2.click()
    assert [(command["do"], command["n"]) for command in done] == [
        ("train", 1), ("pause", 2), ("resume", 3), ("stop", 4), ("reset", 5), ("load_gpt2", 6),
    ]  # fmt: skip


def test_progress_is_shown_while_something_runs(form, state):
    training = form.training
    state.status = Status("training", "", 50, 200, 31_234.0, 8.2)
    assert training.progress.value == 50 and training.progress.layout.visibility == "visible"
    assert training.progress_words.value == "step 50 of 200, 31,000 tokens/s, 8 s left"
    state.status = Status("ready", "", 200, 200)
    assert training.progress.layout.visibility == "hidden" and training.progress_words.layout.display == "none"


def test_ctrl_enter_makes_the_draft_the_text_and_asks_for_it(form, state):
    box = form.source.text
    box.set_state({"draft": "To be or not to be"})
    assert state.text != "To be or not to be"
    box.set_state({"reads": 1})
    assert state.text == "To be or not to be" == box.text
    assert state.command == {"do": "read", "n": 1}
    box.set_state({"reads": 2})
    assert state.command == {"do": "read", "n": 2}


def test_train_takes_what_is_in_the_box(form, state):
    form.source.text.set_state({"draft": "fresh"})
    form.training.train.click()
    assert state.text == "fresh" and state.command["do"] == "train"


@pytest.mark.parametrize("draft", ["", "  \n ", "x" * (MAX_TEXT_CHARS + 1)])
def test_an_empty_or_endless_text_is_refused_and_the_last_one_kept(form, state, draft):
    last = state.text
    form.source.text.set_state({"draft": draft})
    form.source.text.set_state({"reads": 1})
    form.training.train.click()
    assert state.text == last and state.command == {}
    assert "0 tokens" in state.refused["text"] or "the limit is 200,000" in state.refused["text"]
    assert form.source.text.refusal == state.refused["text"] and "last" in state.refused["text"]
    form.source.text.set_state({"draft": "better"})
    assert "text" not in state.refused


def test_text_from_code_reaches_the_box_and_replaces_the_draft(form, state):
    form.source.text.set_state({"draft": "half typed"})
    state.text = "from code \ud83d"
    assert form.source.text.text == form.source.text.draft == "from code \ufffd"


@pytest.mark.parametrize(
    "message",
    [{"draft": 5}, {"draft": None}, {"draft": "\ud83d"}, {"reads": "x"}, {"limit": 10**9}, {"text": "hacked"}],
)
def test_hostile_messages_to_the_text_box(form, state, message):
    last = state.text
    form.source.text.set_state(message)
    assert state.text == last and form.source.text.limit == MAX_TEXT_CHARS and form.source.text.draft == last


def test_layer_in_words(form, state):
    state.layer = 3
    assert form.source.layer_words.value == "after block 3" and form.source.layer.max == 5
    form.source.hook.value = "mlp_out"
    assert state.hook_name == "mlp_out" and form.source.layer_words.value == "MLP output of block 4"
    form.source.layer.value = 1
    assert state.layer == 1
    state.layer = 99
    assert form.source.layer_words.value == "⚠ layer must be between 0 and 5, got 99"
    assert state.layer == 99 and form.source.layer.value == 5
    state.language_model = None
    assert form.source.layer_words.value == ""


def test_a_smaller_model_leaves_the_layer_to_the_explorer(form, state):
    state.layer = 5
    assert form.source.layer.value == 5
    state.language_model = language_model(n_layer=3)
    assert state.layer == 5 and (form.source.layer.max, form.source.layer.value) == (2, 2)
    state.language_model = language_model()
    assert state.layer == 5 and (form.source.layer.max, form.source.layer.value) == (5, 5)


def test_why_the_layer_was_changed_stands_beside_it(form, state):
    state.refused = {"layer": "This model has layers 0 to 5: layer 5 is shown instead of 9."}
    assert form.source.layer_words.value == f"⚠ {state.refused['layer']}" == form.source.layer_words.tooltip


def test_every_hook_has_words():
    assert set(HOOK_WORDS) == set(HOOK_NAMES)


def test_a_known_model_or_a_path(form, state):
    source = form.source
    source.model.value = "gpt2"
    assert state.model == "gpt2" and source.model_path.box.layout.display == "none"
    source.model.value = OTHER
    assert state.model == "gpt2" and source.model_path.box.layout.display == ""
    source.model_path.box.value = "/models/mine"
    assert state.model == "/models/mine" and source.model.value == OTHER
    source.model_path.box.value = "bad\x00path"
    assert state.model == "/models/mine" and "printable" in state.refused["model"]
    state.model = "bundled"
    assert source.model.value == "bundled" and source.model_path.box.layout.display == "none"
    assert [value for _, value in MODELS][:2] == ["auto", "bundled"]


def test_gpt2_is_offered_only_while_the_bundled_model_is_shown(form, state):
    assert form.source.load_gpt2.layout.display == ""
    assert form.source.shown_model.value == "Shown: the bundled model (6\u00a0blocks, 3\u00a0dimensions)"
    state.language_model = language_model("gpt2")
    assert form.source.load_gpt2.layout.display == "none"


def test_corpus_and_its_tokens(form, state):
    source = form.source
    source.corpus.value = "text"
    assert state.corpus == "text" and source.tokens.box.layout.display == "none"
    source.corpus.value = OTHER
    source.corpus_path.box.value = "/texts"
    assert state.corpus == "/texts" and source.tokens.box.layout.display == ""
    source.tokens.box.value = "5,000"
    assert state.corpus_tokens == 5000


def test_a_preset_sets_all_and_is_shown_until_something_differs(form, state):
    assert form.source.preset.value == -1
    form.source.preset.value = 1
    assert state.text.startswith("To be") and state.settings == TrainConfig.original_tutorial()
    assert state.command["do"] == "read" and form.source.preset.value == 1
    form.training.steps.box.value = "400"
    assert form.source.preset.value == -1
    PRESETS[3].apply(state)
    assert form.source.preset.value == 3 and form.training.kind.k.box.layout.display == ""


def test_every_control_has_a_label_and_a_sentence(form):
    import ipywidgets as W

    def below(widget):
        yield widget
        for child in getattr(widget, "children", ()):
            yield from below(child)

    named = (W.Text, W.Dropdown, W.IntSlider, W.FloatLogSlider, W.Checkbox, W.Button)
    for widget in below(form.widget):
        if isinstance(widget, named):
            assert widget.tooltip is not None and len(widget.tooltip) >= 10, widget
            assert widget.description or getattr(widget, "placeholder", "") or widget.tooltip
