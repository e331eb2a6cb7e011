"""Heat maps of points from feature maps of several resolutions, or from one coarse map."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo_lightning.errors import ConfigError
from zoo_lightning.heads.heatmap_codec import (
    DECODINGS,
    Decoding,
    encode_heatmaps,
    probabilities,
)
from zoo_lightning.heads.losses import COORDINATE_LOSSES, HEATMAP_LOSSES

if TYPE_CHECKING:
    from collections.abc import Sequence

FINAL_STD = 0.001
"""Standard deviation of the last layer's weights, as HRNet's authors start it."""


class Fusion(nn.Module):
    """Feature maps of several resolutions joined at the finest of them.

    What HRNet's authors do for landmarks (Sun et al., CVPR 2019, section 3): all maps are
    enlarged to the finest one's size, joined, and mixed by a 1×1 convolution with batch norm and
    ReLU. A 1×1 convolution of joined maps is the sum of 1×1 convolutions of each, and enlarging
    changes nothing of that, so here each map is mixed at its own size and the results are
    enlarged and added: the same function for less work.

    Args:
        channels: of each map.
        width: channels of the result.
    """

    def __init__(self, channels: Sequence[int], width: int) -> None:
        super().__init__()
        self.mix = nn.ModuleList(nn.Conv2d(c, width, 1, bias=False) for c in channels)
        for layer in self.mix:  # as one convolution over the joined maps would start
            nn.init.normal_(layer.weight, std=1 / math.sqrt(sum(channels)))
        self.norm = nn.BatchNorm2d(width)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Maps ``(B, C_i, h_i, w_i)``, the finest first, to ``(B, width, h_0, w_0)``."""
        size = maps[0].shape[-2:]
        total = self.mix[0](maps[0])
        for layer, features in zip(self.mix[1:], maps[1:], strict=True):
            total = total + F.interpolate(layer(features), size, mode="bilinear")
        return F.relu(self.norm(total))


class Deconvolutions(nn.Sequential):
    """A coarse map enlarged by transposed convolutions (Xiao et al., *Simple Baselines*, 2018).

    Args:
        channels: of the map.
        width: of each stage.
        doublings: number of stages, each of which doubles height and width.
    """

    def __init__(self, channels: int, width: int, doublings: int) -> None:
        layers: list[nn.Module] = []
        for _ in range(doublings):
            layers += [
                nn.ConvTranspose2d(channels, width, 4, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(),
            ]
            channels = width
        super().__init__(*layers)
        for layer in self:
            if isinstance(layer, nn.ConvTranspose2d):
                nn.init.normal_(layer.weight, std=FINAL_STD)


class HeatmapHead(nn.Module):
    """``K`` heat maps from feature maps, and points from heat maps.

    From a network's stages, those at least as coarse as ``stride`` are fused; from a single map,
    it is enlarged by transposed convolutions.

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
        super().__init__()
        if loss in COORDINATE_LOSSES and decode != "soft_argmax":
            raise ConfigError(
                f"loss {loss!r} is of coordinates, which only decode: soft_argmax can learn from; "
                f"with decode: {decode} use loss: {' or '.join(HEATMAP_LOSSES)}"
            )
        self.loss_name, self.decode = loss, decode
        self.sigma, self.heatmap_weight = sigma, heatmap_weight
        # Stages that are finer than the heat maps are left out, unless none is coarse enough.
        used = [i for i, reduction in enumerate(reductions) if reduction >= stride]
        self.used = used or [len(reductions) - 1]
        if len(self.used) < len(reductions) and reductions[self.used[0]] > stride:
            self.used.insert(0, self.used[0] - 1)
        joined = [channels[i] for i in self.used]
        self.join: nn.Module
        if len(joined) > 1:
            width = width or min(sum(joined), 256)
            self.join = Fusion(joined, width)
        else:
            doublings = max(round(math.log2(reductions[self.used[0]] / stride)), 0)
            width = (width or 256) if doublings else joined[0]
            self.join = Deconvolutions(joined[0], width, doublings)
        self.final = nn.Conv2d(width, num_points, 1)
        nn.init.normal_(self.final.weight, std=FINAL_STD)
        nn.init.zeros_(self.final.bias)

    def forward(self, features: Tensor | Sequence[Tensor]) -> Tensor:
        """Scores ``(B, K, h, w)`` from a feature map or a network's stages."""
        if isinstance(features, Tensor):
            return self.final(self.join(features))
        maps = [features[i] for i in self.used]
        return self.final(self.join(maps if isinstance(self.join, Fusion) else maps[0]))

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
