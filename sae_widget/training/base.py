"""The records of a training run, and the flat buffers that hold its parameters."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch

if TYPE_CHECKING:
    from sae_widget.training.gradients import Losses

BETA1, BETA2, EPS = 0.9, 0.999, 1e-8  # Adam, as torch has them


@dataclass(frozen=True)
class TrainStep:
    """What one optimizer step showed; ``nan`` where a number is not defined.

    All numbers are of the weights before the step, as in any training loop.
    """

    step: int  # counted from 1
    loss: float  # reconstruction + weighted sparsity (+ the loss that revives dead features)
    reconstruction: float  # squared error
    sparsity: float  # weighted L1 penalty (standard), loss of the dead features (topk)
    l0: float  # mean number of features that fire on a token
    explained_variance: float  # over the batch, position 0 left out
    explained_variance_with_first: float  # over a fixed set of at most 2,048 tokens, position 0 included
    dead: int  # features that did not fire over the last ``Trainer.dead_after`` tokens
    learning_rate: float
    tokens_per_second: float
    tokens: int  # read since the start
    validation_explained_variance: float = math.nan  # over at most 2,048 held-out tokens, position 0 left out


class Applied(NamedTuple):
    """A step whose gradients were applied."""

    n: int  # tokens
    rate: float  # Adam's step size
    losses: Losses
    share: float  # explained variance of the batch
    with_first: float | None  # the same with position 0, where the batch was everything


class Measured(NamedTuple):
    """Explained variance over the fixed sets; ``nan`` where it is not known."""

    with_first: float
    validation: float


class TrainingFault(Exception):
    """The loss or a gradient was not finite; that step was not applied and training can go on.

    Args:
        step: the step that failed; the trainer stands at the one before.
        rate: its learning rate.
        what: ``"loss"`` or ``"gradient"``.
        value: what that became.
    """

    def __init__(self, step: int, rate: float, what: str, value: float) -> None:
        self.step = step
        became = "NaN" if math.isnan(value) else "infinite"
        advice = 10.0 ** max(-8, math.floor(math.log10(rate)) - 1)  # a round number, at most a tenth of it
        super().__init__(
            f"The {what} became {became} at step {step:,} (learning rate {rate:.3g}). Rolled back to step "
            f"{step - 1:,}, the last good weights. Try a learning rate of at most {advice:g}."
        )


class Flat:
    """The parameters (or gradients, or Adam moments) of an SAE in one vector, and views into it.

    ``W_dec`` and ``b_dec`` lie next to each other, so that ``decoder`` is both as one matrix.

    Args:
        d_in: width of the activations.
        d_sae: number of features.
        vectors: names of further parameters, each ``[d_sae]``, in ``extra``.
        device: where they are.
    """

    def __init__(
        self, d_in: int, d_sae: int, vectors: tuple[str, ...] = (), device: torch.device | str = "cpu"
    ) -> None:
        room = -(-d_sae // 16) * 16  # the matrices begin on a cache line
        size, start = d_in * d_sae, room * (1 + len(vectors))
        self.vector = torch.zeros(start + 2 * size + d_in, dtype=torch.float32, device=device)
        self.b_enc = self.vector[:d_sae]  # [d_sae]
        self.extra = {name: self.vector[at * room :][:d_sae] for at, name in enumerate(vectors, 1)}
        self.W_enc = self.vector[start : start + size].view(d_sae, d_in)  # transposed: one row a feature
        self.decoder = self.vector[start + size :].view(d_sae + 1, d_in)
        self.W_dec = self.decoder[:d_sae]  # [d_sae, d_in]
        self.b_dec = self.decoder[d_sae]  # [d_in]


Moments = tuple[Flat, Flat]


def first(buffer: torch.Tensor, n: int) -> torch.Tensor:
    """The first ``n`` rows; the buffer itself when it has no more, which costs nothing."""
    return buffer if buffer.shape[0] == n else buffer[:n]


class Adam:
    """Adam (Kingma & Ba 2015) over flat vectors, in torch's fused kernel; what each step hands to it is made once.

    Args:
        params: changed in place.
        grads: their gradients.
        moments: the running means of gradient and squared gradient, changed in place.
        beta1: how much of the running mean of the gradient is kept.
    """

    def __init__(self, params: Flat, grads: Flat, moments: Moments, beta1: float = BETA1) -> None:
        self.beta1 = beta1
        self._vectors = tuple([flat.vector] for flat in (params, grads, *moments))
        count, self._divisor = torch.zeros(2, dtype=torch.float32, device=params.vector.device).unbind()
        self._counts, self._none = [count], list[torch.Tensor]()

    def __call__(self, step: int, rate: float, divisor: float | None = None) -> None:
        """One step.

        Args:
            step: its number, counted from 1.
            rate: the step size.
            divisor: by which the gradients are divided first, in place.
        """
        self._counts[0].fill_(step)
        params, grads, first_moment, second_moment = self._vectors
        torch._fused_adam_(
            params,
            grads,
            first_moment,
            second_moment,
            self._none,
            self._counts,
            lr=rate,
            beta1=self.beta1,
            beta2=BETA2,
            weight_decay=0.0,
            eps=EPS,
            amsgrad=False,
            maximize=False,
            grad_scale=None if divisor is None else self._divisor.fill_(divisor),
        )
