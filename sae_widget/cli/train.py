"""``sae-widget train``: the explorer's engine without the explorer."""

from __future__ import annotations

import math
import signal
import sys
from contextlib import suppress
from dataclasses import asdict, fields
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING, Any

from sae_widget.cli.base import INTERRUPTED, Refused
from sae_widget.config import CORPUS_TOKENS, MAX_TEXT_CHARS, START, TrainConfig

if TYPE_CHECKING:
    import argparse
    from types import FrameType

    from sae_widget.activations.base import Activations, LanguageModel
    from sae_widget.runs import SavedExplorer
    from sae_widget.sae.base import SAE
    from sae_widget.training import History, Trainer


class StopFlag:
    """While it is entered, Ctrl-C (or a job's end) only raises ``stopped``; a second Ctrl-C ends at once."""

    def __init__(self) -> None:
        self.stopped = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopFlag:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._stop)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        if self.stopped:
            raise KeyboardInterrupt
        self.stopped = True


def run(args: argparse.Namespace) -> None:
    """Read the texts, train to the end or until it is stopped, and save what was trained."""
    given = {f.name: getattr(args, f.name) for f in fields(TrainConfig) if getattr(args, f.name) is not None}
    config = TrainConfig.original_tutorial(**given) if args.original_tutorial else TrainConfig(**given)
    if args.tokens < 1:
        raise ValueError(f"tokens must be at least 1, got {args.tokens}")
    _check_out(args.out, overwrite=args.overwrite)
    from sae_widget.activations.base import ModelLoadError
    from sae_widget.checkpoint import SaeFileError

    try:
        _train(args, config)
    except (ModelLoadError, SaeFileError) as fault:
        raise Refused(str(fault)) from fault


def _check_out(out: Path, *, overwrite: bool) -> None:
    """Find out now, and not after the training, whether the folder can be written; it stays as it is."""
    made: list[Path] = []
    try:
        made = [folder for folder in (out, *out.parents) if not folder.exists()]
        out.mkdir(parents=True, exist_ok=True)
        NamedTemporaryFile(dir=out, prefix=".sae_widget.").close()
        taken = (out / "cfg.json").exists()
    except OSError as fault:
        reason = (fault.strerror or str(fault)).lower()
        raise Refused(f"{out} cannot be written: {reason}. Nothing was trained; choose another --out.") from fault
    finally:
        for folder in made:
            with suppress(OSError):
                folder.rmdir()
    if taken and not overwrite:
        raise ValueError(f"{out} already holds an SAE; choose another --out, or give --overwrite.")


def _train(args: argparse.Namespace, config: TrainConfig) -> None:
    from sae_widget.activations.base import layer_name

    model = _load(args.model)
    layer = model.n_layer * 2 // 3 if args.layer is None else args.layer
    print(f"{model.label}, {layer_name(layer, args.hook_name, model.n_layer)}", file=sys.stderr)
    shown = _what_to_show(args, config, model.name, layer)
    with StopFlag() as flag:
        data = _read(model, args, layer, flag)
        if data is None or flag.stopped:
            raise Refused("Stopped while reading the texts; nothing was written.", INTERRUPTED)
        _fit_and_save(data, config, shown, args.out, flag)


def _what_to_show(args: argparse.Namespace, config: TrainConfig, model: str, layer: int) -> SavedExplorer:
    """What ``SuperpositionExplorer.load`` opens with: this place and recipe, and what was trained on."""
    from sae_widget.activations.text import check_texts
    from sae_widget.runs import describe

    text, corpus = START.text, args.corpus
    if args.text:
        text, corpus = "\n".join(check_texts(args.text)[0])[:MAX_TEXT_CHARS], "text"
    elif corpus != START.corpus:
        corpus = str(Path(corpus).expanduser().absolute())  # it is opened from another folder, perhaps
    return describe(
        config,
        model=model,
        layer=layer,
        hook_name=args.hook_name,
        prepend_bos=args.prepend_bos,
        text=text,
        corpus=corpus,
        corpus_tokens=min(max(args.tokens, CORPUS_TOKENS[0]), CORPUS_TOKENS[1]),
    )


