"""Tokens per second on a GPU: ours, both peers, and the floor of bfloat16 matrix products. Skipped where none is."""

from __future__ import annotations

import inspect

import torch

from benchmarks.bench_throughput import SPARSITY, WORDS
from benchmarks.contestants import Task, all_of
from benchmarks.floors import matmuls, name_of
from benchmarks.samples import sparse_combinations
from benchmarks.timing import ratio, rounds_of, tokens_per_second

ROUNDS = 5
D_IN, BATCH = 768, 4096
WIDTHS = (16_384, 131_072)
N_TOKENS = 524_288


def run() -> list[tuple[str, str, str]]:
    """Rows of what was measured, the result, and the target."""
    why = reason_to_skip()
    if why:
        return [("GPU against both peers and the bfloat16 floor", f"skipped: {why}", "")]
    sample = sparse_combinations(N_TOKENS, D_IN)
    return [row for kind in ("standard", "topk") for width in WIDTHS for row in measure(kind, width, sample)]


def reason_to_skip() -> str:
    """Why nothing can be measured here, or nothing."""
    from sae_widget.training import Trainer

    if not torch.cuda.is_available():
        return "torch sees no CUDA device on this machine"
    if "device" not in inspect.signature(Trainer).parameters:
        return "the trainer has no device to choose"
    return ""


def measure(kind: str, width: int, sample: object) -> list[tuple[str, str, str]]:
    """Rows of one kind at one width."""
    task = Task(kind, D_IN, width, BATCH, SPARSITY[kind], device="cuda")
    contestants = [*all_of(task, sample.values, sample.position), matmuls(task, torch.bfloat16)]
    times = rounds_of(contestants, ROUNDS, {"ours": 10})
    own, speed = times["ours"], {name: tokens_per_second(some, BATCH) for name, some in times.items()}
    floor = name_of(torch.bfloat16)
    what = f"{WORDS[kind]}, width {width:,}, batch {BATCH:,} on {torch.cuda.get_device_name()}"
    rows = [
        (
            f"{what}: against {peer}",
            f"{ratio(times[peer], own):.1f} times faster ({speed[peer]:,.0f} -> {speed['ours']:,.0f} tokens/s)",
            "at least 2 times",
        )
        for peer in ("SAELens", "dictionary_learning")
    ]
    share = f"{ratio(times[floor], own):.2f} of {speed[floor]:,.0f} tokens/s"
    return [*rows, (f"{what}: of the {floor}", share, "at least 0.5")]


if __name__ == "__main__":
    for row in run():
        print(" | ".join(row))
