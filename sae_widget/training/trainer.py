"""The trainer: a generator of records that can be paused, changed, stopped and gone on with."""

from __future__ import annotations

import dataclasses
import math
import time
from typing import TYPE_CHECKING, Any

import torch

from sae_widget.memory import check_memory
from sae_widget.sae import REGISTRY
from sae_widget.training import data, schedule
from sae_widget.training.base import Flat, TrainingFault, TrainStep, adam_step, variance_share
from sae_widget.training.gradients import Losses, Workspace

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sae_widget.config import TrainConfig
    from sae_widget.sae import SAE

FIXED_SETTINGS = (
    "architecture",
    "d_sae",
    "seed",
    "skip_first",
    "normalize",
    "center",
    "unit_norm_decoder",
    "tied_init",
    "loss_reduction",
)
# Planted directions are often drawn with the same small seed; a start that is the answer would prove nothing.
TIED_SEED = 0x5AE << 32
DEAD_SHARE = 0.1  # of the planned tokens without firing make a feature dead
DEAD_TOKENS = 10_000_000  # and so do this many (Gao et al. 2024)


class Trainer:
    """Trains one sparse autoencoder on fixed activations.

    Everything random comes from the trainer's own generators and nothing global is changed, so that two
    trainers in one process, in any threads, give what each gives alone.
    """

    def __init__(
        self,
        values: torch.Tensor,
        position: torch.Tensor,
        config: TrainConfig,
        *,
        metadata: dict[str, Any] | None = None,
        start: SAE | None = None,
    ) -> None:
        """Make the weights and the buffers; nothing is trained yet.

        Args:
            values: ``[n, d_in]`` activations; kept, never changed.
            position: ``[n]`` place of each row in its window; 0 is the first token.
            config: the settings.
            metadata: goes into the SAE: which model, layer, hook.
            start: go on from this SAE's weights and scale instead of random ones.

        Raises:
            ValueError: too few activations, not finite, too little memory, ``start`` of another shape.
            TypeError: not tensors.
        """
        self.values, self.position = data.check_activations(values, position)
        self.config, self.metadata = config, dict(metadata or {})
        self.rows = data.kept_rows(self.position, config.skip_first)  # [n_kept]
        self.d_in = int(values.shape[1])
        self._batches = data.Batches(len(self.rows), config.batch_size, config.seed)
        check_memory(self.d_in, config.d_sae, self._batches.batch_size)
        self.step, self.tokens, self.tokens_per_second = 0, 0, 0.0
        if start is None:
            self.scale = data.fixed_scale(self.values, self.rows) if config.normalize else 1.0
        else:
            self._check_start(start)
            self.scale = start.scale
        center = config.center if start is None else start.apply_b_dec_to_input
        self._work = Workspace(self.d_in, config.d_sae, self._batches.batch_size, config, center)
        self._moments = (Flat(self.d_in, config.d_sae), Flat(self.d_in, config.d_sae))
        self._count = torch.zeros(())  # Adam's step count
        self._since = torch.zeros(config.d_sae, dtype=torch.int64)  # tokens since each feature fired
        with torch.no_grad():
            self._fill(start)
            self._prepare_evaluation()

    @property
    def batch_size(self) -> int:
        """Tokens in a step; the whole data when they are fewer than the settings ask for."""
        return self._batches.batch_size

    @property
    def dead_after(self) -> int:
        """A feature is dead when it has not fired over this many tokens.

        One pass over the data, or a tenth of the planned tokens when that is less; at least one batch.
        """
        planned = int(DEAD_SHARE * self.config.steps * self.batch_size)
        return max(self.batch_size, min(planned, len(self.rows), DEAD_TOKENS))

    def run(self) -> Iterator[TrainStep]:
        """Train to ``config.steps``, one record for each step; each step is applied whole before its record.

        Not asking for the next record is a pause. After the end, or after a fault, ``run`` can be called
        again, with more steps or other settings (``reconfigure``).

        Raises:
            TrainingFault: the loss or a gradient was not finite; the weights are those of the step before.
        """
        while self.step < self.config.steps:
            began = time.perf_counter()
            with torch.no_grad():
                record = self._one_step(began)
            yield record

    def sae(self) -> SAE:
        """The SAE as it is now, with its own copies of the weights."""
        p, config = self._work.params, self.config
        extra: dict[str, Any] = {"k": config.k} if config.architecture == "topk" else {}
        recipe = {"steps": self.step, "tokens": self.tokens, "settings": dataclasses.asdict(config)}
        return REGISTRY[config.architecture](
            W_enc=p.W_enc.t().clone(memory_format=torch.contiguous_format),
            b_enc=p.b_enc.clone(),
            W_dec=p.W_dec.clone(),
            b_dec=p.b_dec.clone(),
            scale=self.scale,
            apply_b_dec_to_input=self._work.center_input,
            metadata=self.metadata | {"training": recipe},
            **extra,
        )

    def reconfigure(self, config: TrainConfig) -> None:
        """Use other settings from the next step on.

        Raises:
            ValueError: a setting that is fixed once training has begun; everything stays as it was.
        """
        changed = [name for name in FIXED_SETTINGS if getattr(config, name) != getattr(self.config, name)]
        if changed:
            raise ValueError(
                f"{', '.join(changed)} cannot change while this SAE trains; it trains on as before. Stop first."
            )
        if config.batch_size != self.config.batch_size:
            self._batches.resize(config.batch_size)
            self._work.resize(self.batch_size)
            self._full_x = None
        self.config = self._work.config = config
        self._evaluate_every = self._evaluation_interval()

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Everything that the next step depends on, as own copies: weights, Adam, batches, counters."""
        tensors = {
            "params": self._work.params.vector,
            "exp_avg": self._moments[0].vector,
            "exp_avg_sq": self._moments[1].vector,
            "since_fired": self._since,
            "order": self._batches.order,
            "generator": self._batches.generator.get_state(),
            "scale": torch.tensor(self.scale, dtype=torch.float32),
            "counters": torch.tensor([self.step, self.tokens, self._batches.cursor]),
            "with_first": torch.tensor(self._with_first, dtype=torch.float32),
        }
        return {name: tensor.clone() for name, tensor in tensors.items()}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Go on from a ``state_dict`` of a trainer with the same settings and data, bit for bit.

        Raises:
            ValueError: it is of another SAE or other data; everything stays as it was.
        """
        own = self.state_dict()
        for name, tensor in own.items():
            if name not in state or state[name].shape != tensor.shape or state[name].dtype != tensor.dtype:
                got = f"{list(state[name].shape)} {state[name].dtype}" if name in state else "nothing"
                raise ValueError(
                    f"This state is of another run: {name} is {got}, needs {list(tensor.shape)} {tensor.dtype}. "
                    "The run goes on as it was."
                )
        self._work.params.vector.copy_(state["params"])
        self._moments[0].vector.copy_(state["exp_avg"])
        self._moments[1].vector.copy_(state["exp_avg_sq"])
        self._since.copy_(state["since_fired"])
        self._batches.order = state["order"].clone()
        self._batches.generator.set_state(state["generator"])
        self.scale = float(state["scale"])
        self.step, self.tokens, self._batches.cursor = (int(n) for n in state["counters"])
        self._with_first = float(state["with_first"])
        self._full_x = None

    def _one_step(self, began: float) -> TrainStep:
        work, config, step = self._work, self.config, self.step + 1
        rate = schedule.learning_rate(config, step)
        chosen = self._batches.next()
        x = self._batch(chosen)
        work.forward(x)
        share, with_first = self._shares(x, chosen)
        losses = work.backward(x, schedule.l1_weight(config, step), self._dead_features())
        if config.unit_norm_decoder:
            work.keep_norms()
        self._check_and_clip(step, rate, losses)
        adam_step(work.params, work.grads, self._moments, self._count.fill_(step), rate)
        if config.unit_norm_decoder:
            work.unit_norm()
        self._since.add_(len(x)).mul_(losses.fired == 0)
        self.step, self.tokens = step, self.tokens + len(x)
        if with_first is not None:
            self._with_first = with_first
        elif step % self._evaluate_every == 0 or step in (1, config.steps):
            self._with_first = self._evaluate()
        self._clock(len(x), time.perf_counter() - began)
        return TrainStep(
            step=step,
            loss=losses.total,
            reconstruction=losses.reconstruction,
            sparsity=losses.sparsity,
            l0=float(losses.fired.sum()) / len(x),
            explained_variance=share,
            explained_variance_with_first=self._with_first,
            dead=int((self._since >= self.dead_after).sum()),
            learning_rate=rate,
            tokens_per_second=self.tokens_per_second,
            tokens=self.tokens,
        )

    def _check_and_clip(self, step: int, rate: float, losses: Losses) -> None:
        """Refuse a step that is not finite, before anything of it is applied."""
        grads, largest = self._work.grads.vector, self.config.max_grad_norm
        norm = float(torch.linalg.vector_norm(grads))
        if not math.isfinite(losses.total) or not math.isfinite(norm):
            self._batches.undo()
            kind = "NaN" if math.isnan(losses.total) or math.isnan(norm) else "infinite"
            raise TrainingFault(step, rate, f"{'gradient' if math.isfinite(losses.total) else 'loss'} became {kind}")
        if 0 < largest < norm:
            grads.mul_(largest / norm)

    def _batch(self, chosen: torch.Tensor) -> torch.Tensor:
        """The scaled activations of these kept rows. ``[batch, d_in]``."""
        if not self._batches.full:
            return self._read(self.rows[chosen])
        if self._full_x is None:
            self._full_x = self._read(self.rows)
        return self._full_x

    def _read(self, rows: torch.Tensor) -> torch.Tensor:
        return self.values.index_select(0, rows).mul_(self.scale)

    def _shares(self, x: torch.Tensor, chosen: torch.Tensor) -> tuple[float, float | None]:
        """Explained variance of the batch without position 0; and with it, if the batch is all the data."""
        error = self._work.error
        everything = len(x) == len(self.position)
        if self.config.skip_first:
            return _share(x, error), _share(x, error) if everything else None
        rest = self.position[self.rows[chosen]] != 0
        return _share(x[rest], error[rest]), _share(x, error) if everything else None

    def _dead_features(self) -> torch.Tensor | None:
        if self.config.architecture != "topk":
            return None
        return (self._since >= self.dead_after).nonzero()[:, 0]

    def _clock(self, tokens: int, seconds: float) -> None:
        now = tokens / max(seconds, 1e-9)
        self.tokens_per_second += (now - self.tokens_per_second) * (1.0 if self.tokens == tokens else 0.1)

    def _prepare_evaluation(self) -> None:
        self._full_x: torch.Tensor | None = None
        self._with_first = math.nan
        self._evaluated = data.evaluation_rows(self.position, self.config.seed)
        x = self._read(self._evaluated)
        self._evaluated_total = float((x - x.mean(0)).square_().sum()), float(x.square_().sum())
        self._evaluate_every = self._evaluation_interval()

    def _evaluation_interval(self) -> int:
        # A forward pass is two of a step's five matrix products; it may take a fiftieth of the time.
        return math.ceil(50 * 0.4 * len(self._evaluated) / self.batch_size)

    def _evaluate(self) -> float:
        """Explained variance over the fixed rows, position 0 included, with the weights as they are."""
        error = 0.0
        for rows in self._evaluated.split(self.batch_size):
            self._work.forward(self._read(rows))
            part = self._work.error[: len(rows)]
            error += float(torch.dot(part.view(-1), part.view(-1)))
        return variance_share(error, *self._evaluated_total)

    def _check_start(self, start: SAE) -> None:
        wanted = (self.config.architecture, self.d_in, self.config.d_sae)
        if (start.architecture, start.d_in, start.d_sae) != wanted:
            raise ValueError(
                f"The SAE to start from is {start.architecture}, {start.d_in} x {start.d_sae}; "
                f"these settings need {wanted[0]}, {wanted[1]} x {wanted[2]}. Nothing was trained."
            )

    def _fill(self, start: SAE | None) -> None:
        p, config = self._work.params, self.config
        if start is not None:
            for name in ("b_enc", "W_dec", "b_dec"):
                getattr(p, name).copy_(getattr(start, name))
            p.W_enc.copy_(start.W_enc.t())
            if config.unit_norm_decoder:
                norms = p.W_dec.norm(dim=1)
                p.W_enc.mul_(norms[:, None])
                p.b_enc.mul_(norms)
                self._work.unit_norm()
            return
        if config.tied_init:
            p.W_dec.normal_(generator=torch.Generator().manual_seed(config.seed + TIED_SEED))
            self._work.unit_norm()
            p.W_enc.copy_(p.W_dec)
        else:
            self._linear_start(torch.Generator().manual_seed(config.seed))
        if config.center:
            some = data.sample_rows(self.rows, data.MEDIAN_ROWS, config.seed)
            p.b_dec.copy_(data.geometric_median(self._read(some)))

    def _linear_start(self, generator: torch.Generator) -> None:
        """The start of two ``torch.nn.Linear``, drawn in their order: encoder, then decoder."""
        p = self._work.params
        for weight, bias, inputs in ((p.W_enc, p.b_enc, self.d_in), (p.W_dec.t(), p.b_dec, p.W_dec.shape[0])):
            bound = 1.0 / math.sqrt(inputs)
            drawn = torch.empty(weight.shape).uniform_(-bound, bound, generator=generator)
            weight.copy_(drawn)
            bias.uniform_(-bound, bound, generator=generator)
        if self.config.unit_norm_decoder:
            self._work.unit_norm()


def _share(x: torch.Tensor, error: torch.Tensor) -> float:
    """Explained variance from the rows and their errors, both ``[pos, d_in]``."""
    if len(x) < 2:
        return math.nan
    total = float((x - x.mean(0)).square_().sum())
    return variance_share(float(error.square().sum()), total, float(x.square().sum()))


def train(values: torch.Tensor, position: torch.Tensor, config: TrainConfig, **options: Any) -> Iterator[TrainStep]:
    """Train from scratch and yield a record for each step; ``Trainer`` gives the SAE as well.

    Args:
        values: ``[n, d_in]`` activations.
        position: ``[n]`` place of each row in its window.
        config: the settings.
        options: ``metadata`` and ``start`` of ``Trainer``.
    """
    yield from Trainer(values, position, config, **options).run()
