"""The trainer: a generator of records that can be paused, changed, stopped and gone on with."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from sae_widget.config import ARCHITECTURES, FIXED_SETTINGS, TrainConfig
from sae_widget.memory import check_memory, free_memory, needed_memory
from sae_widget.threads import using
from sae_widget.training.ahead import Ahead
from sae_widget.training.blocks import HELD_ROWS
from sae_widget.training.engine import Engine
from sae_widget.training.feed import make_feed
from sae_widget.training.interrupts import finish_first
from sae_widget.training.mesh import ALONE
from sae_widget.training.quality import Validation, validate
from sae_widget.training.several import MOST_STEPS, Several, steps_at_once
from sae_widget.training.start import check_start
from sae_widget.training.threads import threads_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sae_widget.sae import SAE
    from sae_widget.training.base import TrainStep
    from sae_widget.training.blocks import ActivationSource
    from sae_widget.training.mesh import Alone


class Trainer:
    """Trains one sparse autoencoder on fixed activations.

    Everything random comes from the trainer's own generators and nothing global is changed, so that two
    trainers in one process, in any threads, give what each gives alone.
    """

    def __init__(
        self,
        values: torch.Tensor | ActivationSource,
        position: torch.Tensor | None = None,
        config: TrainConfig | None = None,
        *,
        metadata: dict[str, Any] | None = None,
        start: SAE | None = None,
        mesh: Alone = ALONE,
        device: str = "cpu",
    ) -> None:
        """Make the weights and the buffers; nothing is trained yet.

        Args:
            values: ``[n, d_in]`` activations, kept and never changed; or a corpus in blocks, of which a part is
                held at a time (``sae_widget.data.open_corpus``).
            position: ``[n]`` place of each row in its window; 0 is the first token. None for a corpus.
            config: the settings.
            metadata: goes into the SAE: which model, layer, hook.
            start: go on from this SAE's weights and scale instead of random ones.
            mesh: the processes that train together, each with the same arguments.
            device: where the steps are computed, ``"cpu"`` or ``"cuda"``; activations and the SAE stay on the CPU.

        Raises:
            ValueError: too few activations, not finite, too little memory, ``start`` of another shape, an
                architecture that cannot be trained, a batch with fewer tokens than processes.
            TypeError: not tensors, or ``config`` is no ``TrainConfig``.
        """
        config = _checked(config)
        with torch.no_grad():
            feed = make_feed(values, position, config)
            self.d_in, self.metadata = feed.d_in, dict(metadata or {})
            if device == "cpu":
                check_memory(*_size(self.d_in, mesh.count(feed.batch_size), config))
            if start is not None:
                check_start(start, config, self.d_in)
            self._engine = Engine(feed, config, start, mesh, device)
            self._engine.agree()
        self._ahead: Ahead | Several | None = None
        self._group = 1  # small steps that are done at once: few when somebody has just looked

    def __reduce_ex__(self, protocol: object) -> Any:
        """A copy would share its memory with the original and train both.

        Raises:
            TypeError: always.
        """
        raise TypeError("a Trainer cannot be copied or pickled: give its state_dict() to a new one's load_state_dict()")

    @property
    def config(self) -> TrainConfig:
        """The settings; ``reconfigure`` changes them."""
        return self._engine.config

    @property
    def step(self) -> int:
        """How many steps have been yielded."""
        return self._ahead.step if self._ahead else self._engine.step

    @property
    def tokens(self) -> int:
        """How many tokens have been read."""
        return self._ahead.tokens if self._ahead else self._engine.tokens

    @property
    def scale(self) -> float:
        """The scalar by which activations are multiplied."""
        return self._engine.scale

    @property
    def batch_size(self) -> int:
        """Tokens in a step; the whole data when they are fewer than the settings ask for."""
        return self._engine.feed.batch_size

    @property
    def left_out(self) -> str:
        """How many tokens are not trained on and why, in a sentence; nothing when all are.

        Of a corpus in blocks: of what was read so far.
        """
        return str(self._engine.feed.left_out())

    def validation(self) -> Validation | None:
        """The SAE as it is now on held-out tokens, at most 8,192; None without ``validation_share``."""
        x = self._engine.feed.validation(HELD_ROWS)
        return validate(self.sae(), x) if len(x) else None

    @property
    def dead_after(self) -> int:
        """A feature is dead when it has not fired over this many tokens.

        One pass over the data, or a tenth of the planned tokens when that is less; at least one batch.
        """
        return self._engine.dead_after

    def run(self) -> Iterator[TrainStep]:
        """Train to ``config.steps``, one record for each step; each step is applied whole before its record.

        Not asking for the next record is a pause. After the end, or after a fault, ``run`` can be called
        again, with more steps or other settings (``reconfigure``).

        Raises:
            TrainingFault: the loss or a gradient was not finite; the weights are those of the step before.
        """
        self._settle()
        while self.step < self.config.steps:
            engine, count = self._engine, steps_at_once(self._engine, self._group)
            self._group = min(MOST_STEPS, 2 * self._group)
            if Ahead.fits(engine):
                yield from self._run_ahead(partial(Ahead, engine))
            elif count > 1:
                yield from self._run_ahead(partial(Several, engine, count))
            else:
                with finish_first(), torch.no_grad(), self._threads():
                    record = engine.one_step()
                yield record
            self._settle()  # another ``run`` may have begun meanwhile

    def sae(self) -> SAE:
        """The SAE as it is now, with its own copies of the weights."""
        self._look()
        engine, p, config = self._engine, self._engine.work.params, self.config
        kind = engine.work.kind
        own = {field.name for field in dataclasses.fields(kind)} & set(ARCHITECTURES[kind.architecture])
        values: dict[str, Any] = {name: getattr(config, name) for name in own}
        values |= {name: vector.to("cpu", copy=True) for name, vector in p.extra.items()}
        if "k" in values:
            values["k"] = config.wanted_k
        if "threshold" in engine.work.memory:
            values["threshold"] = float(engine.work.memory["threshold"])
        recipe = {"steps": self.step, "tokens": self.tokens, "settings": dataclasses.asdict(config)}
        return kind(
            W_enc=p.W_enc.cpu().t().clone(memory_format=torch.contiguous_format),
            b_enc=p.b_enc.to("cpu", copy=True),
            W_dec=p.W_dec.to("cpu", copy=True),
            b_dec=p.b_dec.to("cpu", copy=True),
            scale=engine.scale,
            apply_b_dec_to_input=engine.work.center_input,
            metadata=self.metadata | {"training": recipe},
            **values,
        )

    def reconfigure(self, config: TrainConfig) -> None:
        """Use other settings from the next step on.

        Raises:
            TypeError: no ``TrainConfig``.
            ValueError: a setting that is fixed once training has begun, or a batch that does not fit into
                memory; everything stays as it was.
        """
        config = _checked(config)
        changed = [name for name in FIXED_SETTINGS if getattr(config, name) != getattr(self.config, name)]
        if changed:
            raise ValueError(f"{', '.join(changed)} cannot change while this SAE trains; stop first")
        self._settle()
        mesh, feed = self._engine.mesh, self._engine.feed
        before = needed_memory(*_size(self.d_in, mesh.count(feed.batch_size), self.config))
        after = _size(self.d_in, mesh.count(feed.effective(config.batch_size)), config)
        if needed_memory(*after) > before:
            check_memory(*after, free=free_memory() + before)
        with finish_first():
            self._engine.reconfigure(config)

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Everything that the next step depends on, as own copies: weights, Adam, batches, counters."""
        self._look()
        return self._engine.state_dict()

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Go on from a ``state_dict`` of a trainer with the same settings and data, bit for bit.

        One from before the measured ways were kept goes on in the ways that are the fastest here.

        Raises:
            ValueError: it is of another SAE or other data, or damaged; everything stays as it was.
        """
        mine = self.state_dict()
        state = {name: mine[name] for name in WAYS if name in mine} | state
        for name, own in mine.items():
            given = state.get(name)
            if given is None or given.shape != own.shape or given.dtype != own.dtype:
                got = "missing" if given is None else f"{list(given.shape)} {given.dtype}"
                raise ValueError(
                    f"This state is of another run: {name} is {got}, needs {list(own.shape)} {own.dtype}. "
                    "The run stays as it was."
                )
        self._engine.load_state_dict(state)

    def _run_ahead(self, begin: Callable[[], Ahead | Several]) -> Iterator[TrainStep]:
        """A few steps at once; whoever looks at the weights in between sees those of the record."""
        with finish_first(), torch.no_grad(), self._threads():
            self._ahead = ahead = begin()
        if ahead.cut:
            self._group = len(ahead.records)
        for record in ahead.records:
            ahead.step, ahead.tokens = record.step, record.tokens
            yield record
            if self._ahead is not ahead:
                return
        self._settle()
        if ahead.fault is not None:
            raise ahead.fault

    def _settle(self) -> None:
        """Bring the weights to the last record that was given out; after a fault in here it can be tried again."""
        ahead = self._ahead
        if ahead is not None:
            with finish_first(), torch.no_grad(), self._threads():
                ahead.settle()
                self._ahead = None

    def _look(self) -> None:
        """The same for somebody who may look again soon: each look takes back what was done ahead."""
        self._group = 1
        self._settle()

    def _threads(self) -> using:
        """As many torch threads as a step takes."""
        engine = self._engine
        engine.threads = engine.threads or threads_for(self.batch_size, self.d_in, engine.config.d_sae)
        return using(min(engine.threads, torch.get_num_threads()))


def _checked(config: TrainConfig | None) -> TrainConfig:
    if not isinstance(config, TrainConfig):
        raise TypeError(f"config must be a TrainConfig, got {type(config).__name__}: TrainConfig(steps=...)")
    return config


def _size(d_in: int, batch_size: int, config: TrainConfig) -> tuple[int, int, int, str, int]:
    """What the need of memory is worked out from."""
    return d_in, config.d_sae, batch_size, config.architecture, config.wanted_k


WAYS = ("memory.divides", "memory.in_numpy", "memory.multiplies", "memory.pays", "memory.share")
"""Names in a state: by which of two ways to the same result a step goes."""


def train(
    values: torch.Tensor | ActivationSource,
    position: torch.Tensor | None = None,
    config: TrainConfig | None = None,
    **options: Any,
) -> Iterator[TrainStep]:
    """Train from scratch and yield a record for each step; ``Trainer`` gives the SAE as well.

    Args:
        values: ``[n, d_in]`` activations, or a corpus in blocks.
        position: ``[n]`` place of each row in its window; None for a corpus.
        config: the settings.
        options: ``metadata`` and ``start`` of ``Trainer``.

    Returns:
        A generator; what is wrong with the arguments is raised here, and nothing is trained before its first record.

    Raises:
        TypeError: not tensors, no ``TrainConfig``, an unknown option.
        ValueError: too few activations, not finite, too little memory, ``start`` of another shape.
        TrainingFault: while it goes on: the loss or a gradient was not finite.
    """
    return Trainer(values, position, config, **options).run()
