"""``sae-widget train``: the explorer's engine without the explorer, in one process or in several."""

from __future__ import annotations

import argparse
import os
import sys
from contextlib import suppress
from dataclasses import asdict, fields
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING, Any

from sae_widget.cli.base import INTERRUPTED, Refused, StopFlag, first_process
from sae_widget.cli.reading import absolute, load, read, what_to_show
from sae_widget.config import FIXED_SETTINGS, TrainConfig

if TYPE_CHECKING:
    from sae_widget.runs import RunInfo
    from sae_widget.training.mesh import Alone

DEFAULTS = {
    "model": "bundled",
    "corpus": "documentation",
    "tokens": 100_000,
    "hook_name": "resid_pre",
    "prepend_bos": True,
}
"""What is read when nothing else is said."""


def run(args: argparse.Namespace) -> None:
    """Read the texts, train to the end or until it is stopped, and save what was trained."""
    given = {f.name: getattr(args, f.name) for f in fields(TrainConfig) if getattr(args, f.name) is not None}
    args.store = None if args.store is None else str(args.store.expanduser().absolute())
    if not args.checkpoint_seconds > 0:
        raise ValueError(f"checkpoint_seconds must be above 0, got {args.checkpoint_seconds:g}")
    from sae_widget.activations.base import ModelLoadError
    from sae_widget.checkpoint import SaeFileError
    from sae_widget.checkpoint.base import printable
    from sae_widget.training.mesh import MeshFault

    mesh: Alone | None = None
    try:
        before = _found(args.out) if args.resume else None
        if before is not None and before.state == "finished":
            where = printable(str(args.out))
            _say(f"The run in {where} is finished; nothing is left to resume. Train anew with --overwrite.", sys.stdout)
            return
        config = _config(args, given, before)
        _check_out(args.out, overwrite=args.overwrite or before is not None)
        mesh = _mesh()
        _train(args, config, mesh, resume=before is not None)
    except (ModelLoadError, SaeFileError) as fault:
        raise Refused(str(fault)) from fault
    except MeshFault as fault:
        raise Refused(f"{fault} Nothing was written.", told=True) from fault
    finally:
        if mesh is not None:
            mesh.close()


def _found(out: Path) -> RunInfo | None:
    """The run that is to go on; None when there is none yet, so that one command can begin it and go on with it."""
    from sae_widget.runs import RUN, has_checkpoint, read_run

    if not (out / RUN).exists():
        _say(f"There is no run in {out} to go on with: it begins.")
        return None
    info = read_run(out)
    if info.state != "finished" and not has_checkpoint(out):
        _say(f"The run in {out} has no checkpoint yet: it begins again.")
    return info


def _config(args: argparse.Namespace, given: dict[str, Any], before: RunInfo | None) -> TrainConfig:
    """The recipe; what is read is filled in, from the run that goes on or from the defaults."""
    if before is None:
        for name, default in DEFAULTS.items():
            setattr(args, name, default if getattr(args, name) is None else getattr(args, name))
        if args.tokens < 1:
            raise ValueError(f"tokens must be at least 1, got {args.tokens}")
        return TrainConfig.original_tutorial(**given) if args.original_tutorial else TrainConfig(**given)
    asked = {name: getattr(args, name) for name in (*DEFAULTS, "layer")} | {"texts": args.text}
    asked["corpus"] = None if args.corpus is None else absolute(args.corpus)
    asked["store"] = args.store
    other = before.differs(asked)
    config = before.config.changed(**given)
    fixed = [name for name in FIXED_SETTINGS if getattr(config, name) != getattr(before.config, name)]
    if other or fixed:
        name = other or fixed[0]
        was = getattr(before, name) if other else getattr(before.config, name)
        told = asked[name] if other else getattr(config, name)
        raise ValueError(
            f"the run in {args.out} has {name} {was!r}, got {told!r}: leave it out, or choose another --out"
        )
    for name in (*DEFAULTS, "layer", "store"):
        setattr(args, name, getattr(before, name))
    args.text = before.texts
    return config


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
        from sae_widget.runs import has_checkpoint

        goes_on = ", go on with --resume" if has_checkpoint(out) else ""
        raise ValueError(f"{out} already holds an SAE; choose another --out{goes_on}, or give --overwrite.")


def _mesh() -> Alone:
    """The processes that train together: this one, or those that a launcher started."""
    from sae_widget.training.mesh import ALONE, Group, launched

    if launched() == 1:
        if os.environ.get("ACCELERATE_USE_CPU", "").lower() == "true" and "MASTER_PORT" in os.environ:
            _say("accelerate launch has started one process; torchrun starts several on a CPU.")
        return ALONE
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # a fellow that is gone is told in one sentence, ours
    try:
        return Group()
    except ImportError as error:
        raise Refused(str(error)) from error


def was_in_a_group() -> bool:
    """Whether this process has trained together with others."""
    mesh = sys.modules.get("sae_widget.training.mesh")
    return mesh is not None and bool(mesh.Group.made)


def _train(args: argparse.Namespace, config: TrainConfig, mesh: Alone, *, resume: bool) -> None:
    from sae_widget.activations.base import layer_name
    from sae_widget.cli.fitting import Fit
    from sae_widget.runs import RunInfo, has_checkpoint

    model = load(args.model)
    layer = model.n_layer * 2 // 3 if args.layer is None else args.layer
    _say(f"{model.label}, {layer_name(layer, args.hook_name, model.n_layer)}")
    shown = what_to_show(args, config, model.name, layer)
    with StopFlag(patient=mesh.size > 1) as flag:
        data = read(model, args, layer, flag, mesh)
        if mesh.any(data is None or flag.stopped):
            raise Refused("Stopped while reading the texts; nothing was written.", INTERRUPTED)
        assert data is not None  # otherwise it was stopped
        info = RunInfo(
            total=config.steps,
            model=args.model,
            layer=layer,
            hook_name=args.hook_name,
            prepend_bos=args.prepend_bos,
            corpus=None if args.text else absolute(args.corpus),
            texts=args.text or None,
            tokens=args.tokens,
            store=args.store,
            settings=asdict(config),
        )
        fit = Fit(data, info, shown, args.out, flag, mesh, args.checkpoint_seconds)
        if resume and has_checkpoint(args.out):
            fit.go_on()
        fit.run()


def _say(words: str, to: Any = None) -> None:
    """Print, in the first process."""
    if first_process():
        print(words, file=to or sys.stderr)
