"""``sae-widget train``: the explorer's engine without the explorer."""

from __future__ import annotations

import json
import math
import signal
import sys
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

from sae_widget.cli.base import INTERRUPTED, Refused
from sae_widget.config import TrainConfig

if TYPE_CHECKING:
    import argparse
    from pathlib import Path
    from types import FrameType

    from sae_widget.activations.base import Activations, LanguageModel
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
    if (args.out / "cfg.json").exists() and not args.overwrite:
        raise ValueError(f"{args.out} already holds an SAE; choose another --out, or give --overwrite.")
    if args.tokens < 1:
        raise ValueError(f"tokens must be at least 1, got {args.tokens}")
    from sae_widget.activations.base import ModelLoadError, layer_name

    try:
        model = _load(args.model)
    except ModelLoadError as fault:
        raise Refused(str(fault)) from fault
    layer = model.n_layer * 2 // 3 if args.layer is None else args.layer
    print(f"{model.label}, {layer_name(layer, args.hook_name, model.n_layer)}", file=sys.stderr)
    with StopFlag() as flag:
        data = _read(model, args, layer, flag)
        if data is None or flag.stopped:
            raise Refused("Stopped while reading the texts; nothing was written.", INTERRUPTED)
        site = {"model_name": model.name, "layer": layer, "hook_name": args.hook_name}
        site |= {"prepend_bos": args.prepend_bos, "training_tokens": data.n_tokens}
        _fit_and_save(data, config, site, args.out, flag)


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


def _fit_and_save(data: Activations, config: TrainConfig, site: dict[str, Any], out: Path, flag: StopFlag) -> None:
    from sae_widget.training import History, Trainer

    trainer = Trainer(data.values, data.position, config, metadata=site)
    history = History()
    fault = _fit(trainer, history, flag)
    if trainer.step == 0:
        raise Refused(fault or "Stopped before the first step; nothing was written.", 1 if fault else INTERRUPTED)
    sae = trainer.sae()
    print(_save(sae, data, history, config, out))
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
    """Write the SAE, its statistics and ``history.json``; returns a summary."""
    from sae_widget.checkpoint import save_sae
    from sae_widget.features import feature_stats

    stats = feature_stats(sae, data.values, data.position, skip_first=config.skip_first)
    save_sae(sae, out, stats.tensors())
    records = [{k: _number(v) for k, v in asdict(step).items()} for step in history.to_list()]
    (out / "history.json").write_text(json.dumps({"settings": asdict(config), "steps": records}), encoding="utf-8")
    return (
        f"Saved {out}: {sae.d_sae:,} features on {data.n_tokens:,} tokens, "
        f"explained variance {stats.explained_variance:.3f} ({stats.explained_variance_with_first:.3f} with "
        f"position 0), L0 {stats.l0:.1f}, dead {int(stats.dead.sum()):,}"
    )


def _number(value: float) -> float | None:
    """JSON has no ``nan``."""
    return value if math.isfinite(value) else None
