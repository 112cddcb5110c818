"""Tokens per second of whole training steps: ours, SAELens', dictionary_learning's, and the floor of matrix products.

All run in one process with the same torch and the same number of threads, and take turns; a ratio is taken inside a
round, and its median over the rounds is told. Ours is the public ``Trainer.run`` with all that it does besides the
step: gathering the batch, clipping, dead counts, the metrics of every record (the measure over the fixed set, which is
held to 2 % of the time, falls into some turns). The peers are given their batches ready. See ``contestants``.

What a step with ReLU costs us, and nobody else, depends on how many features fire: at the start 3 %, later fewer. Both
are measured: a run as it starts, and one whose features start so that ``FEW`` fire. Rows say the measured L0.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import NamedTuple

import torch

from benchmarks.contestants import PEERS, Task, all_of, ours
from benchmarks.floors import matmuls, name_of
from benchmarks.samples import Sample, planted, sparse_combinations
from benchmarks.timing import Speed, ratio, rounds_of, tokens_per_second

FEW = 32  # features that fire on a token, where an L1 penalty has done its work
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))
D_IN = 768
N_TOKENS = 196_608  # more than ours reads here, so that it sees no feature as dead, as nobody else does
TINY_TOKENS = 262_144  # 1,000 steps of 256: when one did not fire over so many, SAELens and ours call a feature dead
OUR_STEPS = 10  # in a turn: the turns of all rounds together hold the measure over the fixed set in its share
FLOORS = (torch.float32, torch.bfloat16)


class Cell(NamedTuple):
    """One size of one kind, and what is asked there."""

    kind: str
    d_sae: int
    batch_size: int
    times: float = 1.0  # faster than both peers
    saelens: float = 0.0  # faster than SAELens, where that is more
    floor: float | None = None  # share of the bfloat16 floor
    few: bool = False  # measured with few features firing as well


CELLS = (
    Cell("standard", 1024, 4096),
    Cell("standard", 4096, 4096, times=4.5, floor=0.8, few=True),
    Cell("standard", 16_384, 1024, few=True),
    Cell("topk", 1024, 4096),
    Cell("topk", 4096, 4096, times=11.0),
    Cell("topk", 16_384, 1024, times=13.0),
)
TINY = tuple(Cell(kind, 64, rows, saelens=5.0) for rows in (64, 256) for kind in ("standard", "topk"))
SPARSITY = {"standard": 1.0, "topk": 32.0}
WORDS = {"standard": "ReLU", "topk": "TopK"}


def measure(cell: Cell, sample: Sample, sparsity: float, floors: tuple[torch.dtype, ...]) -> list[tuple]:
    """Rows of one size: of each of our runs against the peers and the floors."""
    task = Task(cell.kind, sample.values.shape[1], cell.d_sae, cell.batch_size, sparsity)
    made, *others = all_of(task, sample.values, sample.position)
    runs = [made]
    if cell.few:
        later = ours(task, sample.values, sample.position, start_firing=FEW / cell.d_sae)
        runs.append(replace(later, name="ours, few firing"))
    contestants = [*runs, *others, *(matmuls(task, dtype) for dtype in floors)]
    times, rows = rounds_of(contestants, ROUNDS, {run.name: OUR_STEPS for run in runs}), []
    for run in runs:
        what = (
            f"{WORDS[cell.kind]}, {task.d_in} dimensions, width {cell.d_sae:,}, batch {cell.batch_size:,}, "
            f"{torch.get_num_threads()} threads, L0 {run.step().l0:.0f}"
        )
        rows += rows_of(cell, what, times[run.name], times, floors)
    return rows


def rows_of(
    cell: Cell, what: str, own: list[Speed], times: dict[str, list[Speed]], floors: tuple[torch.dtype, ...]
) -> list[tuple]:
    """Rows of one of our runs for the two peers, then for the floors."""
    speed, rows = tokens_per_second(own, cell.batch_size), []
    for peer in PEERS:
        theirs = tokens_per_second(times[peer], cell.batch_size)
        by_cpu = ratio(times[peer], own, lambda one: one.cpu)
        measured = (
            f"{ratio(times[peer], own):.1f} times faster "
            f"({theirs:,.0f} -> {speed:,.0f} tokens/s; processor time {by_cpu:.1f} times)"
        )
        wanted = max(cell.times, cell.saelens if peer == "SAELens" else 0.0)
        rows.append((f"{what}: against {peer}", measured, f"at least {wanted:g} times"))
    for dtype in floors:
        name = name_of(dtype)
        floor = tokens_per_second(times[name], cell.batch_size)
        has_target = cell.floor is not None and dtype is torch.bfloat16
        target = f"at least {cell.floor:g}" if has_target else ""
        measured = f"{ratio(times[name], own):.2f} of {floor:,.0f} tokens/s"
        rows.append((f"{what}: of the {name}", measured, target))
    return rows


def processor() -> tuple[str, str, str]:
    """A row about the machine: what bfloat16 is worth here, on which most of what follows depends."""
    task = Task("standard", D_IN, 4096, 4096, 1.0)
    wide, narrow = (matmuls(task, dtype) for dtype in FLOORS)
    times = rounds_of([wide, narrow], ROUNDS, {})
    worth = ratio(times[wide.name], times[narrow.name])
    return "matrix products on this processor, bfloat16 against float32", f"{worth:.2f} times as fast", ""


def run() -> list[tuple[str, str, str]]:
    """Rows of what was measured, the result, and the target."""
    tiny, sample, rows = planted(TINY_TOKENS), sparse_combinations(N_TOKENS, D_IN), [processor()]
    for cell in TINY:
        rows += measure(cell, tiny, 3.0 if cell.kind == "topk" else 1.0, ())
    for cell in CELLS:
        rows += measure(cell, sample, SPARSITY[cell.kind], FLOORS)
    return rows


if __name__ == "__main__":
    for row in run():
        print(" | ".join(row))
