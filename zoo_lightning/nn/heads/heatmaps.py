"""Heat maps of points from feature maps of several resolutions, or from one coarse map."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from zoo_lightning.errors import ConfigError
from zoo_lightning.nn.heads.heatmap_codec import (
    DECODINGS,
    Decoding,
    encode_heatmaps,
    probabilities,
)
from zoo_lightning.nn.heads.losses import COORDINATE_LOSSES, HEATMAP_LOSSES
from zoo_lightning.nn.heads.maps import MapHead

if TYPE_CHECKING:
    from collections.abc import Sequence


class HeatmapHead(MapHead):
    """Head that predicts a heat map for each of ``K`` points and decodes heat maps to points.

    Args:
        channels: number of channels of each feature map.
        reductions: pixels of the image that a cell of each feature map spans, ascending.
        num_points: number of points ``K``.
        loss: loss of coordinates (``l1``, ``smooth_l1``, ``wing``, ``mse``), which needs the
            decoding ``soft_argmax``, or of heat maps (``heatmap_mse``, ``adaptive_wing``).
        decode: ``soft_argmax``, ``argmax`` (moved a quarter of a cell) or ``taylor`` (moved to the
            top of a parabola).
        stride: pixels of the image that a cell of a heat map spans; the nearest finer stage is
            taken if no stage has it.
        sigma: standard deviation of the Gaussians around the true points, in cells; for heat map
            losses and for ``heatmap_weight``.
        heatmap_weight: weight of the cross-entropy between a coordinate loss's maps and Gaussians
            around the true points, which keeps the maps narrow.
        width: number of channels between features and heat maps; ``None`` for the sum of the fused
            feature maps' channels (HRNet's choice), at most 256, or for 256 where a single map is
            upsampled. Not used for a single map that is not upsampled.

    Raises:
        ConfigError: the loss cannot be used with the decoding.
    """

    def __init__(
        self,
        channels: Sequence[int],
        reductions: Sequence[int],
        num_points: int,
        loss: str = "wing",
        decode: Decoding = "soft_argmax",
        stride: int = 4,
        sigma: float = 1.5,
        heatmap_weight: float = 0.0,
        width: int | None = None,
    ) -> None:
        if loss in COORDINATE_LOSSES and decode != "soft_argmax":
            raise ConfigError(
                f"loss {loss!r} compares coordinates, which needs decode: soft_argmax; "
                f"with decode: {decode} use loss: {' or '.join(HEATMAP_LOSSES)}"
            )
        super().__init__(channels, reductions, num_points, stride, width)
        self.loss_name, self.decode = loss, decode
        self.sigma, self.heatmap_weight = sigma, heatmap_weight

    def points(self, raw: Tensor) -> Tensor:
        """Decode the output ``(B, K, h, w)`` to points ``(B, K, 2)``, fractions of the image."""
        return DECODINGS[self.decode](raw)

    def heatmaps(self, raw: Tensor) -> Tensor:
        """Heat maps for display, at least 0: probabilities, or the output clamped at 0."""
        return probabilities(raw) if self.decode == "soft_argmax" else raw.clamp(min=0)

    def loss(self, raw: Tensor, target: Tensor, visible: Tensor | None = None) -> Tensor:
        """Scalar loss of the output ``(B, K, h, w)``.

        Args:
            raw: output of the head, ``(B, K, h, w)``.
            target: true points ``(B, K, 2)``, fractions of the image.
            visible: mask ``(B, K)`` of the points that count; ``None`` counts all.
        """
        size = raw.shape[-2], raw.shape[-1]
        if self.loss_name in HEATMAP_LOSSES:
            true = encode_heatmaps(target, size, self.sigma)
            return HEATMAP_LOSSES[self.loss_name](raw, true, visible)
        loss = COORDINATE_LOSSES[self.loss_name](self.points(raw), target, visible)
        if self.heatmap_weight:
            true = encode_heatmaps(target, size, self.sigma).flatten(2)
            inside = true.sum(-1) > 0.5  # a point outside the image has no Gaussian
            counted = inside if visible is None else inside & visible
            shares = true / true.sum(-1, keepdim=True).clamp(min=0.5)
            entropy = -(shares * raw.flatten(2).log_softmax(dim=-1)).sum(-1)
            loss = loss + self.heatmap_weight * torch.where(counted, entropy, 0.0).sum() / (
                counted.sum().clamp(min=1)
            )
        return loss

    def mirrored(self, raw: Tensor, flip: Tensor) -> Tensor:
        """Convert the output for mirrored images to that for the images.

        Args:
            raw: output for the mirrored images, ``(B, K, h, w)``.
            flip: indices ``(K,)``; ``flip[k]`` is the point that mirroring puts in place of ``k``.
        """
        return raw.flip(-1)[:, flip]
