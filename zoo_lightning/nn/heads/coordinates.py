"""Head for the coordinates of points: a linear layer on pooled features."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from zoo_lightning.nn.fast.products import autocast_off
from zoo_lightning.nn.heads.losses import COORDINATE_LOSSES

HEAD_STD = 0.01
"""Standard deviation of a new head's weights, small as in the authors' code, so that the first
outputs are near the bias."""


class CoordinateHead(nn.Linear):
    """Linear layer from features to ``K`` points, fractions of the image.

    Args:
        num_features: number of features ``F``.
        num_points: number of points ``K``.
        loss: key of :data:`~zoo_lightning.nn.heads.losses.COORDINATE_LOSSES`.
    """

    def __init__(self, num_features: int, num_points: int, loss: str = "wing") -> None:
        super().__init__(num_features, 2 * num_points)
        nn.init.normal_(self.weight, std=HEAD_STD)
        nn.init.constant_(self.bias, 0.5)
        self.num_points = num_points
        self.compare = COORDINATE_LOSSES[loss]

    def forward(self, features: Tensor) -> Tensor:
        """Map features ``(B, F)`` to the output ``(B, 2 K)``, in the weights' type.

        Autocast is ignored: in bfloat16 a point is accurate to a 500th of the image at best.
        """
        with autocast_off(features.device):
            return super().forward(features.to(self.weight.dtype))

    def start_from(self, shape: Tensor) -> None:
        """Set the bias to a mean shape ``(K, 2)``, fractions of the image."""
        with torch.no_grad():
            self.bias.copy_(shape.flatten())

    def points(self, raw: Tensor) -> Tensor:
        """Reshape the output ``(B, 2 K)`` to points ``(B, K, 2)``, fractions of the image."""
        return raw.unflatten(1, (self.num_points, 2))

    def loss(self, raw: Tensor, target: Tensor, visible: Tensor | None = None) -> Tensor:
        """Scalar loss of the output ``(B, 2 K)``.

        Args:
            raw: output of the head, ``(B, 2 K)``.
            target: true points ``(B, K, 2)``, fractions of the image.
            visible: mask ``(B, K)`` of the points that count; ``None`` counts all.
        """
        return self.compare(self.points(raw), target, visible)

    def mirrored(self, raw: Tensor, flip: Tensor) -> Tensor:
        """Convert the output for mirrored images to that for the images.

        Args:
            raw: output for the mirrored images, ``(B, 2 K)``.
            flip: indices ``(K,)``; ``flip[k]`` is the point that mirroring puts in place of ``k``.
        """
        points = self.points(raw)[:, flip]
        return torch.stack([1 - points[..., 0], points[..., 1]], dim=-1).flatten(1)
