"""The upper half of the form: what is read, where in the model, and what is trained on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import ipywidgets as W
from traitlets import Bool, Int, Unicode

from sae_widget.activations.base import layer_name
from sae_widget.config import CORPUS_TOKENS, HOOK_NAMES, MAX_TEXT_CHARS
from sae_widget.views.base import read_static
from sae_widget.views.fields import MAX_PATH, Entry, Locks, described, whole
from sae_widget.views.presets import PRESETS, blocks
from sae_widget.views.selection import GuardedWidget
from sae_widget.views.words import sendable

if TYPE_CHECKING:
    from sae_widget.views.pane import Pane

OTHER = "\0other"
"""Value of the last entry of a list, behind which a free text opens."""
MODELS = (
    ("Automatic (GPT-2 or bundled)", "auto"),
    ("The bundled model", "bundled"),
    ("GPT-2 small (548 MB)", "gpt2"),
    ("GPT-2 medium (1.5 GB)", "gpt2-medium"),
    ("GPT-2 large (3.2 GB)", "gpt2-large"),
    ("GPT-2 XL (6.4 GB)", "gpt2-xl"),
    ("DistilGPT-2 (353 MB)", "distilgpt2"),
    ("Pythia 70M (166 MB)", "EleutherAI/pythia-70m"),
    ("Another name or folder …", OTHER),
)
HOOK_WORDS = {
    "resid_pre": "Stream before the block",
    "resid_mid": "Stream after attention",
    "resid_post": "Stream after the block",
    "attn_out": "Attention's output",
    "mlp_out": "MLP's output",
    "final_norm": "After the final norm",
}
CORPUS_WORDS = (
    ("Python's documentation", "documentation"),
    ("This text only", "text"),
    ("A file or folder …", OTHER),
)


class TextBox(GuardedWidget):
    """A text area with Ctrl+Enter and a Read button; typing is sent after a pause of 250 ms."""

    _esm = read_static("dom.js", "text.js")
    from_browser = ("draft", "reads")
    text = Unicode(help="the text that was read last").tag(sync=True)
    draft = Unicode(help="what is in the box").tag(sync=True)
    reads = Int(0, help="rises when the person asks for it to be read").tag(sync=True)
    limit = Int(MAX_TEXT_CHARS).tag(sync=True)
    refusal = Unicode().tag(sync=True)
    busy = Bool(False).tag(sync=True)

    def _fits(self, name: str, value: Any) -> bool:
        return super()._fits(name, value) and (name != "draft" or value == sendable(value))


class SourceControls:
    """Preset, model, text, layer, hook, start token, corpus."""

    def __init__(self, pane: Pane) -> None:
        self.pane, self.state = pane, pane.state
        self._other: dict[str, str] = {}  # lists in which "another" was chosen and nothing typed yet; what was set then
        self._make_model()
        self._make_text()
        self._make_place()
        self._make_corpus()
        self.locks = Locks(
            self.preset, self.model, self.model_path.box, self.layer, self.hook, self.start_token,
            self.corpus, self.corpus_path.box, self.tokens.box, self.load_gpt2,
        )  # fmt: skip
        self.widgets = [
            self.preset, self.model, self.model_path.box, self.model_path.below, self.model_row, self.text,
            self.layer, self.layer_words, self.hook, self.start_token,
            self.corpus, self.corpus_path.box, self.corpus_path.below, self.tokens.box, self.tokens.below,
        ]  # fmt: skip

    def _make_model(self) -> None:
        state, pane = self.state, self.pane
        names = [("Choose one …", -1), *((preset.label, i) for i, preset in enumerate(PRESETS))]
        self.preset = described(
            W.Dropdown, "Preset", "Sets text, corpus, read point and recipe in one go", options=names
        )
        self.model = described(
            W.Dropdown,
            "Model",
            "The language model that is taken apart; a hub name downloads it",
            options=MODELS,
        )
        self.model_path = Entry(
            pane, "model", "", "A name on the Hugging Face hub or a folder with a model",
            show=lambda: "" if state.model in dict(MODELS).values() else sendable(state.model),
            write=lambda typed: self._set_path("model", typed),
        )  # fmt: skip
        self.model_path.box.placeholder = "name or folder"
        self.shown_model = W.Label()
        self.shown_model.add_class("sae-hint")
        self.load_gpt2 = W.Button(
            description="Load GPT-2 (548 MB)", tooltip="Download GPT-2 small from the Hugging Face hub",
            layout=W.Layout(width="auto", flex="0 0 auto"),
        )  # fmt: skip
        self.load_gpt2.add_class("sae-small")
        self.model_row = W.HBox([self.shown_model, self.load_gpt2])
        self.model_row.add_class("sae-under")
        pane.watch(self.preset, "value", self._choose_preset)
        pane.watch(self.model, "value", lambda value: self._choose("model", value))
        pane.on_press(self.load_gpt2, lambda: pane.press("load_gpt2"))

    def _make_text(self) -> None:
        self._text = sendable(self.state.text)
        self.text = TextBox(guard=self.state.lock, layout=W.Layout(width="auto"), text=self._text, draft=self._text)
        self.pane.watch(self.text, "reads", lambda _n: self.read())
        self.pane.watch(self.text, "draft", lambda _draft: self._forgive("text"))

    def _make_place(self) -> None:
        self.layer = described(
            W.IntSlider,
            "Layer",
            "The block of the model at which activations are read",
            min=0,
            max=11,
            readout=False,
        )
        self.layer_words = W.Label()
        self.layer_words.add_class("sae-hint")
        hooks = [(HOOK_WORDS[name], name) for name in HOOK_NAMES]
        self.hook = described(
            W.Dropdown,
            "Read",
            "What is read: the residual stream that runs through all blocks, or what one part adds to it",
            options=hooks,
        )
        self.start_token = W.Checkbox(
            description="Start token in front", indent=False,
            tooltip="Read each window behind the start token: the first position is unlike all others",
            layout=W.Layout(width="auto"),
        )  # fmt: skip
        self.start_token.add_class("sae-under")
        self.pane.watch(self.layer, "value", self._move_layer)
        self.pane.watch(self.hook, "value", lambda value: setattr(self.state, "hook_name", value))
        self.pane.watch(self.start_token, "value", lambda value: setattr(self.state, "prepend_bos", bool(value)))

    def _make_corpus(self) -> None:
        state, pane = self.state, self.pane
        self.corpus = described(
            W.Dropdown, "Train on", "The texts whose activations the SAE learns from", options=CORPUS_WORDS
        )
        self.corpus_path = Entry(
            pane, "corpus", "", "A text file, or a folder of .txt files",
            show=lambda: "" if state.corpus in dict(CORPUS_WORDS).values() else sendable(state.corpus),
            write=lambda typed: self._set_path("corpus", typed),
        )  # fmt: skip
        self.corpus_path.box.placeholder = "path of a file or folder"
        self.tokens = Entry(
            pane, "corpus_tokens", "Tokens",
            "How many tokens of it are read; a feature must fire some 20 times to be learned",
            show=lambda: f"{state.corpus_tokens:,}", write=self._set_tokens,
        )  # fmt: skip
        pane.watch(self.corpus, "value", lambda value: self._choose("corpus", value))

    def draw(self) -> None:
        """Bring the fields to what the state says."""
        state = self.state
        busy = state.status.phase in ("training", "paused", "stopping")
        fitting = [i for i, preset in enumerate(PRESETS) if preset.fits(state)]
        self.preset.value = fitting[0] if fitting else -1
        self._draw_list(self.model, self.model_path, "model", dict(MODELS))
        self._draw_list(self.corpus, self.corpus_path, "corpus", dict(CORPUS_WORDS))
        self._draw_model()
        self._draw_text()
        self._draw_layer()
        self.hook.value = state.hook_name
        self.start_token.value = state.prepend_bos
        self.tokens.box.layout.display = "none" if state.corpus == "text" else ""
        self.tokens.draw()
        self.locks.draw(busy)

    def read(self) -> None:
        """Take what is in the box as the text, unless it is empty or too long, and ask for it to be read."""
        if self.take_draft():
            self.pane.press("read")

    def take_draft(self) -> bool:
        """Make the draft the text; False, with a sentence in the field, when it cannot be."""
        draft, state = self.text.draft, self.state
        if draft == self._text and "text" not in state.refused:
            return True
        if not draft.strip():
            return self._refuse("text", "Type some text first (it has 0 tokens). The last one stays.")
        if len(draft) > MAX_TEXT_CHARS:
            return self._refuse(
                "text",
                f"{len(draft):,} characters; the limit is {MAX_TEXT_CHARS:,}. The last text stays: shorten this one.",
            )
        self._forgive("text")
        state.text = draft
        return True

    def _draw_list(self, chooser: Any, path: Entry, name: str, known: dict[str, str]) -> None:
        value = getattr(self.state, name)
        own = value not in known.values()
        if own or self._other.get(name) != value:
            self._other.pop(name, None)
        chooser.value = OTHER if own or name in self._other else value
        path.box.layout.display = "" if chooser.value == OTHER else "none"
        path.draw()

    def _draw_model(self) -> None:
        model = self.state.language_model
        self.shown_model.value = (
            f"Shown: {sendable(model.label)} ({model.n_layer}\u00a0blocks, {model.d_in:,}\u00a0dimensions)"
            if model is not None
            else "No model yet"
        )
        self.shown_model.tooltip = self.shown_model.value
        offered = model is not None and model.name == "bundled" and self.state.status.phase != "loading"
        self.load_gpt2.layout.display = "" if offered else "none"

    def _draw_text(self) -> None:
        text = sendable(self.state.text)
        with self.text.hold_sync():
            if text != self._text:
                self._text = text
                self.text.text, self.text.draft = text, text
            self.text.refusal = self.state.refused.get("text", "")
            self.text.busy = self.state.status.phase == "reading"

    def _draw_layer(self) -> None:
        state, n_layer = self.state, blocks(self.state)
        with self.layer.hold_trait_notifications():  # a slider that is cut short would move the layer by itself
            if n_layer is not None:
                self.layer.max = max(0, n_layer - 1)
            self.layer.value = self._layer_place()
        try:
            words = layer_name(state.layer, state.hook_name, n_layer) if n_layer else ""
        except (ValueError, TypeError) as fault:
            words = f"⚠ {fault}"
        if "layer" in state.refused:
            words = f"⚠ {state.refused['layer']}"
        self.layer_words.value = self.layer_words.tooltip = words
        self.layer_words.layout.display = "" if words else "none"

    def _layer_place(self) -> int:
        """Where the slider stands: the layer, or the end that is nearest to it."""
        return int(min(max(0, self.state.layer), self.layer.max))

    def _move_layer(self, value: int) -> None:
        if value != self._layer_place():
            self.state.layer = int(value)

    def _choose(self, name: str, value: str) -> None:
        if value == OTHER:
            self._other[name] = getattr(self.state, name)
        else:
            self._other.pop(name, None)
            setattr(self.state, name, value)
            self._forgive(name)
        self.pane.redraw()

    def _choose_preset(self, index: int) -> None:
        if index >= 0 and not PRESETS[index].fits(self.state):
            self._other.pop("corpus", None)
            PRESETS[index].apply(self.state)
            self.text.draft = self._text  # what was half typed, when the text is the same as before
            self.pane.press("read")
        self.pane.redraw()

    def _set_path(self, name: str, typed: str) -> None:
        path = typed.strip()
        if not path or len(path) > MAX_PATH or not path.isprintable():
            raise ValueError(f"a name or path must have 1 to {MAX_PATH:,} printable characters")
        self._other.pop(name, None)
        setattr(self.state, name, path)

    def _set_tokens(self, typed: str) -> None:
        value, (low, high) = whole(typed, "Tokens"), CORPUS_TOKENS
        if not low <= value <= high:
            raise ValueError(f"Tokens must be between {low:,} and {high:,}, got {value:,}")
        self.state.corpus_tokens = value

    def _refuse(self, name: str, message: str) -> bool:
        self.state.refused = {**self.state.refused, name: message}
        return False

    def _forgive(self, name: str) -> None:
        self.state.refused = {known: text for known, text in self.state.refused.items() if known != name}
