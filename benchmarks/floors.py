"""The least that a dense training step can cost: its five matrix products, into buffers that are there already."""

from __future__ import annotations

import torch

from benchmarks.contestants import Contestant, Task, Trained


def matmuls(task: Task, dtype: torch.dtype) -> Contestant:
    """Encode, decode, and the gradients of decoder, activations and encoder at the shapes of the task."""
    made = {"dtype": dtype, "device": task.device}
    x = torch.randn(task.batch_size, task.d_in, **made)
    encoder, decoder = (torch.randn(task.d_sae, task.d_in, **made) for _ in range(2))
    acts = torch.randn(task.batch_size, task.d_sae, **made)
    wide, narrow, grad = torch.empty_like(acts), torch.empty_like(x), torch.empty_like(encoder)

    def step() -> None:
        torch.mm(x, encoder.t(), out=wide)
        torch.mm(acts, decoder, out=narrow)
        torch.mm(acts.t(), x, out=grad)
        torch.mm(x, decoder.t(), out=wide)
        torch.mm(acts.t(), x, out=grad)

    def trained() -> Trained:
        raise TypeError("a floor trains nothing")

    return Contestant(name_of(dtype), step, trained, torch.get_num_threads())


def name_of(dtype: torch.dtype) -> str:
    """``bfloat16 floor``."""
    return f"{str(dtype).removeprefix('torch.')} floor"
