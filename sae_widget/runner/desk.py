"""What the worker has in front of it: the model, the text, the corpus, the SAE and the trainer. No threads."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from sae_widget.activations.base import check_site, layer_name
from sae_widget.activations.extract import get_activations
from sae_widget.bundled import bundled_sae
from sae_widget.checkpoint.sites import mismatch
from sae_widget.data import PIECES_AT_ONCE, Enough, TextPieces, concatenate, read_corpus
from sae_widget.features import (
    Counting,
    FeatureCardData,
    Features,
    FeatureStats,
    feature_stats,
    neighbours,
    prompt_features,
    top_contexts,
)
from sae_widget.memory import check_memory, corpus_fits, free_memory
from sae_widget.runner.large import LargeCorpus, first_parts
from sae_widget.runner.predictions import Predictions, elsewhere, look_at
from sae_widget.training import Trainer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sae_widget.activations.base import Activations, LanguageModel
    from sae_widget.config import TrainConfig
    from sae_widget.sae.base import SAE

SAMPLE = 4096
"""Tokens of the corpus on which statistics are taken while training goes on."""
EXAMPLES = 20_000
"""Tokens of a corpus larger than the memory that are kept, for examples and statistics."""
COUNTING = 250_000_000_000
"""Tokens times weights of the encoder, for the statistics of an SAE that came without: ten seconds or so."""


@dataclass(frozen=True, eq=False)
class Shown:
    """An SAE with what is known of it, and what it is in words."""

    sae: SAE
    stats: FeatureStats | None
    source: str
    skip_first: bool = True
    key: str = ""  # which SAE it is: the same through its whole training, another for every other
    opened: bool = False  # it came from elsewhere, and the trainer on the desk is not its
    ships: bool = False  # with the package


class Desk:
    """The worker's things and the computations on them; used by one thread at a time."""

    def __init__(self) -> None:
        self.model: LanguageModel | None = None
        self.layer, self.hook_name, self.prepend_bos = 0, "resid_pre", True
        self.prompt: Activations | None = None
        self.corpus: Activations | None = None  # or its first tokens, when it is large
        self.large: LargeCorpus | None = None
        self.trainer: Trainer | None = None
        self._trained_large: LargeCorpus | None = None
        self._trained_on: Activations | None = None  # the corpus of the trainer, which the next one may replace
        self._trained_bos = True  # and whether it was read behind start tokens
        self._counting: Counting | None = None
        self._corpus_key: Any = None
        self._trainer_site: Any = None
        self._trained: dict[Any, Shown] = {}
        self._before: dict[Any, Shown] = {}  # what was opened at a site before something was trained there
        self._shown: Shown | None = None
        self._predictions: Predictions | None = None
        self.run = ""  # the name of the trainer's run
        self._version = 0

    @property
    def site(self) -> tuple[str, int, str]:
        """Model, layer and hook: where an SAE belongs."""
        return (self.model.name if self.model else "", self.layer, self.hook_name)

    @property
    def site_words(self) -> str:
        """The read point in words."""
        return layer_name(self.layer, self.hook_name, self.model.n_layer) if self.model else ""

    @property
    def shown(self) -> Shown | None:
        """The SAE that is shown, if there is one for this site."""
        return self._shown

    def take_model(self, model: LanguageModel) -> None:
        """Put another language model on the desk; what belongs to the old one leaves it."""
        self.model, self.prompt = model, None
        self.drop_corpus()
        self._shown = None

    def read(self, text: str, layer: int, hook_name: str, *, prepend_bos: bool) -> None:
        """Read the text at a site and take the SAE that belongs there. All or nothing.

        Raises:
            ValueError: for a text without tokens or a read point that the model does not have.
        """
        if self.model is None:
            raise ValueError("no language model is loaded yet")
        check_site(layer, hook_name, self.model.n_layer)
        self.prompt = get_activations(self.model, text, layer, hook_name, prepend_bos=prepend_bos)
        if self._predictions is not None and self._predictions.of_prompt:
            self._predictions = None
        moved = (layer, hook_name) != (self.layer, self.hook_name)
        if moved or prepend_bos != self.prepend_bos:
            self._counting = None
        self.layer, self.hook_name, self.prepend_bos = layer, hook_name, prepend_bos
        if moved or self._shown is None:
            self._shown = self._trained.get(self.site) or self._bundled()

    def read_training_data(self, corpus: str, n_tokens: int, text: str) -> Iterator[int]:
        """Read what is to be trained on, some thousand tokens at a time.

        Args:
            corpus: ``"text"``, ``"documentation"``, or a file or folder.
            n_tokens: tokens of a corpus that are read.
            text: the text of the box, for ``"text"``.

        Yields:
            Tokens read so far.
        """
        key = self._key_of(corpus, n_tokens, text)
        if self.corpus is not None and self._corpus_key == key:
            return
        if self.model is None:
            raise ValueError("no language model is loaded yet")
        if corpus == "text":
            self.corpus = get_activations(self.model, text, self.layer, self.hook_name, prepend_bos=self.prepend_bos)
            self._corpus_key, self.large = key, None
            return
        self.large = None
        parts: list[Activations] = []
        n_read, free = 0, free_memory()
        texts = TextPieces(corpus, enough=Enough(self.model, n_tokens), later=True)
        for _ in texts.reading():
            yield 0
        place = self.model, texts, self.layer, self.hook_name
        for part in read_corpus(*place, prepend_bos=self.prepend_bos, max_tokens=n_tokens):
            parts.append(part)
            n_read += part.n_tokens
            expected = min(n_tokens, n_read * len(texts) // (PIECES_AT_ONCE * len(parts)))
            if not corpus_fits(part.d_in, expected if n_read >= EXAMPLES else n_read, free):
                given: dict[str, Any] = {"prepend_bos": self.prepend_bos, "max_tokens": n_tokens, "free": free}
                self.large = LargeCorpus(*place, **given)
                parts = first_parts(parts, min(EXAMPLES, n_read // 2))
                break
            yield n_read
        self.corpus, self._corpus_key = concatenate(parts), key

    def write_training_data(self) -> Iterator[int]:
        """Bring a corpus that does not fit into memory to the disk, once; yields the tokens that are written."""
        if self.large is not None:
            yield from self.large.write()

    def has_examples(self, corpus: str, n_tokens: int, text: str) -> bool:
        """Whether texts are there, read at this place, in which to look for a feature of the SAE on show."""
        return self._trainer_read_here or (
            self.corpus is not None and self._corpus_key == self._key_of(corpus, n_tokens, text)
        )

    @property
    def _trainer_read_here(self) -> bool:
        return self.can_continue and self._trained_bos == self.prepend_bos

    def _key_of(self, corpus: str, n_tokens: int, text: str) -> Any:
        return (self.site, self.prepend_bos, corpus, text if corpus == "text" else n_tokens)

    def drop_corpus(self) -> None:
        """Let go of a corpus that is not the one that was asked for."""
        self.corpus = self._corpus_key = self.large = None

    def take_statistics(self, corpus: str, n_tokens: int, text: str) -> Iterator[int]:
        """Find out on a corpus what the features of the SAE on show do, from where that was left the last time.

        Args:
            corpus: as in ``read_training_data``, as the others are.
            n_tokens: of a corpus.
            text: of the box.

        Yields:
            How far it is, for somebody who waits.
        """
        if not self._trainer_read_here:
            yield from self.read_training_data(corpus, n_tokens, text)
        read, shown = self._trained_on if self._trainer_read_here else self.corpus, self._shown
        assert read is not None and shown is not None
        if self._counting is None or self._counting.sae is not shown.sae:
            most = max(SAMPLE, COUNTING // shown.sae.W_enc.numel())
            self._counting = Counting(shown.sae, read.values[:most], read.position[:most], skip_first=shown.skip_first)
        yield from self._counting.pieces()
        stats, self._counting = self._counting.stats(), None
        self.show(replace(shown, stats=stats), keep=True)

    def start_training(self, config: TrainConfig, run: str, start: SAE | None = None) -> Trainer:
        """A fresh trainer on the corpus, for a run of this name; from an SAE's weights where one is given.

        Raises:
            ValueError: when the memory does not suffice or there are too few activations.
        """
        assert self.corpus is not None and self.model is not None
        batch_size = config.batch_size or self.corpus.n_tokens
        check_memory(self.corpus.d_in, config.d_sae, batch_size, config.architecture, config.wanted_k)
        metadata = {
            "model_name": self.model.name,
            "layer": self.layer,
            "hook_name": self.hook_name,
            "prepend_bos": self.prepend_bos,
            "training_tokens": self.large.source.n_tokens if self.large else self.corpus.n_tokens,
            "skip_first": config.skip_first,
        }
        if self.large is not None:
            self.trainer = Trainer(self.large.source, config=config, metadata=metadata, start=start)
        else:
            self.trainer = Trainer(self.corpus.values, self.corpus.position, config, metadata=metadata, start=start)
        self._trainer_site, self._trained_on, self.run = self.site, self.corpus, run
        self._trained_bos = self.prepend_bos
        if self.opened is not None:
            self._before[self.site] = self.opened
        self._trained_large = self.large  # its files stay for as long as the trainer reads them
        return self.trainer

    def training_words(self) -> str:
        """Where the activations of the training come from, when they are not in memory."""
        return self._trained_large.words if self._trained_large else ""

    def trained_words(self) -> str:
        """What was left out of the training, and how the SAE does on what was held out."""
        if self.trainer is None:
            return ""
        found = self.trainer.validation()
        held = (
            f"Explained variance {found.explained_variance:.3f} on {found.n_tokens:,} tokens held out." if found else ""
        )
        return " ".join(words for words in (self.trainer.left_out, held) if words)

    @property
    def can_continue(self) -> bool:
        """Whether the trainer on the desk belongs to the site that is shown."""
        return self.trainer is not None and self._trainer_site == self.site

    @property
    def opened(self) -> Shown | None:
        """The SAE on show when it came from elsewhere: from a file or from Python."""
        return self._shown if self._shown is not None and self._shown.opened else None

    def show_training(self, *, final: bool) -> Shown:
        """Show the SAE as it is now; ``final`` takes the statistics over the whole corpus."""
        assert self.trainer is not None and self._trained_on is not None
        sae, skip = self.trainer.sae(), self.trainer.config.skip_first
        values, position = self._trained_on.values, self._trained_on.position
        if not final and len(values) > SAMPLE:
            values, position = values[:SAMPLE], position[:SAMPLE]
        stats = feature_stats(sae, values, position, skip_first=skip)
        words = f"your SAE, {self.site_words}, step {self.trainer.step:,}"
        return self.show(Shown(sae, stats, words, skip, self.run), keep=final)

    def show(self, shown: Shown, *, keep: bool) -> Shown:
        """Put an SAE on show; ``keep`` remembers it for this site."""
        self._shown = shown
        if keep:
            self._trained[self.site] = self._shown
        return self._shown

    def open(self, sae: SAE, stats: FeatureStats | None, source: str, key: str, *, anyway: bool = False) -> None:
        """Show an SAE from elsewhere; ``key`` says which one it is.

        Raises:
            ValueError: when it was trained at another place, naming both (not with ``anyway``), or has another width.
        """
        elsewhere = mismatch(sae, *self.site)
        if elsewhere is not None and not anyway:
            raise ValueError(elsewhere)
        if self.prompt is not None and self.prompt.d_in != sae.d_in:
            raise ValueError(f"this SAE reads {sae.d_in} dimensions, {self.site_words} has {self.prompt.d_in}")
        skip, self._counting = bool(sae.metadata.get("skip_first", True)), None
        self.show(Shown(sae, stats, source, skip, key, opened=key != self.run), keep=True)

    @property
    def predictions(self) -> Predictions | None:
        """What is known of the language model with the SAE on show in it."""
        known, shown = self._predictions, self._shown
        here = known is not None and shown is not None and (known.sae, known.site) == (shown.sae, self.site)
        return known if here else None

    def look_at_predictions(self, corpus: str, n_tokens: int, text: str) -> Iterator[int]:
        """Put the SAE on show into the language model, on the texts of its training or on those of the form.

        Args:
            corpus: as in ``read_training_data``, as the others are.
            n_tokens: of a corpus.
            text: of the box.

        Yields:
            Tokens read so far, where a corpus has to be read.
        """
        shown, model = self._shown, self.model
        if shown is None or model is None or self.predictions is not None:
            return
        why_not, read = elsewhere(shown.sae, self.site), self.prompt
        if self._trainer_read_here or (self.can_continue and not shown.opened):
            read = self._trained_on
        elif corpus != "text" and not why_not:
            yield from self.read_training_data(corpus, n_tokens, text)
            read = self.corpus
        if why_not or read is None:
            self._predictions = Predictions(shown.sae, self.site, why_not=why_not or "no text could be read")
        else:
            self._predictions = look_at(shown.sae, self.site, model, read, of_prompt=read is self.prompt)

    def forget_training(self) -> None:
        """Go back to the SAE that the site had before anything was trained there; another site's trainer stays."""
        if self.can_continue:
            self.trainer = self._trained_on = self._trained_large = None
            self.run = ""  # whoever shows it again, shows it from its file
        self._trained.pop(self.site, None)
        before = self._before.pop(self.site, None)
        self._shown = self.show(before, keep=True) if before else self._bundled()

    def features(self) -> Features | None:
        """The SAE on show with the text, as one record; None while the site has no SAE."""
        shown = self._shown
        if shown is None:
            return None
        if self.prompt is not None and self.prompt.d_in != shown.sae.d_in:
            raise ValueError(f"the SAE reads {shown.sae.d_in} dimensions, {self.site_words} has {self.prompt.d_in}")
        prompt = None if self.prompt is None else prompt_features(shown.sae, self.prompt, skip_first=shown.skip_first)
        self._version += 1
        return Features(shown.sae, shown.stats, prompt, shown.source, self._version, shown.key)

    def card(self, feature: int, *, examples: bool = True) -> FeatureCardData:
        """Neighbours of one feature of the SAE on show, and its contexts with ``examples``, where ``has_examples``."""
        corpus = self._trained_on if self._trainer_read_here else self.corpus
        assert self._shown is not None
        sae = self._shown.sae
        contexts = None if corpus is None or not examples else top_contexts(sae, corpus, feature)
        return FeatureCardData(feature, contexts, neighbours(sae, feature), self._version, self._shown.key)

    def _bundled(self) -> Shown | None:
        if self.model is None or self.model.name != "bundled":
            return None
        found, words = bundled_sae(self.layer, self.hook_name, self.model.n_layer), self.site_words
        return found and Shown(*found, f"the bundled SAE, {words}", key=f"bundled, {words}", ships=True)
