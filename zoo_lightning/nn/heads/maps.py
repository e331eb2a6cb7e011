"""Head for maps of scores, from feature maps of one or several resolutions.

Its users decide what a map stands for: a point, or a class.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import Tensor, nn

from zoo_lightning.nn.fast.products import autocast_off

if TYPE_CHECKING:
    from collections.abc import Sequence

FINAL_STD = 0.001
"""Initial standard deviation of the last layer's weights, as in HRNet's code."""


class Fusion(nn.Module):
    """Fusion of feature maps of several resolutions at the finest resolution.

    HRNet's authors (Sun et al., CVPR 2019, section 3) upsample all maps to the finest one's size,
    concatenate them, and apply a 1×1 convolution, batch norm and ReLU. Here each map has a 1×1
    convolution at its own size, and the results are upsampled and added: the same function for
    less work, since both steps are linear.

    Args:
        channels: number of channels of each map.
        width: number of channels of the output.
    """

    def __init__(self, channels: Sequence[int], width: int) -> None:
        super().__init__()
        layers = [nn.Conv2d(c, width, 1, bias=False) for c in channels]
        for layer in layers:  # as for one convolution over the concatenated maps
            nn.init.normal_(layer.weight, std=1 / math.sqrt(sum(channels)))
        self.mix = nn.ModuleList(layers)
        self.norm = nn.BatchNorm2d(width)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Fuse maps ``(B, C_i, h_i, w_i)``, the finest first, to ``(B, width, h_0, w_0)``."""
        size = maps[0].shape[-2:]
        total = self.mix[0](maps[0])
        for layer, features in zip(self.mix[1:], maps[1:], strict=True):
            total = total + F.interpolate(layer(features), size, mode="bilinear")
        return F.relu(self.norm(total))


class Deconvolutions(nn.Sequential):
    """Upsampling by transposed convolutions (Xiao et al., *Simple Baselines*, 2018).

    Args:
        channels: number of channels of the input.
        width: number of channels of each stage.
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


class MapHead(nn.Module):
    """Head that maps a network's stages, or its last feature map, to maps of scores.

    Stages at least as coarse as ``stride`` are fused. A single map is upsampled by transposed
    convolutions, and so are the fused maps of a network whose stages all have one size, such as a
    ViT (as in ViTPose, Xu et al., NeurIPS 2022, section 3.1).

    Args:
        channels: number of channels of each feature map.
        reductions: pixels of the image that a cell of each feature map spans, ascending.
        num_maps: number of maps ``K``.
        stride: pixels of the image that a cell of a map of scores spans; the nearest finer stage is
            taken if no stage has it.
        width: number of channels between features and scores; ``None`` for the sum of the fused
            feature maps' channels (HRNet's choice), at most 256, or for 256 where a single map is
            upsampled. Not used for a single map that is not upsampled.
    """

    def __init__(
        self,
        channels: Sequence[int],
        reductions: Sequence[int],
        num_maps: int,
        stride: int = 4,
        width: int | None = None,
    ) -> None:
        super().__init__()
        # Stages that are finer than the scores are left out, unless none is coarse enough.
        used = [i for i, reduction in enumerate(reductions) if reduction >= stride]
        self.used = used or [len(reductions) - 1]
        if len(self.used) < len(reductions) and reductions[self.used[0]] > stride:
            self.used.insert(0, self.used[0] - 1)
        joined = [channels[i] for i in self.used]
        doublings = max(round(math.log2(reductions[self.used[0]] / stride)), 0)
        self.join: nn.Module
        self.upsample: nn.Module | None = None
        if len(joined) > 1:
            width = width or min(sum(joined), 256)
            self.join = Fusion(joined, width)
            if doublings and len(set(reductions)) == 1:
                self.upsample = Deconvolutions(width, width, doublings)
        else:
            width = (width or 256) if doublings else joined[0]
            self.join = Deconvolutions(joined[0], width, doublings)
        self.final = nn.Conv2d(width, num_maps, 1)
        nn.init.normal_(self.final.weight, std=FINAL_STD)
        if self.final.bias is not None:
            nn.init.zeros_(self.final.bias)

    def forward(self, features: Tensor | Sequence[Tensor]) -> Tensor:
        """Map a feature map ``(B, C, H, W)``, or a list of stages, to scores ``(B, K, h, w)``.

        The last layer ignores autocast: bfloat16 does not resolve the cells of a wide maximum.
        """
        if not isinstance(features, Tensor):
            maps = [features[i] for i in self.used]
            features = maps if isinstance(self.join, Fusion) else maps[0]
        joined = self.join(features)
        if self.upsample is not None:
            joined = self.upsample(joined)
        with autocast_off(joined.device):
            return self.final(joined.to(self.final.weight.dtype))
