"""Heat maps of points from feature maps of several resolutions, or from one coarse map."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from zoo_lightning.errors import ConfigError
from zoo_lightning.heads.heatmap_codec import (
    DECODINGS,
    Decoding,
    encode_heatmaps,
    probabilities,
)
from zoo_lightning.heads.losses import COORDINATE_LOSSES, HEATMAP_LOSSES
from zoo_lightning.heads.maps import MapHead

if TYPE_CHECKING:
    from collections.abc import Sequence


class HeatmapHead(MapHead):
    """``K`` heat maps from feature maps, and points from heat maps.

    Args:
        channels: of each feature map.
        reductions: how many pixels of the image a cell of each feature map spans, rising.
        num_points: ``K``.
        loss: of coordinates (``l1``, ``smooth_l1``, ``wing``, ``mse``), which needs the decoding
            ``soft_argmax``, or of heat maps (``heatmap_mse``, ``adaptive_wing``).
        decode: ``soft_argmax``, ``argmax`` (moved a quarter of a cell) or ``taylor`` (moved to the
            top of a parabola).
        stride: pixels of the image that a cell of a heat map spans; the nearest finer stage is
            taken if no stage has it.
        sigma: of the Gaussian target, cells; also of the one that ``heatmap_weight`` is about.
        heatmap_weight: weight of the cross-entropy between a coordinate loss's maps and Gaussians
            around the true points, which keeps the maps narrow.
        width: channels between features and heat maps; ``None`` for as many as the fused features
            have together (HRNet's choice), at most 256.

    Raises:
        ConfigError: a loss that does not go with the decoding.
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
                f"loss {loss!r} is of coordinates, which only decode: soft_argmax can learn from; "
                f"with decode: {decode} use loss: {' or '.join(HEATMAP_LOSSES)}"
            )
        super().__init__(channels, reductions, num_points, stride, width)
        self.loss_name, self.decode = loss, decode
        self.sigma, self.heatmap_weight = sigma, heatmap_weight

    def points(self, raw: Tensor) -> Tensor:
        """Points ``(B, K, 2)``, fractions of the image, from the output ``(B, K, h, w)``."""
        return DECODINGS[self.decode](raw)

    def heatmaps(self, raw: Tensor) -> Tensor:
        """Maps to look at, at least 0: probabilities, or the maps that were learned."""
        return probabilities(raw) if self.decode == "soft_argmax" else raw.clamp(min=0)

    def loss(self, raw: Tensor, target: Tensor, visible: Tensor | None = None) -> Tensor:
        """Scalar loss of the output ``(B, K, h, w)``.

        Args:
            raw: output of the head.
            target: ``(B, K, 2)``, fractions of the image.
            visible: bool ``(B, K)``, the points that count.
        """
        size = tuple(raw.shape[-2:])
        if self.loss_name in HEATMAP_LOSSES:
            true = encode_heatmaps(target, size, self.sigma)
            return HEATMAP_LOSSES[self.loss_name](raw, true, visible)
        loss = COORDINATE_LOSSES[self.loss_name](self.points(raw), target, visible)
        if self.heatmap_weight:
            true = encode_heatmaps(target, size, self.sigma).flatten(2)
            inside = true.sum(-1) > 0.5  # a point outside the image has no map to be like
            counted = inside if visible is None else inside & visible
            shares = true / true.sum(-1, keepdim=True).clamp(min=0.5)
            entropy = -(shares * raw.flatten(2).log_softmax(dim=-1)).sum(-1)
            loss = loss + self.heatmap_weight * torch.where(counted, entropy, 0.0).sum() / (
                counted.sum().clamp(min=1)
            )
        return loss

    def mirrored(self, raw: Tensor, flip: Tensor) -> Tensor:
        """Output for the image, from the output for its mirror image.

        Args:
            raw: ``(B, K, h, w)``.
            flip: ``(K,)``; ``flip[k]`` is the point that takes the place of point ``k``.
        """
        return raw.flip(-1)[:, flip]
