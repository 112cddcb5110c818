"""A few full-batch epochs done at once, handed out one record at a time."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

import torch

from sae_widget.training import original, schedule
from sae_widget.training.base import TrainingFault, TrainStep

if TYPE_CHECKING:
    from sae_widget.training.engine import Engine
    from sae_widget.training.original import FastEpochs


class Ahead:
    """The next epochs of an engine: its weights are already behind the last, its counters before the first.

    ``step`` and ``tokens`` are those of the last record that was handed out; ``settle`` brings the engine there.

    Args:
        engine: what is trained.

    Raises:
        TrainingFault: the very first of the epochs is not finite; nothing of it was applied.
    """

    cut = False  # whether what comes together is fewer than asked for

    def __init__(self, engine: Engine) -> None:
        began = time.perf_counter()
        self.engine, self.step, self.tokens = engine, engine.step, engine.tokens
        fast = self.fast = _fast_epochs(engine)
        count = min(fast.most, engine.config.steps - engine.step)
        steps = range(engine.step + 1, engine.step + 1 + count)
        self.rates = [schedule.learning_rate(engine.config, step) for step in steps]
        self.l1 = [schedule.penalty(engine.config, step) for step in steps]
        self.fault: TrainingFault | None = None
        self.epochs = fast.run(engine.step + 1, self.rates, self.l1)
        if not all(map(math.isfinite, self.epochs.reconstruction)) or not fast.finite():
            self._keep_good_epochs()
        n = len(fast.x)
        self.since = original.tokens_since_fired(self.epochs.fired, engine.since.numpy(), n)
        engine.clock(n * max(1, len(self.epochs)), time.perf_counter() - began)
        self.records = self._records(n)

    @staticmethod
    def fits(engine: Engine) -> bool:
        """Whether this engine's next epochs can be done in this way."""
        feed = engine.feed
        whole = feed.full and feed.n_kept == feed.n_tokens and engine.mesh.size == 1 and engine.device.type == "cpu"
        return whole and original.fits(engine.config, feed.n_kept, feed.d_in)

    def settle(self) -> None:
        """Bring the engine's weights and counters to the last record that was handed out."""
        engine, done = self.engine, self.step - self.engine.step
        if done < len(self.epochs):
            self.fast.rewind(done, engine.step + 1, self.rates, self.l1)
        if done:
            engine.since.copy_(torch.from_numpy(self.since[done - 1]))
            engine.with_first = self.epochs.explained_variance_with_first[done - 1]
        engine.step, engine.tokens = self.step, self.tokens

    def _keep_good_epochs(self) -> None:
        """Do the epochs again one by one up to the one that is not finite; that one becomes the fault."""
        first, fast = self.engine.step + 1, self.fast
        fast.rewind(0, first, self.rates, self.l1)
        at_start, good = fast.before, 0
        for rate, l1 in zip(self.rates, self.l1, strict=True):
            epoch = fast.run(first + good, [rate], [l1])
            loss = epoch.reconstruction[0] + epoch.sparsity[0]
            norm = float(torch.linalg.vector_norm(fast.work.grads.vector))
            if not math.isfinite(loss) or not math.isfinite(norm):
                what = ("gradient", norm) if math.isfinite(loss) else ("loss", loss)
                self.fault = TrainingFault(first + good, rate, *what)
                break
            good += 1
        fast.restore(at_start)
        self.rates, self.l1 = self.rates[:good], self.l1[:good]
        if not good and self.fault is not None:
            raise self.fault
        self.epochs = fast.run(first, self.rates, self.l1)

    def _records(self, n: int) -> list[TrainStep]:
        engine, epochs = self.engine, self.epochs
        dead = (self.since >= engine.dead_after).sum(axis=1).tolist()
        return [
            TrainStep(
                step=engine.step + 1 + i,
                loss=epochs.reconstruction[i] + epochs.sparsity[i],
                reconstruction=epochs.reconstruction[i],
                sparsity=epochs.sparsity[i],
                l0=epochs.l0[i],
                explained_variance=epochs.explained_variance[i],
                explained_variance_with_first=epochs.explained_variance_with_first[i],
                dead=dead[i],
                learning_rate=self.rates[i],
                tokens_per_second=engine.tokens_per_second,
                tokens=engine.tokens + (1 + i) * n,
            )
            for i in range(len(epochs))
        ]


def _fast_epochs(engine: Engine) -> FastEpochs:
    """The engine's buffers for this, made at the first need."""
    x, position = engine.everything()
    if engine.fast is None or engine.fast.x is not x:
        engine.fast = original.FastEpochs(x, position == 0, engine.work, engine.moments)
    return engine.fast
