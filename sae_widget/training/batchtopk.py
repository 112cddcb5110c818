"""The training rules of BatchTopK and Matryoshka BatchTopK SAEs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from sae_widget.training.largest import places
from sae_widget.training.pairs import Pairs, sampled, token_of
from sae_widget.training.topk import TopKWorkspace

if TYPE_CHECKING:
    from sae_widget.training.gradients import Weights
    from sae_widget.training.pairs import ByFeature

THRESHOLD_RATE = 0.01  # weight of the newest batch in the running mean of the smallest activation (SAELens' value)
CANDIDATES = 0.7  # of that mean: what is below is not looked at, unless too little is left
MOST_CANDIDATES = 8  # times as many as are wanted: with more, all are looked at


class BatchTopKWorkspace(TopKWorkspace):
    """The ``k * n`` largest of a batch (Bussmann et al. 2024, https://arxiv.org/abs/2412.06410)."""

    def fresh(self) -> None:
        """Set what a new SAE starts with besides its matrices."""
        super().fresh()
        self.memory["threshold"] = torch.zeros((), dtype=torch.float32, device=self.device)

    def measure(self, x: torch.Tensor) -> None:
        """``forward`` as the trained SAE does it: with the threshold."""
        self._encode(x)
        pre = self.pre[: len(x)]
        self.pairs = self._pairs(pre, places((pre > self.memory["threshold"]).view(-1)))
        self._decode(len(x))

    def applied(self, share: float) -> None:
        """Bring the threshold nearer to the smallest activation of the last batch."""
        known = self.memory["threshold"]
        if not bool(torch.isfinite(self._smallest)):  # nothing fired
            return
        known.add_(self._smallest - known, alpha=THRESHOLD_RATE if float(known) else 1.0)

    def _over_pairs_at(self, batch_size: int) -> bool:
        return True

    def _choose(self, pre: torch.Tensor) -> Pairs:
        flat, wanted = pre.reshape(-1), self.k * len(pre)
        if self.mesh.size > 1:
            chosen: torch.Tensor | None = self._of_all(flat, wanted)
        else:
            chosen = self._likely(flat, wanted)
        if chosen is None:
            chosen = flat.topk(min(wanted, len(flat)), sorted=False).indices
        pairs = self._pairs(pre, chosen[flat[chosen] > 0].sort().values)
        value = pairs.value  # looked at here, where nothing is applied yet if another process is gone
        self._smallest = self.mesh.gather(value.min() if len(value) else value.new_tensor(torch.inf)).min()
        return pairs

    def _likely(self, flat: torch.Tensor, wanted: int) -> torch.Tensor | None:
        """The largest, looked for among those near the last threshold; None when these are too few or too many."""
        known = CANDIDATES * float(self.memory["threshold"])
        if known <= 0:
            return None
        near = places(flat > known)
        if not wanted <= len(near) <= MOST_CANDIDATES * wanted:
            return None
        return near[flat[near].topk(wanted, sorted=False).indices]

    def _of_all(self, flat: torch.Tensor, wanted: int) -> torch.Tensor:
        """Those that are among the largest of all processes' rows together; ``wanted`` is the number for these."""
        all_wanted = int(self.mesh.sum_(torch.tensor(wanted, device=self.device)))
        largest = torch.zeros(all_wanted, dtype=torch.float32, device=self.device)
        own = flat.topk(min(all_wanted, len(flat)), sorted=False).values
        largest[: len(own)] = own
        together = self.mesh.gather(largest).reshape(-1)
        return places(flat >= together.topk(all_wanted).values[-1])


class MatryoshkaWorkspace(BatchTopKWorkspace):
    """Nested dictionaries (Bussmann et al. 2025, https://arxiv.org/abs/2503.17547): the mean of their losses.

    Level ``l`` reconstructs from the first ``d_sae / 2^(levels - l)`` features alone. With ``e_l`` the error of
    level ``l``, the features that come in at level ``g`` get the gradient of ``mean_l ||e_l||^2`` through
    ``e_g, e_{g+1}, ...``.
    """

    def resize(self, batch_size: int) -> None:
        """Make the buffers for another batch size."""
        super().resize(batch_size)
        levels = self.config.matryoshka_levels
        self.widths = sorted({max(1, self.d_sae >> level) for level in range(levels)})
        self.errors = self.error.new_empty(len(self.widths), batch_size, self.d_in)

    def _decode(self, n: int) -> None:
        pairs, token = self.pairs, token_of(self.pairs)
        group = torch.bucketize(pairs.feature, torch.tensor(self.widths, device=self.device), right=True)
        self._groups: list[tuple[torch.Tensor, Pairs]] = []
        before = self.target[:n].neg()
        for level in range(len(self.widths)):
            at = (group == level).nonzero()[:, 0]
            starts = token.new_zeros(n + 1)
            torch.cumsum(torch.bincount(token[at], minlength=n), 0, out=starts[1:])
            part = Pairs(starts, pairs.feature[at], pairs.value[at])
            self._groups.append((at, part))
            before = self.decode(part, self.errors[level, :n]).add_(before)
        self.error[:n].copy_(before)

    def _reconstruction(self, n: int, weights: Weights) -> float:
        errors = self.errors[:, :n]
        return weights.error * float(errors.square().sum()) / len(self.widths)

    def _decoder_gradients(self, n: int, sorted_pairs: ByFeature, weights: Weights) -> torch.Tensor:
        errors, grads, value = self.errors[:, :n], self.grads, self.pairs.value
        errors.mul_(2.0 * weights.error / len(self.widths))
        for level in range(len(self.widths) - 1, 0, -1):
            errors[level - 1].add_(errors[level])
        torch.sum(errors[0], 0, out=grads.b_dec)
        grad_acts, low, begin = torch.empty_like(value), 0, 0
        for level, (at, part) in enumerate(self._groups):
            high, end = self.widths[level], begin + len(at)
            grad_acts[at] = sampled(part, errors[level], self.params.W_dec)
            own = sorted_pairs._replace(
                order=sorted_pairs.order[begin:end],
                token=sorted_pairs.token[begin:end],
                starts=sorted_pairs.starts[low : high + 1] - begin,
            )
            self.gradient(own, value, errors[level], grads.W_dec[low:high])
            low, begin = high, end
        return grad_acts
