"""Real processes of ``sae-widget train``: alone, several at once, and with one that is killed."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


def command(model: Path, out: Path, *more: str) -> list[str]:
    """A small training."""
    small = ["--layer", "1", "--d-sae", "24", "--k", "4", "--batch-size", "32", "--tokens", "600"]
    return ["-m", "sae_widget", "train", "--model", str(model), "--out", str(out), *small, *more]


def spawn(arguments: list[str], **environment: str) -> subprocess.Popen[str]:
    """A Python of its own, its output in pipes."""
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def spawn_group(arguments: list[str], size: int = 2) -> list[subprocess.Popen[str]]:
    """So many processes as a launcher would start them, in the order of their ranks."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(size)}
    return [spawn(arguments, RANK=str(rank), LOCAL_RANK=str(rank), **shared) for rank in range(size)]


def run_info(out: Path) -> dict[str, Any]:
    """``run.json``, empty while there is none."""
    try:
        return json.loads((out / "run.json").read_text())
    except FileNotFoundError:
        return {}


def until_step(out: Path, step: int, process: subprocess.Popen[str], seconds: float = 90.0) -> None:
    """Wait until a run says that it has done so many steps."""
    end = time.monotonic() + seconds
    while run_info(out).get("step", 0) < step:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)
