"""The state of a run, and one step of it."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

import torch

from sae_widget.metrics import share_of_error
from sae_widget.training import data, schedule
from sae_widget.training.base import Flat, TrainingFault, TrainStep, adam_step
from sae_widget.training.gradients import Losses, Workspace
from sae_widget.training.mesh import ALONE, MeshFault, joint_share
from sae_widget.training.quality import FixedSet
from sae_widget.training.start import copy_start, random_start

if TYPE_CHECKING:
    from sae_widget.config import TrainConfig
    from sae_widget.sae import SAE
    from sae_widget.training.mesh import Alone
    from sae_widget.training.original import FastEpochs

DEAD_SHARE = 0.1  # of the planned tokens without firing make a feature dead
DEAD_TOKENS = 10_000_000  # and so do this many (Gao et al. 2024)
MOST_REVIVED = 1024  # dead features in one step: they cost memory and time


class Engine:
    """Parameters, Adam, batches and counters; ``one_step`` advances all of them or, at a fault, none.

    Args:
        values: ``[n, d_in]`` checked activations.
        position: ``[n]`` place of each row in its window.
        rows: ``[n_kept]`` which of them are trained on.
        config: the settings.
        start: whose weights and scale to take instead of random ones.
        mesh: the processes that train together.
    """

    def __init__(
        self,
        values: torch.Tensor,
        position: torch.Tensor,
        rows: torch.Tensor,
        config: TrainConfig,
        start: SAE | None,
        mesh: Alone = ALONE,
    ) -> None:
        self.values, self.position, self.rows, self.config, self.mesh = values, position, rows, config, mesh
        d_in, d_sae = values.shape[1], config.d_sae
        self.batches = data.Batches(len(rows), config.batch_size, config.seed)
        self.step, self.tokens, self.tokens_per_second, self.with_first = 0, 0, 0.0, math.nan
        if start is not None:
            self.scale = start.scale
        else:
            self.scale = data.fixed_scale(values, rows) if config.normalize else 1.0
        center_input = config.center if start is None else start.apply_b_dec_to_input
        self.work = Workspace(d_in, d_sae, mesh.count(self.batches.batch_size), config, center_input)
        self.moments = Flat(d_in, d_sae), Flat(d_in, d_sae)
        self.since = torch.zeros(d_sae, dtype=torch.int64)  # tokens since each feature fired
        self._count = torch.zeros((), dtype=torch.float32)  # Adam's
        self._everything: torch.Tensor | None = None  # [n_kept, d_in] scaled, when batches are full
        self.fast: FastEpochs | None = None
        self._fixed_set = FixedSet(position, config.seed, self.read)
        if start is not None:
            copy_start(self.work, start)
            return
        random_start(self.work)
        if config.center:
            some = data.sample_rows(rows, data.MEDIAN_ROWS, config.seed)
            self.work.params.b_dec.copy_(data.geometric_median(self.read(some)))

    @property
    def dead_after(self) -> int:
        """A feature that did not fire over this many tokens is dead."""
        batch_size = self.batches.batch_size
        planned = int(DEAD_SHARE * self.config.steps * batch_size)
        return max(batch_size, min(planned, len(self.rows), DEAD_TOKENS))

    def reconfigure(self, config: TrainConfig) -> None:
        """Use other settings from the next step on."""
        if config.batch_size != self.config.batch_size:
            self.batches.resize(config.batch_size)
            self.work.resize(self.mesh.count(self.batches.batch_size))
        self.config = self.work.config = config

    def read(self, rows: torch.Tensor) -> torch.Tensor:
        """Scaled activations of these rows. ``[len(rows), d_in]``."""
        return self.values.index_select(0, rows).mul_(self.scale)

    def everything(self) -> torch.Tensor:
        """Scaled activations of all kept rows. ``[n_kept, d_in]``."""
        if self._everything is None:
            self._everything = self.read(self.rows)
        return self._everything

    def one_step(self) -> TrainStep:
        """Advance by one step.

        Raises:
            TrainingFault: its loss or gradient is not finite; nothing of it was applied.
            MeshFault: another process is gone; nothing of it was applied.
        """
        try:
            return self._one_step()
        except MeshFault:
            self.batches.undo()
            raise

    def _one_step(self) -> TrainStep:
        began, work, config, step = time.perf_counter(), self.work, self.config, self.step + 1
        rate = schedule.learning_rate(config, step)
        chosen = self.batches.next()
        n, mine = len(chosen), self.mesh.part(chosen)  # the whole batch; the rows of this process
        whole = self.batches.full and self.mesh.size == 1
        x = self.everything() if whole else self.read(self.rows[mine])  # [batch, d_in]
        work.forward(x)
        share, with_first = self._shares(x, mine, n)
        losses = self._joint(work.backward(x, schedule.l1_weight(config, step), self._dead_features()), len(x), n)
        if config.unit_norm_decoder:
            work.keep_norms()
        self._check_and_clip(step, rate, losses)
        adam_step(work.params, work.grads, self.moments, self._count.fill_(step), rate)
        if config.unit_norm_decoder:
            work.unit_norm()
        self.since.add_(n).mul_(losses.fired == 0)
        self.step, self.tokens = step, self.tokens + n
        if with_first is not None:
            self.with_first = with_first
        elif step % self._fixed_set.interval(n) == 0 or step in (1, config.steps):
            self.with_first = self._fixed_set.measure(work)
        self.clock(n, time.perf_counter() - began)
        return TrainStep(
            step=step,
            loss=losses.total,
            reconstruction=losses.reconstruction,
            sparsity=losses.sparsity,
            l0=float(losses.fired.sum()) / n,
            explained_variance=share,
            explained_variance_with_first=self.with_first,
            dead=int((self.since >= self.dead_after).sum()),
            learning_rate=rate,
            tokens_per_second=self.tokens_per_second,
            tokens=self.tokens,
        )

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
            "order": self.batches.order,
            "generator": self.batches.generator.get_state(),
            "scale": torch.tensor(self.scale, dtype=torch.float32),
            "with_first": torch.tensor(self.with_first, dtype=torch.float32),
            "counters": torch.tensor([self.step, self.tokens, self.batches.cursor]),
        }
        return {name: tensor.clone() for name, tensor in tensors.items()}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Take over a ``state_dict`` whose shapes have been checked."""
        self.work.params.vector.copy_(state["params"])
        self.moments[0].vector.copy_(state["exp_avg"])
        self.moments[1].vector.copy_(state["exp_avg_sq"])
        self.since.copy_(state["since_fired"])
        self.batches.order = state["order"].clone()
        self.batches.generator.set_state(state["generator"])
        self.scale, self.with_first = float(state["scale"]), float(state["with_first"])
        self.step, self.tokens, self.batches.cursor = (int(n) for n in state["counters"])
        self._everything = None

    def _shares(self, x: torch.Tensor, chosen: torch.Tensor, n: int) -> tuple[float, float | None]:
        """Explained variance of the batch without position 0; and with it, when the batch is all there is."""
        error, everything = self.work.error[: len(x)], n == len(self.position)
        if self.config.skip_first:
            share = self._share(x, error)
            return share, share if everything else None
        rest = self.position[self.rows[chosen]] != 0
        return self._share(x[rest], error[rest]), self._share(x, error) if everything else None

    def _share(self, x: torch.Tensor, error: torch.Tensor) -> float:
        return share_of_error(x, error) if self.mesh.size == 1 else joint_share(self.mesh, x, error)

    def _joint(self, losses: Losses, n_mine: int, n: int) -> Losses:
        """The losses of the whole batch from those of this process's rows; the gradients become the joint ones too.

        Every part is a mean over its own rows, of which there may be one more or less than in another.
        """
        mesh = self.mesh
        if mesh.size == 1:
            return losses
        weight = mesh.size * n_mine / n
        mesh.mean_(self.work.grads.vector.mul_(weight))
        parts = torch.tensor([losses.reconstruction, losses.sparsity], dtype=torch.float64)
        reconstruction, sparsity = mesh.mean_(parts.mul_(weight)).tolist()
        return Losses(reconstruction, sparsity, mesh.sum_(losses.fired))

    def _dead_features(self) -> torch.Tensor | None:
        if not self.work.kind.revives_dead:
            return None
        dead = (self.since >= self.dead_after).nonzero()[:, 0]
        if len(dead) > MOST_REVIVED:  # those that have been dead longest
            dead = dead[self.since[dead].topk(MOST_REVIVED).indices]
        return dead

    def _check_and_clip(self, step: int, rate: float, losses: Losses) -> None:
        """Refuse a step that is not finite, before anything of it is applied."""
        grads, largest = self.work.grads.vector, self.config.max_grad_norm
        norm = float(torch.linalg.vector_norm(grads))
        if not math.isfinite(losses.total):
            self.batches.undo()
            raise TrainingFault(step, rate, "loss", losses.total)
        if not math.isfinite(norm):
            self.batches.undo()
            raise TrainingFault(step, rate, "gradient", norm)
        if 0 < largest < norm:
            grads.mul_(largest / norm)
