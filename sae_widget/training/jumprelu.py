"""The training rule of JumpReLU SAEs: thresholds that learn through a window around them."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch

from sae_widget.threads import using
from sae_widget.training.rare import RareWorkspace

if TYPE_CHECKING:
    from sae_widget.training.gradients import Weights
    from sae_widget.training.pairs import Pairs


class JumpReLUWorkspace(RareWorkspace):
    """The straight-through estimators of Rajamanoharan et al. 2024 (https://arxiv.org/abs/2407.14435).

    ``feature_acts = hidden_pre * (hidden_pre > threshold)``; its gradient to ``hidden_pre`` is 1 where a feature fires.
    A threshold has no true gradient: with ``K`` 1 in a window of width ``bandwidth`` around it and 0 outside, a token
    gives it ``-(threshold * grad_acts + c) * K / bandwidth``, where ``c`` is the slope of the penalty in the number of
    features that fire. The penalty is ``l0_coefficient * L0``, or with ``target_l0``
    ``l0_coefficient * d_in * (L0 / target_l0 - 1)^2`` (their appendix; d_in, because they scale activations to mean
    square norm 1 and we to d_in).
    """

    beta1 = 0.0  # a threshold's gradient is seldom and large: Adam remembers none of it (their appendix)
    starts_at: ClassVar[dict[str, float]] = {"threshold": 0.1}

    def applied(self, share: float) -> None:
        """Keep the thresholds at 0 or above."""
        super().applied(share)
        self.params.extra["threshold"].clamp_min_(0.0)

    def resize(self, batch_size: int) -> None:
        """Make the buffers for another batch size."""
        super().resize(batch_size)
        self.window, self.scratch2 = torch.empty_like(self.pre), torch.empty_like(self.pre)

    def _fire(self, pre: torch.Tensor, acts: torch.Tensor) -> None:
        threshold = self.params.extra["threshold"].to(pre.dtype)
        torch.gt(pre, threshold, out=acts)
        acts.mul_(pre)

    def _bound(self) -> torch.Tensor:
        """Below the thresholds' windows, also after it was rounded."""
        dtype = self.pre.dtype
        rounded = (self.params.extra["threshold"].to(dtype).float() - self.config.bandwidth / 2).to(dtype)
        return torch.nextafter(rounded, torch.full_like(rounded, -torch.inf))

    def _fired_by(self, pairs: Pairs) -> torch.Tensor:
        return torch.where(pairs.value <= self._thresholds(pairs), 0.0, pairs.value)  # NaN is kept

    def _thresholds(self, pairs: Pairs) -> torch.Tensor:
        return self.params.extra["threshold"].to(self.pre.dtype).float()[pairs.feature]

    def _n_pairs(self, fired: torch.Tensor) -> float:
        return super()._n_pairs(fired) + float(self._near.sum())

    def _penalty(self, acts: torch.Tensor, fired: torch.Tensor, per_act: float) -> float:
        return self._price(fired, len(acts), per_act)

    def _price(self, fired: torch.Tensor, n: int, per_act: float) -> float:
        """The penalty of so many features that fire on ``n`` rows, ``[d_sae]``; its slope is kept."""
        count, target = fired.sum(), self.config.target_l0
        if not target:
            self._slope = per_act
            return per_act * float(count)
        whole = per_act * self.d_in * n  # the coefficient, and the scale of the squared error
        l0 = self.mesh.sum_(torch.stack([count, count.new_tensor(float(n))]))  # of all processes' rows
        excess = float(l0[0] / l0[1]) / target - 1.0
        self._slope = 2.0 * whole * excess / (target * n)
        return whole * excess * excess

    def _through_activation(self, grad: torch.Tensor, acts: torch.Tensor, per_act: float) -> None:
        n, threshold = len(grad), self.params.extra["threshold"].to(self.pre.dtype)
        window, pre = self.window[:n], self.pre[:n]
        torch.sub(pre, threshold, out=window).abs_()
        torch.lt(window, self.config.bandwidth / 2, out=window)
        near = self.products.count(window, self.scratch2[:n])
        along = torch.sum(window.mul_(grad), 0, dtype=torch.float32)
        self._threshold_gradient(along, near)
        torch.ops.aten.threshold_backward.grad_input(grad, acts, 0.0, grad_input=grad)

    def _through_pairs(self, grad: torch.Tensor, fires: torch.Tensor, fired: torch.Tensor, weights: Weights) -> float:
        pairs = self.pairs
        sparsity = self._price(fired, len(pairs.starts) - 1, weights.act)
        with using(1):
            near = (self.hidden - self._thresholds(pairs)).abs_().lt(self.config.bandwidth / 2).float()
            self._threshold_gradient(self._by_feature(near * grad), self._by_feature(near))
            grad.mul_(fires)
        return sparsity

    def _threshold_gradient(self, along: torch.Tensor, near: torch.Tensor) -> None:
        """From the gradients of ``feature_acts`` in the windows, and how many rows there are. Both ``[d_sae]``."""
        self._near = near
        slope = (self.params.extra["threshold"] * along + self._slope * near) / -self.config.bandwidth
        self.grads.extra["threshold"].copy_(slope)
