"""The training rule of TopK SAEs."""

from __future__ import annotations

import torch

from sae_widget.threads import using
from sae_widget.training.base import first
from sae_widget.training.largest import dividing_is_fast, keep_largest, places_of_largest
from sae_widget.training.pairs import Pairs
from sae_widget.training.sparse import SparseWorkspace
from sae_widget.ways import over_pairs


class TopKWorkspace(SparseWorkspace):
    """The k largest of each token: over pairs where that is faster, over whole matrices elsewhere."""

    def resize(self, batch_size: int) -> None:
        """Make the buffers for another batch size."""
        self._pays = self._over_pairs_at(batch_size)
        super().resize(batch_size)

    def _more_buffers(self) -> tuple[torch.Tensor, torch.Tensor]:
        return (self.pre, self.pre) if self._pays else super()._more_buffers()  # not used over pairs

    def _over_pairs_at(self, batch_size: int) -> bool:
        """Whether steps of this size go over pairs."""
        return over_pairs(batch_size, self.d_in, self.d_sae, self.k)

    def _has_room_for(self, batch_size: int) -> bool:
        return super()._has_room_for(batch_size) and self._pays == self._over_pairs_at(batch_size)

    def fresh(self) -> None:
        """Set what a new SAE starts with besides its matrices."""
        super().fresh()
        divides = dividing_is_fast(self.products.dtype, self.device.type)
        # Of a run, and kept with it: of equal numbers each way takes others.
        self.memory["divides"] = torch.tensor(float(divides), dtype=torch.float32)

    @property
    def k(self) -> int:
        """Features that fire on a token."""
        return self.config.wanted_k

    def _sparse(self, n: int) -> bool:
        return self._pays

    def _fire(self, pre: torch.Tensor, acts: torch.Tensor) -> None:
        keep_largest(pre, self.k, acts, first(self.scratch, pre.shape[0]))

    def _choose(self, pre: torch.Tensor) -> Pairs:
        if self.memory["divides"] and self.device.type == "cpu":  # a run that goes on may have begun on another
            return self._pairs(pre, places_of_largest(pre, self.k))
        values, indices = pre.topk(self.k, dim=-1, sorted=False)
        starts = torch.arange(0, indices.numel() + 1, self.k, device=pre.device)
        return Pairs(starts, indices.view(-1), values.float().clamp_min_(0.0).view(-1))

    def _pairs(self, pre: torch.Tensor, flat: torch.Tensor) -> Pairs:
        """The pairs at these places of the flat ``pre``, which rise."""
        with using(1):
            token = torch.div(flat, self.d_sae, rounding_mode="floor")
            starts = token.new_zeros(len(pre) + 1)
            torch.cumsum(torch.bincount(token, minlength=len(pre)), 0, out=starts[1:])
            value = pre.reshape(-1).index_select(0, flat).float()
            return Pairs(starts, flat - token.mul_(self.d_sae), value)
