"""Preset, model, text, layer, hook, start token, corpus: what each sets, what is refused in words, what is locked."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sae_widget.config import CORPUS_TOKENS, HOOK_NAMES, MAX_TEXT_CHARS, START, TrainConfig
from sae_widget.state import PHASES, ExplorerState, Status
from sae_widget.views.controls import Controls
from sae_widget.views.fields import MAX_PATH, STOP_FIRST
from sae_widget.views.presets import PRESETS, SENTENCES
from sae_widget.views.selection import selection_for
from sae_widget.views.source_controls import CORPUS_WORDS, HOOK_WORDS, MODELS, OTHER
from tests.hand_made import language_model

NO_PATH = "a name or path must have 1 to 1,000 printable characters"


@pytest.fixture
def state(ready_state):
    return ready_state


@pytest.fixture
def source(form):
    return form.source


def pick(chooser, value):
    """What the page sends when a person picks an entry of a list."""
    chooser.set_state({"index": [other for _, other in chooser.options].index(value)})


def visible(widget):
    return widget.layout.display != "none"


def inputs(state):
    """Everything that the upper half of the form can set."""
    names = ("model", "text", "layer", "hook_name", "prepend_bos", "corpus", "corpus_tokens", "settings", "command")
    return {name: getattr(state, name) for name in names}


# What each control sets, and what it shows


@pytest.mark.parametrize("value", [name for _, name in MODELS[:-1]])
def test_a_model_of_the_list_is_set_and_shown_and_nothing_else_changes(source, state, value):
    before = inputs(state)
    pick(source.model, value)
    assert inputs(state) == before | {"model": value}
    assert source.model.value == value and not visible(source.model_path.box) and not visible(source.model_path.below)
    state.model = "auto"
    assert source.model.value == "auto"


@pytest.mark.parametrize(("words", "hook_name"), [(words, name) for name, words in HOOK_WORDS.items()])
def test_a_hook_is_set_by_its_words(source, state, words, hook_name):
    before = inputs(state)
    source.hook.label = words
    assert inputs(state) == before | {"hook_name": hook_name}
    for other in HOOK_NAMES:
        state.hook_name = other
        assert source.hook.label == HOOK_WORDS[other]


@pytest.mark.parametrize(
    ("hook_name", "layer", "words"),
    [
        ("resid_pre", 0, "embeddings"),
        ("resid_pre", 5, "after block 5"),
        ("resid_mid", 0, "middle of block 1, after attention"),
        ("resid_post", 4, "after block 5"),  # the same place as resid_pre of the next
        ("attn_out", 5, "attention output of block 6"),
        ("final_norm", 5, "after the final norm"),
        ("mlp_out", -1, "⚠ layer must be between 0 and 5, got -1"),
        ("mlp_out", 6, "⚠ layer must be between 0 and 5, got 6"),
    ],
)
def test_the_place_is_said_in_words(source, state, hook_name, layer, words):
    state.hook_name, state.layer = hook_name, layer
    assert source.layer_words.value == source.layer_words.tooltip == words and visible(source.layer_words)
    assert source.layer.value == min(max(layer, 0), 5) and state.layer == layer


def test_the_slider_sets_the_layer(source, state):
    before = inputs(state)
    source.layer.set_state({"value": 4})
    assert inputs(state) == before | {"layer": 4}
    state.layer = 2
    assert source.layer.value == 2


def test_from_a_layer_that_the_model_does_not_have_the_slider_leads_back(source, state):
    state.layer = 9
    assert (source.layer.value, state.layer) == (5, 9)
    source.layer.set_state({"value": 3})
    assert state.layer == 3 and source.layer_words.value == "after block 3"


def test_a_model_of_one_block_and_no_model(source, state):
    state.layer = 0
    state.language_model = language_model(n_layer=1)
    assert (source.layer.min, source.layer.max) == (0, 0) and source.layer_words.value == "embeddings"
    state.language_model = None
    assert not visible(source.layer_words) and source.shown_model.value == "No model yet"
    state.refused = {"layer": "not there"}
    assert visible(source.layer_words) and source.layer_words.value == "⚠ not there"


def test_the_start_token_is_a_yes_or_no(source, state):
    before = inputs(state)
    assert source.start_token.value is state.prepend_bos is True
    source.start_token.set_state({"value": False})
    assert inputs(state) == before | {"prepend_bos": False}
    state.prepend_bos = True
    assert source.start_token.value is True


def test_a_corpus_of_the_list(source, state):
    before = inputs(state)
    pick(source.corpus, "text")
    assert inputs(state) == before | {"corpus": "text"} and not visible(source.tokens.box)
    pick(source.corpus, "documentation")
    assert inputs(state) == before and visible(source.tokens.box) and not visible(source.corpus_path.box)
    assert [value for _, value in CORPUS_WORDS] == ["documentation", "text", OTHER]


@pytest.mark.parametrize("index", range(len(PRESETS)))
def test_a_preset_is_set_and_read(source, state, index):
    state.refused = {"text": "no", "steps": "no"}
    state.settings = state.settings.changed(seed=3)
    pick(source.preset, index)
    assert PRESETS[index].fits(state) and source.preset.value == index
    assert state.command == {"do": "read", "n": 1} and state.refused == {}
    assert source.text.text == source.text.draft == PRESETS[index].values["text"]
    assert source.layer.value == state.layer == (5 if index < len(SENTENCES) else 3)
    assert visible(source.tokens.box) == (state.corpus != "text")
    pick(source.preset, -1)  # "Choose one" is no choice
    assert source.preset.value == index and PRESETS[index].fits(state) and state.command["n"] == 1


def test_presets_stand_in_the_list_under_their_names(source):
    assert source.preset.options[0] == ("Choose one …", -1)
    assert [label for label, _ in source.preset.options[1:]] == [preset.label for preset in PRESETS]


def test_a_preset_replaces_what_is_half_typed_though_its_text_is_the_one_that_was_read(source, state):
    pick(source.preset, 0)
    source.text.set_state({"draft": "half typed"})
    state.settings = state.settings.changed(steps=400)
    assert source.preset.value == -1
    pick(source.preset, 0)
    assert source.text.draft == source.text.text == SENTENCES["best of times"]
    assert source.take_draft() and state.text == SENTENCES["best of times"] and source.preset.value == 0


# Another model or corpus


@pytest.mark.parametrize("name", ["model", "corpus"])
def test_another_is_nothing_yet(source, state, name):
    before, chooser, path = inputs(state), getattr(source, name), getattr(source, f"{name}_path")
    first = getattr(state, name)
    pick(chooser, OTHER)
    assert inputs(state) == before and chooser.value == OTHER and visible(path.box) and path.box.value == ""
    state.layer = 3  # drawn once more
    assert chooser.value == OTHER and visible(path.box)
    pick(chooser, first)
    assert inputs(state) == before | {"layer": 3} and not visible(path.box)


@pytest.mark.parametrize(
    ("name", "known"),
    [("model", "gpt2"), ("model", "auto"), ("corpus", "text"), ("corpus", "documentation")],
)
def test_a_name_of_the_list_that_is_typed_is_chosen_in_the_list(source, state, name, known):
    chooser, path = getattr(source, name), getattr(source, f"{name}_path")
    pick(chooser, OTHER)
    path.box.value = f" {known} "
    assert getattr(state, name) == known == chooser.value and state.refused == {}
    assert not visible(path.box)


@pytest.mark.parametrize(("name", "known"), [("model", "gpt2-xl"), ("corpus", "text")])
def test_a_name_of_the_list_from_code_ends_the_wait_for_another(source, state, name, known):
    chooser, path = getattr(source, name), getattr(source, f"{name}_path")
    pick(chooser, OTHER)
    setattr(state, name, known)
    assert chooser.value == known and not visible(path.box)
    setattr(state, name, START.corpus if name == "corpus" else "auto")
    assert chooser.value == getattr(state, name)  # it is not waited for again


@pytest.mark.parametrize("index", [0, 3])
def test_a_preset_ends_the_wait_for_another_corpus(source, state, index):
    pick(source.corpus, OTHER)
    pick(source.preset, index)
    assert source.corpus.value == state.corpus == PRESETS[index].values["corpus"]
    assert not visible(source.corpus_path.box) and source.preset.value == index


@pytest.mark.parametrize("name", ["model", "corpus"])
@pytest.mark.parametrize("typed", ["  ", "a" * (MAX_PATH + 1), "a\nb", "a\tb", "\x00other", "a\u202eb"])
def test_what_is_no_path_is_refused_and_nothing_changed(source, state, name, typed):
    before, chooser, path = inputs(state), getattr(source, name), getattr(source, f"{name}_path")
    first = getattr(state, name)
    pick(chooser, OTHER)
    path.box.value = typed
    said = f"{NO_PATH}. Nothing was changed."
    assert inputs(state) == before and state.refused == {name: said}
    assert visible(path.below) and path.below.value == f"⚠ {said}" and path.box.value == ""
    pick(chooser, first)
    assert state.refused == {} and inputs(state) == before and not visible(path.below)


@pytest.mark.parametrize("name", ["model", "corpus"])
@pytest.mark.parametrize("typed", ["a" * MAX_PATH, "  /a folder/with spaces  ", "C:\\Texte\\Über", "<b>x</b>"])
def test_a_path_is_set_without_the_blanks_around_it(source, state, name, typed):
    before, path = inputs(state), getattr(source, f"{name}_path")
    pick(getattr(source, name), OTHER)
    path.box.value = typed
    assert inputs(state) == before | {name: typed.strip()} and path.box.value == typed.strip()
    path.box.value = "\r"
    shown = typed.strip()
    assert state.refused == {name: f"{NO_PATH}. Kept {shown}."} and getattr(state, name) == shown
    path.box.value = "better"
    assert state.refused == {} and getattr(state, name) == "better" and visible(path.box)


@pytest.mark.parametrize("name", ["model", "corpus"])
def test_a_path_that_cannot_be_sent_is_shown_as_far_as_it_can_and_left_as_it_is(source, state, name):
    setattr(state, name, "/half \ud83d")
    assert getattr(source, f"{name}_path").box.value == "/half \ufffd" and getattr(state, name) == "/half \ud83d"
    assert getattr(source, name).value == OTHER and state.refused == {}


# Tokens of the corpus


@pytest.mark.parametrize(
    ("typed", "value", "shown"),
    [("10", 10, "10"), ("50,000,000", 50_000_000, "50,000,000"), ("2e3", 2000, "2,000"), (" 1_234 ", 1234, "1,234")],
)
def test_tokens(source, state, typed, value, shown):
    before = inputs(state)
    source.tokens.box.value = typed
    assert inputs(state) == before | {"corpus_tokens": value}
    assert source.tokens.box.value == shown and state.refused == {}


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (str(CORPUS_TOKENS[0] - 1), "Tokens must be between 10 and 50,000,000, got 9. Kept 30,000."),
        (str(CORPUS_TOKENS[1] + 1), "Tokens must be between 10 and 50,000,000, got 50,000,001. Kept 30,000."),
        ("-10", "Tokens must be between 10 and 50,000,000, got -10. Kept 30,000."),
        ("", "Tokens must be a whole number, got ''. Kept 30,000."),
        ("nan", "Tokens must be a whole number, got 'nan'. Kept 30,000."),
        ("99.5", "Tokens must be a whole number, got '99.5'. Kept 30,000."),
    ],
)
def test_tokens_out_of_range_are_refused(source, state, typed, said):
    before = inputs(state)
    source.tokens.box.value = typed
    assert inputs(state) == before and state.refused == {"corpus_tokens": said}
    assert source.tokens.box.value == "30,000" and visible(source.tokens.below)
    pick(source.corpus, "text")
    assert not visible(source.tokens.box) and not visible(source.tokens.below)  # nor why it was refused
    pick(source.corpus, "documentation")
    source.tokens.box.value = "500"
    assert state.refused == {} and not visible(source.tokens.below)


# The text


@pytest.mark.parametrize(
    ("draft", "said"),
    [
        ("", "Type some text first (it has 0 tokens). The last one stays."),
        (" \n\t\u3000", "Type some text first (it has 0 tokens). The last one stays."),
        (
            "x" * (MAX_TEXT_CHARS + 1),
            "200,001 characters; the limit is 200,000. The last text stays: shorten this one.",
        ),
    ],
)
def test_a_draft_that_cannot_be_the_text_is_refused_in_words(source, state, draft, said):
    before = inputs(state)
    state.refused = {"steps": "another field's"}
    source.text.set_state({"draft": draft})
    source.read()
    assert not source.take_draft() and inputs(state) == before
    assert state.refused == {"steps": "another field's", "text": said} and source.text.refusal == said
    assert source.text.draft == draft  # it is for the person to mend
    source.text.set_state({"draft": state.text})
    assert state.refused == {"steps": "another field's"} and source.text.refusal == ""
    source.read()
    assert inputs(state) == before | {"command": {"do": "read", "n": 1}}


def test_the_longest_text_and_blanks_around_it_are_taken(source, state):
    for draft in (" " + "x" * (MAX_TEXT_CHARS - 2) + "\n", " a "):
        source.text.set_state({"draft": draft})
        assert source.take_draft() and state.text == draft == source.text.text
    assert state.command == {} and state.refused == {}


def test_a_text_that_stays_the_same_is_no_change_but_can_be_read_again(source, state):
    seen = []
    state.observe(lambda change: seen.append(change.name), names=["text", "refused"])
    source.read()
    assert seen == [] and state.command == {"do": "read", "n": 1}
    state.refused = {"text": "It could not be read."}
    assert source.take_draft() and state.refused == {} and seen == ["refused", "refused"]


def test_typing_alone_changes_no_text(source, state):
    before = inputs(state)
    source.text.set_state({"draft": "a"})
    source.text.set_state({"draft": "a new one"})
    assert inputs(state) == before and source.text.text == state.text


@pytest.mark.parametrize("phase", PHASES)
def test_the_button_waits_while_a_text_is_read(source, state, phase):
    state.status = Status(phase, "")
    assert source.text.busy == (phase == "reading")


@pytest.mark.parametrize("name", ["busy", "refusal", "text", "limit"])
def test_what_only_python_says_of_the_text_is_not_taken_from_the_page(source, state, name):
    before, text = getattr(source.text, name), state.text
    source.text.set_state({name: {"busy": True, "limit": 1}.get(name, "from the page"), "draft": "typed"})
    assert getattr(source.text, name) == before and source.text.refused == 1
    assert source.text.draft == "typed" and state.text == text


def test_an_update_of_the_page_is_taken_under_the_lock_of_the_state(source, state):
    assert source.text._guard is state.lock


def test_one_more_form_shows_what_was_refused_and_forgives_nothing(state, form):
    form.source.text.set_state({"draft": ""})
    form.source.read()
    said = dict(state.refused)
    assert said.keys() == {"text"}
    later = Controls(state)
    try:
        assert state.refused == said and form.source.text.refusal == later.source.text.refusal == said["text"]
        assert later.source.text.draft == later.source.text.text == state.text
    finally:
        later.close()


def test_a_form_over_a_text_that_cannot_be_sent():
    state = ExplorerState(text="half \ud83d", refused={"text": "no"})
    form = Controls(state)
    try:
        assert form.source.text.text == form.source.text.draft == "half \ufffd" and state.text == "half \ud83d"
        assert state.refused == {"text": "no"} and form.head.fault == ""
    finally:
        form.close()
        selection_for(state).close()


# What is locked, and what is offered


@pytest.mark.parametrize("phase", PHASES)
def test_the_source_is_locked_while_it_trains_and_the_text_is_not(source, state, phase):
    locked = {
        widget: widget.tooltip
        for widget in (
            source.preset, source.model, source.model_path.box, source.layer, source.hook, source.start_token,
            source.corpus, source.corpus_path.box, source.tokens.box, source.load_gpt2,
        )
    }  # fmt: skip
    assert STOP_FIRST not in locked.values() and len(set(locked.values())) == len(locked)
    state.status = Status(phase, "", 1, 10)
    running = phase in ("training", "paused", "stopping")
    for widget, tooltip in locked.items():
        assert widget.disabled == running and widget.tooltip == (STOP_FIRST if running else tooltip)
    source.text.set_state({"draft": "meanwhile", "reads": 1})
    assert state.text == "meanwhile" and state.command == {"do": "read", "n": 1}
    state.status = Status("ready", "")
    assert all(not widget.disabled and widget.tooltip == tooltip for widget, tooltip in locked.items())


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("model", ["bundled", "gpt2", "/models/bundled", None])
def test_gpt2_is_offered_beside_the_bundled_model_unless_one_is_loaded(source, state, phase, model):
    state.language_model = None if model is None else language_model(model)
    state.status = Status(phase, "")
    assert visible(source.load_gpt2) == (model == "bundled" and phase != "loading")


def test_the_offer_asks_the_runner_and_sets_nothing(source, state):
    before = inputs(state)
    source.load_gpt2.click()
    assert inputs(state) == before | {"command": {"do": "load_gpt2", "n": 1}}


def test_the_model_that_is_shown_is_named_with_its_size(source, state):
    state.language_model = replace(language_model("gpt2", n_layer=12), d_in=12_288, label="<b>\ud83d")
    words = "Shown: <b>\ufffd (12\u00a0blocks, 12,288\u00a0dimensions)"
    assert source.shown_model.value == source.shown_model.tooltip == words
    state.model = "gpt2-xl"  # asked for, and not there yet
    assert source.shown_model.value == words


def test_every_control_is_in_the_form_once(source):
    assert len(source.widgets) == len({id(widget) for widget in source.widgets}) == 15
    for widget in (source.preset, source.model, source.text, source.layer, source.hook, source.corpus):
        assert widget in source.widgets
    assert source.model_row.children == (source.shown_model, source.load_gpt2)


def test_the_state_as_it_is_at_first_is_what_is_shown_at_first(source, state):
    assert (source.preset.value, source.model.value, source.corpus.value) == (-1, "auto", START.corpus)
    assert (source.text.text, source.tokens.box.value) == (START.text, f"{START.corpus_tokens:,}")
    assert (source.layer.value, source.hook.value, source.layer_words.value) == (0, "resid_pre", "embeddings")
    assert state.settings == TrainConfig() and state.refused == {} and state.command == {}
