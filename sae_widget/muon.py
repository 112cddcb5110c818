"""The Muon optimizer (Jordan 2024) for the weight matrices of a small language model."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def orthogonalize(update: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """The nearest semi-orthogonal matrix, by the quintic Newton-Schulz iteration of Muon (Jordan 2024).

    ``torch.optim.Muon`` iterates in bfloat16, which is many times slower than float32 on a CPU
    without bfloat16 instructions.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    x = update.T if update.shape[0] > update.shape[1] else update
    x = x / (x.norm() + 1e-7)
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if update.shape[0] > update.shape[1] else x


class Muon:
    """Momentum with orthogonalised updates for the weight matrices, in AdamW's learning-rate scale.

    Args:
        params: the matrices; those named in ``split`` are orthogonalised in that many column blocks
            (query, key and value share one matrix in GPT-2).
    """

    def __init__(self, params: list[tuple[torch.nn.Parameter, int]], lr: float, weight_decay: float) -> None:
        import torch

        self.params, self.lr, self.weight_decay, self.scale = params, lr, weight_decay, 1.0
        self.momentum = [torch.zeros_like(p) for p, _ in params]

    def step(self) -> None:
        """Apply the gradients once."""
        import torch

        with torch.no_grad():
            for (param, blocks), momentum in zip(self.params, self.momentum, strict=True):
                if param.grad is None:
                    continue
                momentum.mul_(0.95).add_(param.grad, alpha=0.05)
                update = param.grad.lerp(momentum, 0.95)
                param.mul_(1 - self.lr * self.scale * self.weight_decay)
                for block, piece in zip(param.chunk(blocks, 1), update.chunk(blocks, 1), strict=True):
                    size = 0.2 * max(piece.shape) ** 0.5
                    block.add_(orthogonalize(piece), alpha=-self.lr * self.scale * size)
