"""Our trainer and those of SAELens and dictionary_learning behind one face: ``step`` and ``trained``.

The peers are imported when one of them is made: they live in an environment of their own (``make bench``).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from sae_widget.config import TrainConfig
from sae_widget.training import Trainer

PLANNED = 100_000  # steps that a run is said to have where only its speed is measured
WARM_UP, DECAY = 0.05, 0.2  # shares of a run: what all three advise for real runs


@dataclass(frozen=True)
class Task:
    """What all contestants are asked to train."""

    kind: str  # "standard" (ReLU + L1) or "topk"
    d_in: int
    d_sae: int
    batch_size: int
    sparsity: float  # k, or the coefficient of the L1 penalty in the contestant's own units
    steps: int = PLANNED
    rate: float | None = None  # None: what the contestant takes by itself
    scheduled: bool = False  # warm-ups and decay in shares of ``steps`` instead of the contestant's defaults
    seed: int = 0
    device: str = "cpu"


class Trained(NamedTuple):
    """A dictionary as it is after some steps, in the units of the rows that it was given."""

    encode: Callable[[torch.Tensor], torch.Tensor]  # [n, d_in] -> [n, d_sae]
    decode: Callable[[torch.Tensor], torch.Tensor]  # [n, d_sae] -> [n, d_in]
    directions: torch.Tensor  # [d_sae, d_in]


@dataclass(eq=False)
class Contestant:
    """A trainer: ``step`` makes one whole training step on its next batch."""

    name: str
    step: Callable[[], Any]
    trained: Callable[[], Trained]
    threads: int  # of torch; ours may choose its own number, and nobody else's changes with it


def slices(rows: torch.Tensor, batch_size: int) -> Iterator[torch.Tensor]:
    """Batches for ever as views into ``rows``: they cost their reader nothing."""
    while True:
        for start in range(0, len(rows) - batch_size + 1, batch_size):
            yield rows[start : start + batch_size]


def shuffled(rows: torch.Tensor, batch_size: int, seed: int) -> Iterator[torch.Tensor]:
    """Batches for ever, every epoch in another order."""
    g = torch.Generator().manual_seed(seed)
    while True:
        for chosen in torch.randperm(len(rows), generator=g).split(batch_size):
            if len(chosen) == batch_size:
                yield rows[chosen.to(rows.device)]


def ours(task: Task, values: torch.Tensor, position: torch.Tensor, **changes: Any) -> Contestant:
    """``Trainer(...).run()``: clipping, metrics, dead counts and records included, batches gathered by itself."""
    own = {"k": int(task.sparsity)} if task.kind == "topk" else {"l1_coefficient": float(task.sparsity)}
    if task.rate is not None:
        own["learning_rate"] = task.rate
    config = TrainConfig(
        architecture=task.kind, d_sae=task.d_sae, batch_size=task.batch_size, steps=task.steps, seed=task.seed, **own
    ).changed(**changes)
    on_device = {} if task.device == "cpu" else {"device": task.device}
    trainer = Trainer(values, position, config, **on_device)
    records = trainer.run()

    def trained() -> Trained:
        sae = trainer.sae()
        return Trained(sae.encode, sae.decode, sae.W_dec)

    return Contestant("ours", lambda: next(records), trained, torch.get_num_threads())


def saelens(task: Task, batches: Iterator[torch.Tensor]) -> Contestant:
    """SAELens' ``SAETrainer``: the body of the loop in its ``fit``, without the progress bar.

    By default (as its language-model runner fills the settings): float32, Adam 3e-4 constant without warm-up,
    decoder rows start at norm 0.1 and stay free, b_dec at 0 and taken off the input, gradients clipped at 1. ReLU: L1
    weighted by the decoder's norms. TopK: activations rescaled by them, auxiliary loss with coefficient 1 for features
    that were silent for 1,000 steps, which none is here. Nothing goes to a logger, so no metric is computed.
    """
    from sae_lens import StandardTrainingSAE, StandardTrainingSAEConfig, TopKTrainingSAE, TopKTrainingSAEConfig
    from sae_lens.config import SAETrainerConfig
    from sae_lens.training.sae_trainer import SAETrainer

    sizes = {"d_in": task.d_in, "d_sae": task.d_sae, "device": task.device}
    rate, warm = task.rate or 3e-4, int(WARM_UP * task.steps) if task.scheduled else 0
    torch.manual_seed(task.seed)
    if task.kind == "topk":
        sae = TopKTrainingSAE(TopKTrainingSAEConfig(k=int(task.sparsity), **sizes))
    else:
        l1 = {"l1_coefficient": task.sparsity, "l1_warm_up_steps": warm}
        sae = StandardTrainingSAE(StandardTrainingSAEConfig(**l1, **sizes))
    config = SAETrainerConfig(
        total_training_samples=task.steps * task.batch_size,
        train_batch_size_samples=task.batch_size,
        lr=rate,
        lr_end=rate / 10,
        lr_warm_up_steps=warm,
        lr_decay_steps=int(DECAY * task.steps) if task.scheduled else 0,
        device=task.device,
    )
    trainer = SAETrainer(cfg=config, sae=sae, data_provider=batches)

    def step() -> None:
        trainer.maybe_reset_sparsity()
        trainer.step(next(batches))
        trainer.n_training_steps += 1

    return Contestant(
        "SAELens", step, lambda: Trained(sae.encode, sae.decode, sae.W_dec.detach()), torch.get_num_threads()
    )


def dictionary_learning(task: Task, batches: Iterator[torch.Tensor]) -> Contestant:
    """dictionary_learning's ``update``, as the loop of its ``trainSAE`` calls it (on a CPU it never autocasts).

    By default: float32, Adam, learning rate warmed up over 1,000 steps. ReLU (``StandardTrainer``): 1e-3, L1 0.1 with
    a warm-up of 2,000 steps, unit-norm decoder, the parallel part of its gradient removed, no resampling. TopK: 2e-4 /
    sqrt(width / 16384), the same constraints, clipped at 1, b_dec at the geometric median of the first batch, auxiliary
    loss 1/32 for features that were silent for 10 M tokens, which none is here.
    """
    from dictionary_learning.trainers import StandardTrainer, TopKTrainer

    sizes = {"activation_dim": task.d_in, "dict_size": task.d_sae, "layer": 0, "lm_name": "none"}
    common: dict[str, Any] = {"steps": task.steps, "seed": task.seed, "device": task.device, **sizes}
    if task.scheduled:
        common |= {"warmup_steps": int(WARM_UP * task.steps), "decay_start": int((1 - DECAY) * task.steps)}
    if task.kind == "topk":
        trainer = TopKTrainer(k=int(task.sparsity), lr=task.rate, **common)
    else:
        if task.scheduled:
            common["sparsity_warmup_steps"] = int(WARM_UP * task.steps)
        trainer = StandardTrainer(lr=task.rate or 1e-3, l1_penalty=task.sparsity, **common)
    done = 0

    def step() -> None:
        nonlocal done
        trainer.update(done, next(batches))
        done += 1

    return Contestant(
        "dictionary_learning",
        step,
        lambda: Trained(trainer.ae.encode, trainer.ae.decode, trainer.ae.decoder.weight.detach().T),
        torch.get_num_threads(),
    )


PEERS = {"SAELens": saelens, "dictionary_learning": dictionary_learning}


def all_of(task: Task, values: torch.Tensor, position: torch.Tensor) -> list[Contestant]:
    """Ours and both peers on the same rows, each with its own defaults; the peers' batches cost them nothing."""
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the peers' own deprecations
        rows = values.to(task.device)
        return [ours(task, values, position)] + [make(task, slices(rows, task.batch_size)) for make in PEERS.values()]
