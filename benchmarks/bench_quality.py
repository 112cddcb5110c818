"""Quality after the same tokens: ours against both peers, and our fast path against the plain float32 loop.

The peers get what makes them good: rows without position 0, scaled to mean norm sqrt(d_in) (as SAELens documents it;
dictionary_learning finds more at this scale than at its own, a mean square norm of 1), warm-ups and decay in proportion
to the run, and two learning rates, their own and ours, of which the better one counts. Ours runs once with its
defaults. TopK is compared at the same k; for ReLU the peers' penalties are searched until they have the L0 of ours.
"""

from __future__ import annotations

import math
import os
import time
import warnings
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from benchmarks.contestants import PEERS, Task, ours, shuffled
from benchmarks.plain import PlainLoop
from benchmarks.samples import Sample, bundled_activations, ladder, sparse_combinations
from benchmarks.scores import Score, at_l0, score
from sae_widget.config import TrainConfig

if TYPE_CHECKING:
    from collections.abc import Callable

SHORTER = float(os.environ.get("BENCH_STEPS", "1"))  # a factor on all numbers of steps, for trying the code
HELD = 0.15  # of the tokens, at the end, are for measuring only
RATES = (None, TrainConfig().learning_rate)
BELOW = 0.005  # may ours be under the better peer
SEEDS = (0, 1, 2)
FULL_SIZE = {"d_in": 768, "d_sae": 2048, "batch_size": 1024, "steps": 200}


@dataclass(frozen=True)
class Field:
    """Some data, and what is trained on it."""

    name: str
    sample: Callable[[], Sample]
    d_sae: int
    batch_size: int
    steps: int
    k: int
    l1: float  # in units where the mean norm is sqrt(d_in)


FIELDS = (
    Field("ladder", lambda: ladder(60_000), d_sae=192, batch_size=512, steps=2000, k=3, l1=1.0),
    Field(
        "bundled model, layer 4", lambda: bundled_activations(60_000), 1024, batch_size=1024, steps=400, k=32, l1=1.0
    ),
)


def run() -> list[tuple[str, str, str]]:
    """Rows of what was measured, the result, and the target."""
    rows = []
    for field in FIELDS:
        sample = field.sample()
        for kind in ("standard", "topk"):
            rows += against_peers(field, sample, kind)
    return rows + against_plain("standard") + against_plain("topk")


def against_peers(field: Field, sample: Sample, kind: str) -> list[tuple[str, str, str]]:
    """Rows for one kind on one field."""
    cut = int((1 - HELD) * len(sample.values))
    train, held = (Sample(sample.values[part], sample.position[part]) for part in (slice(cut), slice(cut, None)))
    steps = max(20, round(SHORTER * field.steps))
    sparsity = field.k if kind == "topk" else field.l1
    task = Task(kind, sample.values.shape[1], field.d_sae, field.batch_size, sparsity, steps=steps, scheduled=True)
    own = _score_ours(task, train, held, sample.true)
    best: dict[str, list[Score]] = {"ours": [own]}
    for peer in PEERS:
        found = [_peer_at(own.l0, peer, replace(task, rate=r), train, held, sample.true) for r in RATES]
        best[peer] = [one for one in found if one is not None]
    what = f"{field.name}, {'TopK' if kind == 'topk' else 'ReLU'}, {steps * field.batch_size:,} tokens, L0 {own.l0:.1f}"
    rows = [_row(f"{what}: explained variance", {name: [s.variance for s in some] for name, some in best.items()})]
    if sample.true is not None:
        rows.append(_row(f"{what}: MMCS", {name: [s.mmcs for s in some] for name, some in best.items()}))
    return rows


def _row(what: str, found: dict[str, list[float]]) -> tuple[str, str, str]:
    """Ours less the best of the peers' runs; a peer without any never had this L0."""
    told = ", ".join(f"{name} {max(some):.4f}" if some else f"{name} never has it" for name, some in found.items())
    theirs = [value for name, some in found.items() if name != "ours" for value in some]
    apart = f"{found['ours'][0] - max(theirs):+.4f} " if theirs else ""
    return what, f"{apart}({told})", f"at least -{BELOW:g}"


def _peer_at(l0: float, peer: str, task: Task, *data: Any) -> Score | None:
    """A peer's score at this L0; with TopK it is what ``k`` makes it."""
    if task.kind == "topk":
        return _score_peer(peer, task, *data)
    return at_l0(lambda penalty: _score_peer(peer, replace(task, sparsity=penalty), *data), task.sparsity, l0)


def _score_ours(task: Task, train: Sample, held: Sample, true: torch.Tensor | None) -> Score:
    contestant = ours(task, train.values, train.position)
    for _ in range(task.steps):
        contestant.step()
    return score(contestant.trained(), held.without_first(), true)


def _score_peer(peer: str, task: Task, train: Sample, held: Sample, true: torch.Tensor | None) -> Score:
    rows = train.without_first()
    scale = math.sqrt(task.d_in) / float(rows.norm(dim=1).mean())
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the peers' own deprecations
        contestant = PEERS[peer](task, shuffled(rows * scale, task.batch_size, task.seed))
        for _ in range(task.steps):
            contestant.step()
    return score(contestant.trained(), held.without_first() * scale, true)


def against_plain(kind: str) -> list[tuple[str, str, str]]:
    """Rows for the fast path against the plain loop, the worst of three seeds."""
    sizes = FULL_SIZE | {"steps": max(20, round(SHORTER * FULL_SIZE["steps"]))}
    d_in = sizes.pop("d_in")
    sample = sparse_combinations(50_000, d_in)
    held = sparse_combinations(10_000, d_in, seed=1).values
    apart, off, seconds = [], [], [0.0, 0.0]
    for seed in SEEDS:
        config = TrainConfig(architecture=kind, k=32, seed=seed, **sizes)
        task = Task(kind, d_in, config.d_sae, config.batch_size, 32 if kind == "topk" else 1.0, config.steps, seed=seed)
        began = time.perf_counter()
        fast = ours(task, sample.values, sample.position, precision="bfloat16")
        for _ in range(config.steps):
            fast.step()
        between = time.perf_counter()
        plain = PlainLoop(sample.values, sample.position, config).run()
        seconds = [seconds[0] + between - began, seconds[1] + time.perf_counter() - between]
        mine, its = score(fast.trained(), held, None), score(plain, held, None)
        apart.append(abs(mine.variance - its.variance))
        off.append(abs(mine.l0 / its.l0 - 1))
    what = f"{'TopK' if kind == 'topk' else 'ReLU'}, {d_in} x {config.d_sae:,}, {config.steps} steps, bfloat16 path"
    what += f" against the plain float32 loop, worst of {len(SEEDS)} seeds"
    took = f" (last explained variance {mine.variance:.4f}; {seconds[1]:.0f} s -> {seconds[0]:.0f} s)"
    return [
        (f"{what}: explained variance", f"{max(apart):.5f} apart{took}", f"at most {BELOW:g}"),
        (f"{what}: L0", f"{max(off):.2%} apart", "at most 2%"),
    ]


if __name__ == "__main__":
    for row in run():
        print(" | ".join(row))
