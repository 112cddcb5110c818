"""The weights that a run starts from."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

import torch

from sae_widget.config import ARCHITECTURES

if TYPE_CHECKING:
    from sae_widget.config import TrainConfig
    from sae_widget.sae import SAE
    from sae_widget.training.gradients import Workspace

# Planted directions are often drawn with the same small seed; a start that is the answer would prove nothing.
TIED_SEED = 0x5AE5AE5A
START_ROWS = 2048  # that the biases of a start are read from
CHUNK = 256  # features at a time


def check_start(start: SAE, config: TrainConfig, d_in: int) -> None:
    """Raise ``ValueError`` unless this SAE has the shape and the architecture of the settings, and can go on."""
    wanted = (config.architecture, d_in, config.d_sae)
    if (start.architecture, start.d_in, start.d_sae) != wanted:
        raise ValueError(
            f"The SAE to start from is {start.architecture}, {start.d_in} x {start.d_sae}; "
            f"these settings need {wanted[0]}, {wanted[1]} x {wanted[2]}. Nothing was trained."
        )
    if start.normalize_activations != "none":
        raise ValueError(
            f"The SAE to start from normalises each token ({start.normalize_activations}), and the trainer does not. "
            "Nothing was trained; start from an SAE without it, or from scratch."
        )


def going_on(start: SAE, settings: TrainConfig) -> TrainConfig:
    """The settings with which an SAE trains on: its own kind and size, and the rest as given.

    Raises:
        ValueError: it cannot be trained on, and why.
    """
    own = {field.name for field in dataclasses.fields(start)} & set(ARCHITECTURES.get(start.architecture, ()))
    config = settings.changed(
        architecture=start.architecture,
        d_sae=start.d_sae,
        center=start.apply_b_dec_to_input,
        **{name: getattr(start, name) for name in own},
    )
    check_start(start, config, start.d_in)
    return config


def copy_start(work: Workspace, start: SAE) -> None:
    """Fill the parameters from an SAE; with unit-norm rows the norms move into the encoder."""
    p = work.params
    for name in ("b_enc", "W_dec", "b_dec"):
        getattr(p, name).copy_(getattr(start, name))
    p.W_enc.copy_(start.W_enc.t())
    for name, vector in p.extra.items():
        vector.copy_(getattr(start, name))
    if "threshold" in work.memory:
        work.memory["threshold"].fill_(start.threshold)  # type: ignore[attr-defined]
    if work.config.unit_norm_decoder:
        norms = p.W_dec.norm(dim=1)
        p.W_enc.mul_(norms[:, None])
        p.b_enc.mul_(norms)
        for name in p.extra.keys() - {"r_mag"}:
            p.extra[name].mul_(norms)
        work.unit_norm()


def random_start(work: Workspace) -> None:
    """Fill the parameters as the settings say; ``b_dec`` at the median is the caller's.

    Tied: decoder rows in random directions, the encoder their transpose, biases zero. Otherwise the start of
    two ``torch.nn.Linear``, drawn in their order (encoder, decoder) after ``manual_seed(seed)``. The draws are those
    of the CPU on every device.
    """
    config, p = work.config, work.params
    if config.tied_init:
        rows = torch.empty(p.W_dec.shape, dtype=torch.float32)
        p.W_dec.copy_(rows.normal_(generator=torch.Generator().manual_seed(config.seed ^ TIED_SEED)))
        work.unit_norm()
        p.W_enc.copy_(p.W_dec)
        return
    generator = torch.Generator().manual_seed(config.seed)
    for weight, bias in ((p.W_enc, p.b_enc), (p.W_dec.t(), p.b_dec)):  # [outputs, inputs], as nn.Linear has them
        bound = 1.0 / math.sqrt(weight.shape[1])
        weight.copy_(torch.empty(weight.shape, dtype=torch.float32).uniform_(-bound, bound, generator=generator))
        bias.copy_(torch.empty(bias.shape, dtype=torch.float32).uniform_(-bound, bound, generator=generator))
    if config.unit_norm_decoder:
        work.unit_norm()


def starts_rarely(config: TrainConfig) -> bool:
    """Whether features start out rare: where there is a penalty to keep them so, and random weights have no biases."""
    penalised = config.architecture == "standard" and config.l1_coefficient > 0
    return penalised and config.tied_init and config.start_firing > 0


def fire_rarely(work: Workspace, x: torch.Tensor) -> None:
    """Set ``b_enc`` so that every feature fires on ``start_firing`` of the rows, at least on one.

    With biases at 0 each feature of a random start fires on half of the tokens, several learn the same direction, and
    the L1 penalty leaves it so: two features that share an activation cost as much as one. Features that start with
    their few strongest tokens part. That shares are set, and not biases, is Anthropic's
    (https://transformer-circuits.pub/2025/january-update); the size of ours was measured: at 0.01 a long run explains
    0.001 more of the bundled model, but a strong penalty loses features of known data.

    Args:
        work: with weights and ``b_dec`` as they start.
        x: ``[n, d_in]`` scaled activations, on the device of ``work``.
    """
    p = work.params
    u = x - p.b_dec if work.center_input else x
    count = max(1, round(work.config.start_firing * len(u)))
    for start in range(0, work.d_sae, CHUNK):
        pre = p.W_enc[start : start + CHUNK] @ u.t()  # [CHUNK, n]
        last = pre.topk(count, dim=1, sorted=True).values[:, -1:]
        below = pre.masked_fill_(pre >= last, -math.inf).amax(1, keepdim=True)  # the same rows may stand there twice
        between = torch.where(below.isfinite(), (last + below) / 2, 0.0)
        p.b_enc[start : start + CHUNK] = -between[:, 0]
