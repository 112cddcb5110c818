"""The training rule of JumpReLU SAEs: thresholds that learn through a window around them."""

from __future__ import annotations

from typing import ClassVar

import torch

from sae_widget.training.dense import DenseWorkspace


class JumpReLUWorkspace(DenseWorkspace):
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

    def applied(self) -> None:
        """Keep the thresholds at 0 or above."""
        self.params.extra["threshold"].clamp_min_(0.0)

    def resize(self, batch_size: int) -> None:
        """Make the buffers for another batch size."""
        super().resize(batch_size)
        self.window, self.scratch2 = torch.empty_like(self.pre), torch.empty_like(self.pre)

    def _fire(self, pre: torch.Tensor, acts: torch.Tensor) -> None:
        threshold = self.params.extra["threshold"].to(pre.dtype)
        torch.gt(pre, threshold, out=acts)
        acts.mul_(pre)

    def _penalty(self, acts: torch.Tensor, fired: torch.Tensor, per_act: float) -> float:
        count, target, n = fired.sum(), self.config.target_l0, len(acts)
        if not target:
            self._slope = per_act
            return per_act * float(count)
        whole = per_act * self.d_in * n  # the coefficient, and the scale of the squared error
        l0 = self.mesh.sum_(torch.stack([count, count.new_tensor(float(n))]))  # of all processes' rows
        excess = float(l0[0] / l0[1]) / target - 1.0
        self._slope = 2.0 * whole * excess / (target * n)
        return whole * excess * excess

    def _through_activation(self, grad: torch.Tensor, acts: torch.Tensor, per_act: float) -> None:
        n, bandwidth, threshold = len(grad), self.config.bandwidth, self.params.extra["threshold"]
        window, pre = self.window[:n], self.pre[:n]
        torch.sub(pre, threshold.to(pre.dtype), out=window).abs_()
        torch.lt(window, bandwidth / 2, out=window)
        near = self.products.count(window, self.scratch2[:n])
        along = torch.sum(window.mul_(grad), 0, dtype=torch.float32)
        slope = (threshold * along + self._slope * near) / -bandwidth
        self.grads.extra["threshold"].copy_(slope)
        torch.ops.aten.threshold_backward.grad_input(grad, acts, 0.0, grad_input=grad)
