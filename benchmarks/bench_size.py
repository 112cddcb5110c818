"""What training costs against its size: seconds per million tokens and peak memory, by width and by tokens.

Every size runs in a fresh process, so that its peak memory is its own. The widths train for some seconds, and their
cost per million tokens is worked out from that. The corpora are read once from a store on the disk, shuffled through a
buffer of bounded size.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.stores import write_synthetic

ROOT = Path(__file__).resolve().parents[1]
WIDTHS = (1024, 4096, 16_384, 65_536)
WIDTH_TASK = {"d_in": 768, "batch_size": 1024, "k": 32}
LEAST_STEPS, LEAST_SECONDS = 5, 8.0  # of a width, behind two steps of warm-up
TOKENS = (100_000, 1_000_000, 10_000_000)
TOKEN_TASK = {"d_in": 64, "d_sae": 512, "batch_size": 4096, "k": 8}
BUFFER_TOKENS = 262_144
LARGEST = int(os.environ.get("BENCH_TOKENS", TOKENS[-1]))  # leave out larger corpora, for trying the code


def run() -> list[tuple[str, str, str]]:
    """Rows of what was measured, the result, and the target."""
    rows = []
    widths = {width: probe("width", width) for width in WIDTHS}
    for width, found in widths.items():
        what = f"TopK, width {width:,}, {WIDTH_TASK['d_in']} dimensions, batch {WIDTH_TASK['batch_size']:,}"
        measured = f"{found['per_million']:,.0f} s per million tokens (worked out from {found['steps']} steps)"
        rows.append((what, f"{measured}, peak {found['peak'] / 1e9:.2f} GB", ""))
    rows += [_growth("width", *pair, widths, "per_million", "seconds per token") for pair in itertools.pairwise(WIDTHS)]

    sizes = [n for n in TOKENS if n <= LARGEST]
    corpora = {}
    for n in sizes:
        with tempfile.TemporaryDirectory(prefix="sae_widget-bench-") as folder:
            write_synthetic(Path(folder), n, TOKEN_TASK["d_in"])  # its memory and time are not the training's
            corpora[n] = probe("tokens", n, folder)
    for n, found in corpora.items():
        what = f"TopK, corpus of {n:,} tokens from disk, {TOKEN_TASK['d_in']} dimensions, width {TOKEN_TASK['d_sae']}"
        measured = f"{found['per_million']:.1f} s per million tokens, peak {found['peak'] / 1e9:.2f} GB"
        rows.append((what, measured, ""))
    for small, large in itertools.pairwise(sizes):
        rows.append(_growth("tokens", small, large, corpora, "seconds", "seconds", f"at most {1.1 * large / small:g}"))
        rows.append(
            _growth("tokens", small, large, corpora, "peak", "peak memory", "at most 1.2" if small > 1e5 else "")
        )
    return rows


def _growth(
    what: str, small: int, large: int, found: dict[int, dict[str, Any]], key: str, words: str, target: str = ""
) -> tuple[str, str, str]:
    grown = found[large][key] / found[small][key]
    return (
        f"{words}, {what} {small:,} -> {large:,}",
        f"{grown:.2f} times for {large / small:g} times the {what}",
        target,
    )


def probe(what: str, size: int, folder: str = "") -> dict[str, Any]:
    """One size in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.bench_size", what, str(size), folder]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def probe_width(d_sae: int, _: str) -> dict[str, Any]:
    """Steps of one width for some seconds."""
    from benchmarks.contestants import Task, ours
    from benchmarks.samples import sparse_combinations

    sample = sparse_combinations(65_536, WIDTH_TASK["d_in"])
    task = Task("topk", WIDTH_TASK["d_in"], d_sae, WIDTH_TASK["batch_size"], WIDTH_TASK["k"])
    contestant = ours(task, sample.values, sample.position)
    for _ in range(2):
        contestant.step()
    began, steps = time.perf_counter(), 0
    # No more than the tokens that there are: behind them features count as dead, and cost more.
    while steps < 60 and (steps < LEAST_STEPS or time.perf_counter() - began < LEAST_SECONDS):
        contestant.step()
        steps += 1
    seconds = (time.perf_counter() - began) / steps
    return {"per_million": seconds / task.batch_size * 1e6, "steps": steps, "peak": peak_bytes()}


def probe_tokens(n_tokens: int, folder: str) -> dict[str, Any]:
    """One epoch over a store of so many tokens, from opening it to the last step."""
    from sae_widget.config import TrainConfig
    from sae_widget.data import ShardedActivations
    from sae_widget.training import Trainer

    began = time.perf_counter()
    source = ShardedActivations(folder, buffer_tokens=BUFFER_TOKENS)
    config = TrainConfig(steps=n_tokens // TOKEN_TASK["batch_size"], **_without(TOKEN_TASK, "d_in"))
    steps = sum(1 for _ in Trainer(source, config=config).run())
    seconds = time.perf_counter() - began
    per_million = seconds / (steps * TOKEN_TASK["batch_size"]) * 1e6
    return {"per_million": per_million, "seconds": seconds, "steps": steps, "peak": peak_bytes()}


def _without(settings: dict[str, int], name: str) -> dict[str, int]:
    return {key: value for key, value in settings.items() if key != name}


def peak_bytes() -> int:
    """Most memory that this process had so far."""
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


if __name__ == "__main__":
    if len(sys.argv) > 1:
        kind, size, where = sys.argv[1:]
        print(json.dumps({"width": probe_width, "tokens": probe_tokens}[kind](int(size), where)))
    else:
        for row in run():
            print(" | ".join(row))
