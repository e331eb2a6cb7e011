"""Coordinates of points as a linear function of pooled features."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from zoo_lightning.heads.losses import COORDINATE_LOSSES
from zoo_lightning.layers.products import autocast_off

HEAD_STD = 0.01
"""Standard deviation of a new head's weights: it starts near the mean shape, as in the authors'
code, whatever the size of the features."""


class CoordinateHead(nn.Linear):
    """Linear layer to ``K`` points as fractions of the image.

    Args:
        num_features: ``F``.
        num_points: ``K``.
        loss: a key of :data:`~zoo_lightning.heads.losses.COORDINATE_LOSSES`.
    """

    def __init__(self, num_features: int, num_points: int, loss: str = "wing") -> None:
        super().__init__(num_features, 2 * num_points)
        nn.init.normal_(self.weight, std=HEAD_STD)
        nn.init.constant_(self.bias, 0.5)
        self.num_points = num_points
        self.compare = COORDINATE_LOSSES[loss]

    def forward(self, features: Tensor) -> Tensor:
        """Output ``(B, 2 K)`` in the weights' type, of features ``(B, F)``.

        Also under autocast: in bfloat16 a point is known to a 500th of the image at best.
        """
        with autocast_off(features.device):
            return super().forward(features.to(self.weight.dtype))

    def start_from(self, shape: Tensor) -> None:
        """Let the head begin at a shape ``(K, 2)``, fractions of the image."""
        with torch.no_grad():
            self.bias.copy_(shape.flatten())

    def points(self, raw: Tensor) -> Tensor:
        """Points ``(B, K, 2)``, fractions of the image, from the output ``(B, 2 K)``."""
        return raw.unflatten(1, (self.num_points, 2))

    def loss(self, raw: Tensor, target: Tensor, visible: Tensor | None = None) -> Tensor:
        """Scalar loss of the output ``(B, 2 K)``.

        Args:
            raw: output of the head.
            target: ``(B, K, 2)``, fractions of the image.
            visible: bool ``(B, K)``, the points that count.
        """
        return self.compare(self.points(raw), target, visible)

    def mirrored(self, raw: Tensor, flip: Tensor) -> Tensor:
        """Output for the image, from the output for its mirror image.

        Args:
            raw: ``(B, 2 K)``.
            flip: ``(K,)``; ``flip[k]`` is the point that takes the place of point ``k``.
        """
        points = self.points(raw)[:, flip]
        return torch.stack([1 - points[..., 0], points[..., 1]], dim=-1).flatten(1)
