"""The ``sae-widget`` command: open the notebooks, train without a notebook, say what is installed."""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from sae_widget import __version__
from sae_widget.cli import info, lab, train
from sae_widget.cli.base import INTERRUPTED, Refused, first_process
from sae_widget.config import ARCHITECTURES, HOOK_NAMES, TrainConfig

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["command", "main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    args = _parser().parse_args(argv)
    try:
        return args.run(args) or 0
    except Refused as refused:
        sentence, status, told = str(refused), refused.status, refused.told
    except (ValueError, TypeError) as fault:  # of several processes each has the same one
        sentence, status, told = str(fault), 1, first_process()
    except OSError as fault:
        sentence, status, told = str(fault), 1, True
    except KeyboardInterrupt:
        sentence, status, told = "Interrupted; what was written before is kept.", INTERRUPTED, True
    if told:
        print(f"sae-widget: {sentence}", file=sys.stderr)
    return status


def command() -> int:
    """Run the command line as a process of its own.

    One of a group ends without the interpreter's own end: two of fifty were seen to abort there, in torch's threads.
    """
    status = main()
    if train.was_in_a_group():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="sae-widget", description=__doc__, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"sae-widget {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    opens = commands.add_parser("lab", help="open the quickstart notebook in JupyterLab", allow_abbrev=False)
    opens.add_argument("path", nargs="?", type=Path, help="a notebook or a folder (default: the quickstart)")
    opens.add_argument("--port", type=int, default=8888)
    opens.add_argument("--no-browser", action="store_true", help="serve only; the address is printed")
    opens.set_defaults(run=lab.run)

    tells = commands.add_parser("info", help="say what is installed and what is missing", allow_abbrev=False)
    tells.set_defaults(run=info.run)

    trains = commands.add_parser("train", help="train a sparse autoencoder", allow_abbrev=False)
    trains.set_defaults(run=train.run)
    trains.add_argument("--out", type=Path, required=True, help="folder that the SAE is written to")
    trains.add_argument("--overwrite", action="store_true", help="replace an SAE that is already there")
    trains.add_argument(
        "--resume",
        action="store_true",
        help="go on from the last checkpoint in --out with what it reads and its recipe; begin when there is none",
    )
    trains.add_argument(
        "--checkpoint-seconds",
        type=float,
        default=60.0,
        metavar="SECONDS",
        help="time between two checkpoints (default: %(default)g)",
    )
    trains.add_argument("--model", help=f"'bundled', a name on the hub, or a directory {_default('model')}")
    source = trains.add_mutually_exclusive_group()
    source.add_argument("--text", action="append", help="train on this text (may be given several times)")
    source.add_argument(
        "--corpus",
        help=f"'documentation', a text file, a folder, or 'datasets:owner/name[:config][:split][:column]' "
        f"{_default('corpus')}",
    )
    trains.add_argument(
        "--store",
        type=Path,
        help="write the activations to this folder once and read them from there: for a corpus larger than the memory",
    )
    trains.add_argument("--tokens", type=int, help=f"tokens read for training {_default('tokens')}")
    trains.add_argument("--layer", type=int, help="block, from 0 (default: two thirds of the way up)")
    trains.add_argument("--hook-name", choices=HOOK_NAMES, help=_default("hook_name"))
    trains.add_argument("--prepend-bos", action=argparse.BooleanOptionalAction, default=None)
    trains.add_argument("--original-tutorial", action="store_true", help="start from that recipe")
    _add_settings(trains.add_argument_group("recipe", "see TrainConfig; what is not given keeps its default"))
    return parser


def _default(name: str) -> str:
    return f"(default: {train.DEFAULTS[name]})"


def _add_settings(group: argparse._ArgumentGroup) -> None:
    """One option for each field of ``TrainConfig``; ``None`` means not given."""
    for setting in fields(TrainConfig):
        name, default = "--" + setting.name.replace("_", "-"), setting.default
        text = f"(default: {default})"
        if isinstance(default, bool):
            group.add_argument(name, action=argparse.BooleanOptionalAction, default=None, help=text)
        else:
            choices = tuple(ARCHITECTURES) if setting.name == "architecture" else None
            group.add_argument(name, type=type(default), choices=choices, help=text)
