"""The original tutorial's training loop against ours, on one thread, in one run."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

ROUNDS = 9
TARGET = 5.0
N_TOKENS, D_IN, D_SAE, EPOCHS = 14, 768, 16, 500


def plain_loop(x: torch.Tensor) -> list[float]:
    """The tutorial's loop as a beginner writes it, without its printing. Losses of all epochs."""
    import torch
    from torch import nn

    class SparseAutoencoder(nn.Module):
        """Two linear layers with a ReLU between them."""

        def __init__(self) -> None:
            super().__init__()
            self.encoder = nn.Linear(D_IN, D_SAE)
            self.decoder = nn.Linear(D_SAE, D_IN)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            """``[pos, d_in]`` to reconstruction and feature activations."""
            encoded = torch.relu(self.encoder(x))
            return self.decoder(encoded), encoded

    model, criterion = SparseAutoencoder(), nn.MSELoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=100, gamma=0.5)
    losses = []
    for _ in range(EPOCHS):
        optimizer.zero_grad()
        decoded, encoded = model(x)
        loss = criterion(decoded, x) + 0.01 * torch.mean(torch.abs(encoded))
        loss.backward()
        optimizer.step()
        scheduler.step()
        losses.append(loss.item())
    return losses


def our_loop(x: torch.Tensor) -> list[float]:
    """The same through ``train``, every record read."""
    import torch

    from sae_widget.config import TrainConfig
    from sae_widget.training import train

    return [record.loss for record in train(x, torch.arange(len(x)), TrainConfig.original_tutorial())]


def seconds(loop: Callable[[torch.Tensor], list[float]], x: torch.Tensor) -> float:
    """Processor time of one call: with one thread it is the clock's, less what other programs took."""
    began = time.process_time()
    loop(x)
    return time.process_time() - began


def run() -> list[tuple[str, str, str]]:
    """Rows of what was measured, the result, and the target."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        x = torch.randn(N_TOKENS, D_IN, generator=torch.Generator().manual_seed(0)) * 3
        with torch.random.fork_rng():
            torch.manual_seed(0)
            theirs, ours = plain_loop(x), our_loop(x)
            rounds = [(seconds(plain_loop, x), seconds(our_loop, x)) for _ in range(ROUNDS)]
    finally:
        torch.set_num_threads(threads)
    worst = max(abs(a - b) / a for a, b in zip(theirs, ours, strict=True))
    plain, fast = (statistics.median(column) for column in zip(*rounds, strict=True))
    ratio = statistics.median(a / b for a, b in rounds)
    what = f"original tutorial, {EPOCHS} epochs, {N_TOKENS} x {D_IN}, {D_SAE} features, one thread"
    return [
        (what, f"{ratio:.1f} times faster ({plain * 1e3:.0f} ms -> {fast * 1e3:.0f} ms)", f"{TARGET:g} times"),
        ("its loss at every epoch, largest relative difference", f"{worst:.1e}", "1e-4"),
    ]


if __name__ == "__main__":
    for row in run():
        print(" | ".join(row))
