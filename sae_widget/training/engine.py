"""The state of a run, and one step of it."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

import numpy as np
import torch

from sae_widget.metrics import share_of_error, variance_share
from sae_widget.training import data, quality, schedule
from sae_widget.training.base import Adam, Applied, Flat, Measured, TrainingFault, TrainStep, first
from sae_widget.training.gradients import Losses
from sae_widget.training.mesh import ALONE, joint_share
from sae_widget.training.pressure import Pressure
from sae_widget.training.quality import FixedSet
from sae_widget.training.resample import resample
from sae_widget.training.start import START_ROWS, copy_start, fire_rarely, random_start, starts_rarely
from sae_widget.training.workspaces import workspace

if TYPE_CHECKING:
    from sae_widget.config import TrainConfig
    from sae_widget.sae import SAE
    from sae_widget.training.feed import Feed
    from sae_widget.training.mesh import Alone
    from sae_widget.training.original import FastEpochs

DEAD_SHARE = 0.1  # of the planned tokens without firing make a feature dead
DEAD_TOKENS = 10_000_000  # and so do this many (Gao et al. 2024)
MOST_REVIVED = 1024  # dead features in one step: they cost memory and time


class Engine:
    """Parameters, Adam, batches and counters; ``one_step`` advances all of them or, at a fault, none.

    Args:
        feed: where its batches come from.
        config: the settings.
        start: whose weights and scale to take instead of random ones.
        mesh: the processes that train this SAE together, each with its share of every batch.
        device: where the step is computed; the feed stays where it is.
    """

    def __init__(
        self, feed: Feed, config: TrainConfig, start: SAE | None, mesh: Alone = ALONE, device: str = "cpu"
    ) -> None:
        self.feed, self.config, self.mesh, self.device = feed, config, mesh, torch.device(device)
        d_in, d_sae = feed.d_in, config.d_sae
        self.step, self.tokens, self.tokens_per_second = 0, 0, 0.0
        self.with_first, self.validation = math.nan, math.nan  # as they were last measured
        if start is not None:
            self.scale = start.scale
        else:
            self.scale = feed.scale() if config.normalize else 1.0
        center_input = config.center if start is None else start.apply_b_dec_to_input
        self.work = workspace(d_in, mesh.count(feed.batch_size), config, center_input, device)
        self.work.mesh = mesh
        self.work.fresh()
        self.pressure = Pressure(self.work)
        vectors = self.work.kind.vectors
        self.moments = Flat(d_in, d_sae, vectors, device), Flat(d_in, d_sae, vectors, device)
        self.adam = Adam(self.work.params, self.work.grads, self.moments, self.work.beta1)
        self.since = torch.zeros(d_sae, dtype=torch.int64, device=device)  # tokens since each feature fired
        self._since = self.since.numpy() if self.since.device.type == "cpu" else None  # the same, at less cost
        self.n_dead: int | None = None  # features, where the last step knows it
        self.threads = 0  # of torch that a step takes; 0: not yet measured
        self._everything: tuple[torch.Tensor, torch.Tensor] | None = None  # scaled, and places: full batches
        self.fast: FastEpochs | None = None
        self._make_fixed_sets()
        if start is not None:
            copy_start(self.work, start)
            return
        random_start(self.work)
        if config.center:
            some = feed.sample(data.MEDIAN_ROWS, config.seed).mul_(self.scale)
            self.work.params.b_dec.copy_(data.geometric_median(some))
        if starts_rarely(config):
            fire_rarely(self.work, feed.sample(START_ROWS, config.seed).to(self.device).mul_(self.scale))

    @property
    def dead_after(self) -> int:
        """A feature that did not fire over this many tokens is dead."""
        batch_size = self.feed.batch_size
        planned = int(DEAD_SHARE * self.config.steps * batch_size)
        return max(batch_size, min(planned, self.feed.n_kept, DEAD_TOKENS))

    def reconfigure(self, config: TrainConfig) -> None:
        """Use other settings from the next step on."""
        before, after = self.config.batch_size, config.batch_size
        self.work.configure(config, self.mesh.count(self.feed.effective(after)))
        if after != before:
            self.threads = 0
            self.feed.resize(after)
        self.config, self.n_dead = config, None

    def agree(self) -> None:
        """Take the start, and what was measured to be faster, from the first of several processes."""
        mesh, work = self.mesh, self.work
        for start in (work.params.vector, *work.memory.values()):
            mesh.same_(start)
        bfloat16 = bool(mesh.same_(torch.tensor(float(work.bfloat16))))
        if bfloat16 != work.bfloat16:
            work.bfloat16 = bfloat16
            work.resize(mesh.count(self.feed.batch_size))

    def next_batch(self, count: int = 1) -> torch.Tensor:
        """The next batch, scaled, or so many of them, one behind the other. ``[batch, d_in]``."""
        if self.feed.full:
            return self.everything()[0]
        x = self.feed.next(count)
        return (x.to(self.device) if self._since is None else x).mul_(self.scale)

    def everything(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Scaled activations of all kept rows, and their places. ``[n_kept, d_in]``, ``[n_kept]``."""
        if self._everything is None:
            x, position = self.feed.everything()
            self._everything = x.to(self.device).mul_(self.scale), position.to(self.device)
        return self._everything

    def _make_fixed_sets(self) -> None:
        self._fixed_set = FixedSet(self.feed.evaluation(self.config.seed).to(self.device), self.scale)
        self._held_out = FixedSet(self.feed.validation(quality.ROWS).to(self.device), self.scale)

    def one_step(self) -> TrainStep:
        """Advance by one step.

        Raises:
            TrainingFault: its loss or gradient is not finite; nothing of it was applied.
            MeshFault: another process is gone; nothing of it was applied, or all.
        """
        with np.errstate(all="ignore"):  # what is not finite is looked for, and told in our words
            return self._one_step()

    def _one_step(self) -> TrainStep:
        began, step, x = time.perf_counter(), self.step + 1, self.next_batch()
        try:
            done = self.advance(step, x)
        except BaseException:
            self.feed.undo()
            raise
        l0 = self._note(done.losses.fired, done.n) / done.n
        self.pressure.after(step, l0)
        self.step, self.tokens = step, self.tokens + done.n
        self._resample()
        self.measure_now_and_then(step, done.n, done.with_first)
        self.n_dead = self._count_dead()
        self.clock(done.n, time.perf_counter() - began)
        return self.record(step, done, l0, self.n_dead, self.measured)

    def record(self, step: int, done: Applied, l0: float, dead: int, measured: Measured) -> TrainStep:
        """What a step showed.

        Args:
            step: its number.
            done: what ``advance`` gave.
            l0: mean number of features that fired on a token.
            dead: features that are dead after it.
            measured: what the fixed sets had shown by then.
        """
        losses = done.losses
        return TrainStep(
            step=step,
            loss=losses.total,
            reconstruction=losses.reconstruction,
            sparsity=losses.sparsity,
            l0=l0,
            explained_variance=done.share,
            explained_variance_with_first=measured.with_first,
            dead=dead,
            learning_rate=done.rate,
            tokens_per_second=self.tokens_per_second,
            tokens=self.tokens + (step - self.step) * done.n,
            validation_explained_variance=measured.validation,
        )

    def advance(self, step: int, x: torch.Tensor) -> Applied:
        """Apply the gradients of a ``next_batch`` as step number ``step``; no counter goes on.

        Raises:
            TrainingFault: the loss or a gradient is not finite; nothing was applied.
        """
        work, config, rate = self.work, self.config, schedule.learning_rate(self.config, step)
        n, x = x.shape[0], self.mesh.part(x)  # of the batch; this process's rows
        work.forward(x)
        share, with_first = self._shares(x, n)
        losses = work.backward(x, self.pressure.on(schedule.penalty(config, step)), self.dead_features())
        losses = self._joint(losses, x.shape[0], n)
        if config.unit_norm_decoder:
            work.keep_norms()
        self.adam(step, rate, self.clip(step, rate, losses, work.gradient_norm()))
        if config.unit_norm_decoder:
            work.unit_norm()
        work.applied(losses.n_pairs / (n * config.d_sae))
        return Applied(n, rate, losses, share, with_first)

    @property
    def measured(self) -> Measured:
        """What the fixed sets showed when they were last looked at."""
        return Measured(self.with_first, self.validation)

    def until_measured(self, step: int, batch_size: int) -> int:
        """How many steps from number ``step`` on there are up to one that measures, itself included."""
        if step == 1:
            return 1
        sets = [self._fixed_set] + [self._held_out] * bool(len(self._held_out.x))
        return min(self.config.steps - step + 1, *(one.until(step, batch_size) for one in sets))

    def measure_now_and_then(self, step: int, batch_size: int, with_first: float | None) -> None:
        """The fixed sets, unless the batch was everything; the first and the last step always measure."""
        ends = step in (1, self.config.steps)
        if with_first is not None:
            self.with_first = with_first
        elif ends or self._fixed_set.until(step, batch_size) == 1:
            self.with_first = self._fixed_set.measure(self.work)
        if len(self._held_out.x) and (ends or self._held_out.until(step, batch_size) == 1):
            self.validation = self._held_out.measure(self.work)

    def clock(self, tokens: int, seconds: float) -> None:
        """Note how long so many tokens took; pauses do not count."""
        now, known = tokens / max(seconds, 1e-9), self.tokens_per_second > 0
        self.tokens_per_second += (now - self.tokens_per_second) * (0.1 if known else 1.0)

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Everything that the next step depends on, as own copies."""
        tensors = {
            "params": self.work.params.vector,
            "exp_avg": self.moments[0].vector,
            "exp_avg_sq": self.moments[1].vector,
            "since_fired": self.since,
            "scale": torch.tensor(self.scale, dtype=torch.float32),
            "with_first": torch.tensor(self.with_first, dtype=torch.float32),
            "counters": torch.tensor([self.step, self.tokens]),
            "bfloat16": torch.tensor(self.work.bfloat16),
            "threads": torch.tensor(self.threads),
        }
        tensors |= {f"memory.{name}": tensor for name, tensor in self.work.memory.items()}
        if len(self._held_out.x):
            tensors["validation"] = torch.tensor(self.validation, dtype=torch.float32)
        return {name: tensor.to("cpu", copy=True) for name, tensor in tensors.items()} | self.feed.state()

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Take over a ``state_dict`` whose shapes have been checked."""
        self.feed.load_state(state)
        self.work.params.vector.copy_(state["params"])
        self.moments[0].vector.copy_(state["exp_avg"])
        self.moments[1].vector.copy_(state["exp_avg_sq"])
        self.since.copy_(state["since_fired"])
        self.scale, self.with_first = float(state["scale"]), float(state["with_first"])
        self.validation = float(state.get("validation", math.nan))
        self.step, self.tokens = (int(n) for n in state["counters"])
        self._everything, self.n_dead, self.threads = None, None, int(state["threads"])
        for name, tensor in self.work.memory.items():
            tensor.copy_(state[f"memory.{name}"])
        if bool(state["bfloat16"]) != self.work.bfloat16:
            self.work.bfloat16 = not self.work.bfloat16
            self.work.resize(self.mesh.count(self.feed.batch_size))
        self._make_fixed_sets()

    def _resample(self) -> None:
        """Now and then, and not while the learning rate falls, give dead features a new start."""
        config, every = self.config, self.config.resample_every
        if not every or self.step % every or self.step > (1 - schedule.DECAY_SHARE) * config.steps:
            return
        dead = (self.since >= self.dead_after).nonzero()[:, 0]
        resample(self.work, self.moments, dead, config.seed + self.step)
        self.mesh.same_(self.work.params.vector)  # each process drew from its own rows
        self.since[dead] = 0

    def _shares(self, x: torch.Tensor, n: int) -> tuple[float, float | None]:
        """Explained variance of the batch without position 0; and with it, when the batch is all there is."""
        everything = n == self.feed.n_tokens
        if self.config.skip_first:
            share = self._share(x)
            return share, share if everything else None
        position = self.everything()[1] if self.feed.full else self.feed.places().to(self.device)
        rest, error = self.mesh.part(position) != 0, first(self.work.error, x.shape[0])
        if self.mesh.size > 1:
            behind = joint_share(self.mesh, x[rest], error[rest])
        else:
            behind = share_of_error(x[rest], error[rest])
        return behind, self._share(x) if everything else None

    def _share(self, x: torch.Tensor) -> float:
        """Explained variance of the rows of this step."""
        if self.mesh.size > 1:
            return joint_share(self.mesh, x, first(self.work.error, x.shape[0]))
        return variance_share(self.work.squared_error(x.shape[0]), *self.work.spread(x))

    def _joint(self, losses: Losses, n_mine: int, n: int) -> Losses:
        """The losses of the whole batch from those of this process's rows; the gradients become the joint ones too.

        Every part is a mean over its own rows, of which there may be one more or less than in another.
        """
        mesh = self.mesh
        if mesh.size == 1:
            return losses
        weight = mesh.size * n_mine / n
        mesh.mean_(self.work.grads.vector.mul_(weight))
        mine = losses.reconstruction * weight, losses.sparsity * weight, losses.n_pairs * mesh.size
        reconstruction, sparsity, n_pairs = mesh.mean_(torch.tensor(mine, dtype=torch.float64)).tolist()
        return Losses(reconstruction, sparsity, mesh.sum_(losses.fired), n_pairs)

    def _note(self, fired: torch.Tensor, n: int) -> float:
        """Which features fired on a batch of ``n`` tokens; on how many tokens, summed over the features."""
        if self._since is None:
            self.since.add_(n).masked_fill_(fired > 0, 0)
            return float(fired.sum())
        on = fired.numpy()
        self._since += n
        self._since *= on == 0
        return float(on.sum())

    def _count_dead(self) -> int:
        after = self.dead_after
        if self._since is None:
            return int((self.since >= after).sum())
        return int(np.count_nonzero(self._since >= after))

    def dead_features(self) -> torch.Tensor | None:
        """Numbers of those that the next step revives, None if there are none."""
        if not self.work.kind.revives_dead or self.n_dead == 0:
            return None
        dead = (self.since >= self.dead_after).nonzero()[:, 0]
        if len(dead) > MOST_REVIVED:  # those that have been dead longest
            dead = dead[self.since[dead].topk(MOST_REVIVED).indices]
        return dead if len(dead) else None

    def clip(self, step: int, rate: float, losses: Losses, norm: float) -> float | None:
        """By what to divide the gradients, of this ``norm``; None leaves them as they are.

        Raises:
            TrainingFault: a step that is not finite, before anything of it is applied.
        """
        if not math.isfinite(norm):  # the squares may be too large where the norm is not
            norm = float(torch.linalg.vector_norm(self.work.grads.vector))
        if not math.isfinite(losses.total):
            raise TrainingFault(step, rate, "loss", losses.total)
        if not math.isfinite(norm):
            raise TrainingFault(step, rate, "gradient", norm)
        largest = self.config.max_grad_norm
        return norm / largest if 0 < largest < norm else None
