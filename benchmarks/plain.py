"""Our recipe as a plain float32 loop with autograd and torch's Adam: what the fast path must be as good as."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from benchmarks.contestants import Trained
from sae_widget.training import Trainer
from sae_widget.training.data import Batches, kept_rows
from sae_widget.training.schedule import learning_rate, penalty

if TYPE_CHECKING:
    from sae_widget.config import TrainConfig

AUX = 1 / 32  # weight of the loss of the dead features (Gao et al. 2024, appendix A.2)


class PlainLoop:
    """One SAE in training: starts from our trainer's first weights, on our trainer's batches.

    Args:
        values: ``[n, d_in]`` activations.
        position: ``[n]`` place of each row in its window.
        config: the settings; the kinds are ``standard`` and ``topk`` with the defaults of their recipe.
    """

    def __init__(self, values: torch.Tensor, position: torch.Tensor, config: TrainConfig) -> None:
        trainer = Trainer(values, position, config)
        start, self.config, self.dead_after = trainer.sae(), config, trainer.dead_after
        self.x = values[kept_rows(position, config.skip_first)] * start.scale  # [n_kept, d_in]
        self.scale = start.scale
        self.weights = [w.clone().requires_grad_() for w in (start.W_enc, start.b_enc, start.W_dec, start.b_dec)]
        self.adam = torch.optim.Adam(self.weights, lr=config.learning_rate)
        self.batches = Batches(len(self.x), config.batch_size, config.seed)
        self.since = torch.zeros(config.d_sae, dtype=torch.int64)  # tokens since each feature fired

    def run(self) -> Trained:
        """Train to ``config.steps``."""
        for step in range(1, self.config.steps + 1):
            rows = self.batches.next()
            self.one_step(step, self.x[self.batches.order[rows]])
        W_enc, b_enc, W_dec, b_dec = (w.detach() for w in self.weights)
        scale = self.scale
        return Trained(
            lambda x: self.activate((x * scale - b_dec) @ W_enc + b_enc), lambda f: (f @ W_dec + b_dec) / scale, W_dec
        )

    def one_step(self, step: int, x: torch.Tensor) -> None:
        """One step on ``x [batch, d_in]``."""
        W_enc, b_enc, W_dec, b_dec = self.weights
        pre = (x - b_dec) @ W_enc + b_enc  # [batch, d_sae]
        acts = self.activate(pre)
        error = x - (acts @ W_dec + b_dec)
        loss = error.square().sum() / len(x) + penalty(self.config, step) * acts.sum() / len(x)
        if self.config.architecture == "topk":
            loss = loss + self.revival(error.detach(), pre)
        self.adam.zero_grad()
        loss.backward()
        with torch.no_grad():
            W_dec.grad -= (W_dec.grad * W_dec).sum(1, keepdim=True) * W_dec
            torch.nn.utils.clip_grad_norm_(self.weights, self.config.max_grad_norm)
            self.adam.param_groups[0]["lr"] = learning_rate(self.config, step)
            self.adam.step()
            W_dec /= W_dec.norm(dim=1, keepdim=True)
            self.since = torch.where((acts > 0).any(0), 0, self.since + len(x))

    def activate(self, pre: torch.Tensor) -> torch.Tensor:
        """The activation function, ``[batch, d_sae]``."""
        if self.config.architecture == "standard":
            return pre.relu()
        kept = pre.topk(self.config.k, dim=-1)
        return torch.zeros_like(pre).scatter(-1, kept.indices, kept.values.relu())

    def revival(self, error: torch.Tensor, pre: torch.Tensor) -> torch.Tensor:
        """What the dead features make of the error, as a loss."""
        dead = (self.since >= self.dead_after).nonzero()[:, 0]
        if not len(dead):
            return error.new_zeros(())
        kept = pre[:, dead].topk(min(len(dead), error.shape[1] // 2), dim=-1)
        acts = torch.zeros_like(pre[:, dead]).scatter(-1, kept.indices, kept.values.relu())
        return AUX * (error - acts @ self.weights[2][dead]).square().sum() / len(error)