def _load(name: str) -> LanguageModel:
    from tqdm import tqdm

    from sae_widget.activations.models import load_model

    with tqdm(desc=f"Loading {name}", unit="B", unit_scale=True, leave=False, delay=0.5) as bar:

        def progress(done: int, total: int | None) -> None:
            bar.total = total
            bar.update(done - bar.n)

        return load_model(name, progress=progress)


def _read(model: LanguageModel, args: argparse.Namespace, layer: int, flag: StopFlag) -> Activations | None:
    """Activations of the texts, or ``None`` when it was stopped before the first of them."""
    from tqdm import tqdm

    from sae_widget.activations.corpus import corpus_texts
    from sae_widget.data import concatenate, pieces, read_corpus

    texts = pieces(args.text or corpus_texts(args.corpus))
    parts = []
    with tqdm(desc="Reading", total=args.tokens, unit=" tokens", leave=False) as bar:
        for part in read_corpus(
            model, texts, layer, args.hook_name, prepend_bos=args.prepend_bos, max_tokens=args.tokens
        ):
            if flag.stopped:
                return None
            parts.append(part)
            bar.update(part.n_tokens)
    data = concatenate(parts)
    for note in data.notes:
        print(note, file=sys.stderr)
    return data


def _fit_and_save(data: Activations, config: TrainConfig, shown: SavedExplorer, out: Path, flag: StopFlag) -> None:
    from sae_widget.runs import write_explorer
    from sae_widget.training import History, Trainer

    site: dict[str, Any] = {"model_name": shown.model, "layer": shown.layer, "hook_name": shown.hook_name}
    site |= {"prepend_bos": shown.prepend_bos, "training_tokens": data.n_tokens, "skip_first": config.skip_first}
    trainer = Trainer(data.values, data.position, config, metadata=site)
    history = History()
    fault = _fit(trainer, history, flag)
    if trainer.step == 0:
        raise Refused(fault or "Stopped before the first step; nothing was written.", 1 if fault else INTERRUPTED)
    sae = trainer.sae()
    words = _save(sae, data, history, config, out)
    write_explorer(out, shown)
    print(words)
    if fault:
        raise Refused(f"{fault} The SAE of step {trainer.step:,} was saved.")
    if trainer.step < config.steps:
        raise Refused(f"Stopped at step {trainer.step:,} of {config.steps:,}; that SAE was saved.", INTERRUPTED)


def _fit(trainer: Trainer, history: History, flag: StopFlag) -> str:
    """Train to the end, a fault or the flag; returns the fault's sentence, or nothing."""
    from tqdm import tqdm

    from sae_widget.training import TrainingFault

    with tqdm(desc="Training", total=trainer.config.steps, unit=" steps", leave=False) as bar:
        try:
            for record in trainer.run():
                history.append(record)
                bar.set_postfix(loss=f"{record.loss:.4g}", l0=f"{record.l0:.1f}", refresh=False)
                bar.update()
                if flag.stopped:
                    break
        except TrainingFault as fault:
            return str(fault)
    return ""


def _save(sae: SAE, data: Activations, history: History, config: TrainConfig, out: Path) -> str:
    """Write the SAE, its statistics and its history; returns a summary."""
    from sae_widget.checkpoint import save_sae
    from sae_widget.features import feature_stats
    from sae_widget.runs import HISTORY, write_json

    stats = feature_stats(sae, data.values, data.position, skip_first=config.skip_first)
    save_sae(sae, out, stats.tensors())
    records = [{k: _number(v) for k, v in asdict(step).items()} for step in history.to_list()]
    write_json(out / HISTORY, {"settings": asdict(config), "steps": records})
    return (
        f"Saved {out}: {sae.d_sae:,} features on {data.n_tokens:,} tokens, "
        f"explained variance {stats.explained_variance:.3f} ({stats.explained_variance_with_first:.3f} with "
        f"position 0), L0 {stats.l0:.1f}, dead {int(stats.dead.sum()):,}"
    )


def _number(value: float) -> float | None:
    """JSON has no ``nan``."""
    return value if math.isfinite(value) else None
