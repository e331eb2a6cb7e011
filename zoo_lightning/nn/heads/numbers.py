"""Head for numbers: a linear layer on pooled features, with outputs in the targets' own units."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo_lightning.nn.fast.products import autocast_off
from zoo_lightning.nn.heads.coordinates import HEAD_STD


class NumberHead(nn.Linear):
    """Linear layer from features to ``T`` numbers, whose weights are those of standardised targets.

    The output is ``(W x + b) * std + mean`` with the mean and standard deviation of the training
    targets, so that the weights learn as well whatever the targets' units are, while everything
    that reads the output (ensembles, teachers, exports) has it in these units.

    Args:
        num_features: number of features ``F``.
        num_targets: number of targets ``T``.
        loss: ``mse``, ``l1`` or ``huber``, of standardised targets.
        delta: standard deviations at which ``huber`` turns from squares to absolute values, above
            0.
    """

    target_mean: Tensor
    """Mean of each target, ``(T,)``."""
    target_std: Tensor
    """Standard deviation of each target, ``(T,)``."""

    def __init__(
        self, num_features: int, num_targets: int, loss: str = "huber", delta: float = 1.0
    ) -> None:
        super().__init__(num_features, num_targets)
        nn.init.normal_(self.weight, std=HEAD_STD)
        nn.init.zeros_(self.bias)
        self.kind, self.delta = loss, delta
        self.register_buffer("target_mean", torch.zeros(num_targets))
        self.register_buffer("target_std", torch.ones(num_targets))

    def forward(self, features: Tensor) -> Tensor:
        """Map features ``(B, F)`` to numbers ``(B, T)`` in the targets' units.

        Autocast is ignored: bfloat16 tells apart fewer than 300 values of a year or a weight.
        """
        with autocast_off(features.device):
            standard = super().forward(features.to(self.weight.dtype))
            return standard * self.target_std + self.target_mean

    def set_scale(self, mean: Tensor, std: Tensor) -> None:
        """Set mean and standard deviation of the training targets, ``(T,)`` each."""
        with torch.no_grad():
            self.target_mean.copy_(mean)
            self.target_std.copy_(std)

    def standardised(self, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """Convert a linear map to the targets' units into one to standardised targets.

        Args:
            weight: matrix ``(T, F)`` of the map.
            bias: bias ``(T,)`` of the map.
        """
        mean, std = self.target_mean.to(weight), self.target_std.to(weight)
        return weight / std[:, None], (bias - mean) / std

    def as_linear(self) -> nn.Linear:
        """Build the linear layer that computes the same, in the targets' units."""
        linear = nn.Linear(self.in_features, self.out_features).to(self.weight)
        with torch.no_grad():
            linear.weight.copy_(self.weight * self.target_std[:, None])
            linear.bias.copy_(self.bias * self.target_std + self.target_mean)
        return linear

    def loss(self, found: Tensor, wanted: Tensor) -> Tensor:
        """Scalar loss of standardised numbers, averaged over the targets that are known.

        Args:
            found: output of the head, ``(B, T)``.
            wanted: targets ``(B, T)`` in their units; NaN where unknown.
        """
        wanted = wanted.to(found)
        known = ~wanted.isnan()
        away = (found - torch.where(known, wanted, found)) / self.target_std
        zero = torch.zeros_like(away)
        if self.kind == "mse":
            each = F.mse_loss(away, zero, reduction="none")
        elif self.kind == "l1":
            each = F.l1_loss(away, zero, reduction="none")
        else:
            each = F.huber_loss(away, zero, reduction="none", delta=self.delta)
        return each.sum() / known.sum().clamp(min=1)

    def absolute_errors(self, found: Tensor, wanted: Tensor) -> Tensor:
        """Absolute errors ``(B,)`` in standard deviations, averaged over an image's known targets.

        Args:
            found: output of the head, ``(B, T)``.
            wanted: targets ``(B, T)`` in their units; NaN where unknown.
        """
        return ((found - wanted.to(found)).abs() / self.target_std).nanmean(dim=1)

    def squared_distance(self, found: Tensor, other: Tensor) -> Tensor:
        """Mean squared difference of two outputs ``(B, T)``, in squared standard deviations."""
        return ((found - other) / self.target_std).square().mean()
