"""A few small steps done at once, handed out one record at a time.

What a step costs besides its products is, where these are small, mostly Python's: the guards around it, the counting of
dead features, the record. Here that is done for some steps together. The arithmetic is that of ``Engine.advance``, so
that it makes no difference to the weights where one such group ends and the next begins.
"""

from __future__ import annotations

import math
import sys
import time
from typing import TYPE_CHECKING, cast

import numpy as np
import torch

from sae_widget.metrics import variance_share
from sae_widget.training import schedule
from sae_widget.training.base import Applied, TrainingFault
from sae_widget.training.engine import MOST_REVIVED
from sae_widget.training.original import tokens_since_fired
from sae_widget.training.small import SmallWorkspace

if TYPE_CHECKING:
    from sae_widget.training.base import TrainStep
    from sae_widget.training.engine import Engine

MOST_STEPS = 32
NUMBERS = 2**18  # of their batches together, so that they stay in the cache
SMALL = 2**21  # multiplications of a product: with more, what is saved is less than a twentieth


class Several:
    """The next steps of an engine: its weights are already behind the last, its counters before the first.

    ``step`` and ``tokens`` are those of the last record that was handed out; ``settle`` brings the engine there.

    A group is shorter than asked for (``cut``) where a dead feature fires: it is no longer revived in the step behind.

    Args:
        engine: what is trained.
        count: how many steps, at most ``steps_at_once``.

    Raises:
        TrainingFault: the very first of the steps is not finite; nothing of it was applied.
    """

    def __init__(self, engine: Engine, count: int) -> None:
        with np.errstate(all="ignore"):  # what is not finite is looked for, and told in our words
            self._begin(engine, count)

    def _begin(self, engine: Engine, count: int) -> None:
        began = time.perf_counter()
        self.engine, self.step, self.tokens = engine, engine.step, engine.tokens
        self.before, self.measured = [vector.clone() for vector in _vectors(engine)], engine.measured
        self.revived = engine.dead_features()
        self.batches = engine.next_batch(count).split(engine.feed.batch_size)
        self.done: list[Applied] = []
        self.fault: TrainingFault | None = None
        try:
            self._advance_to_fault()
            self.records = self._records(began)
        except BaseException:
            self._restore()
            engine.feed.undo(len(self.batches))
            raise
        self.cut = len(self.done) < len(self.batches)
        engine.feed.undo(len(self.batches) - len(self.done))

    def settle(self) -> None:
        """Bring the engine's weights and counters to the last record that was handed out.

        After a fault in here it can be called again.
        """
        engine, count = self.engine, self.step - self.engine.step
        if count < len(self.records):
            self._restore()
            with np.errstate(all="ignore"):
                self._advance(count)
            engine.feed.undo(len(self.records) - count)
        if count:
            engine.since.copy_(torch.from_numpy(self.since[count - 1]))
            engine.n_dead = self.dead[count - 1]
        engine.step, engine.tokens = self.step, self.tokens

    def _advance_to_fault(self) -> None:
        """Do all steps, or those in front of one that is not finite: that one becomes the fault."""
        try:
            self._advance(len(self.batches))
        except TrainingFault as fault:
            if not self.done:
                raise
            self.fault = fault

    def _advance(self, count: int) -> None:
        """Do the first ``count`` steps, from ``before``: ``Engine.advance`` without what none of them needs."""
        engine, config, n = self.engine, self.engine.config, self.engine.feed.batch_size
        work = cast("SmallWorkspace", engine.work)
        at, norms, adam, keeps = work.at(n), work.norms, engine.adam, config.unit_norm_decoder
        most, revived = config.max_grad_norm or sys.float_info.max, self.revived
        places = None if revived is None else revived.numpy()
        self.done = []
        for step, x in enumerate(self.batches[:count], engine.step + 1):
            rate = schedule.learning_rate(config, step)
            u, squared = at.forward(x)
            share = variance_share(squared, *at.spread(x))
            losses = at.backward(u, squared, schedule.penalty(config, step), work.revive(revived, x, at.weights.error))
            if keeps:
                norms.keep()
            norm = norms.of_gradient()
            ordinary = norm <= most and math.isfinite(losses.total)
            adam(step, rate, None if ordinary else engine.clip(step, rate, losses, norm))
            if keeps:
                norms.make_one()
            self.done.append(Applied(n, rate, losses, share, None))
            if places is not None and losses.fired.numpy()[places].any():
                break

    def _restore(self) -> None:
        """Take all steps back."""
        engine = self.engine
        for vector, before in zip(_vectors(engine), self.before, strict=True):
            vector.copy_(before)
        engine.with_first, engine.validation = self.measured

    def _records(self, began: float) -> list[TrainStep]:
        engine, first, n = self.engine, self.engine.step + 1, self.done[0].n
        fired = np.stack([done.losses.fired.numpy() for done in self.done])  # [n_steps, d_sae]
        self.since = tokens_since_fired(fired > 0, engine.since.numpy(), n)
        self.dead: list[int] = np.count_nonzero(self.since >= engine.dead_after, axis=1).tolist()
        engine.measure_now_and_then(engine.step + len(self.done), n, None)
        engine.clock(n * len(self.done), time.perf_counter() - began)
        shown = [self.measured] * (len(self.done) - 1) + [engine.measured]
        on = fired.sum(1).tolist()
        return [engine.record(first + i, done, on[i] / n, self.dead[i], shown[i]) for i, done in enumerate(self.done)]


def _vectors(engine: Engine) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return engine.work.params.vector, engine.moments[0].vector, engine.moments[1].vector


def steps_at_once(engine: Engine, most: int) -> int:
    """How many steps, ``most`` or fewer, can be done before something is looked at that decides on the next."""
    config, feed, work = engine.config, engine.feed, engine.work
    small = isinstance(work, SmallWorkspace) and work.is_small and feed.batch_size * work.d_in * work.d_sae <= SMALL
    alone = engine.mesh.size == 1 and config.skip_first and not config.resample_every
    # A product's last bit can hang on where its rows begin: in a group, each batch has to begin on a cache line.
    aligned = work.center_input or feed.batch_size * work.d_in % 16 == 0
    if not small or not alone or not aligned or feed.full or engine.pressure.searches:
        return 0
    most = min(most, NUMBERS // (feed.batch_size * work.d_in), feed.left())
    most = min(most, engine.until_measured(engine.step + 1, feed.batch_size))
    return min(most, _until_one_dies(engine)) if work.kind.revives_dead else most


def _until_one_dies(engine: Engine) -> int:
    """Steps in which no other features can be dead than now, as far as is known beforehand."""
    since, after = engine.since.numpy(), engine.dead_after
    living = since[since < after]
    if len(since) - len(living) > MOST_REVIVED:  # each step chooses among them
        return 0
    return (after - 1 - int(living.max())) // engine.feed.batch_size + 1 if len(living) else MOST_STEPS
