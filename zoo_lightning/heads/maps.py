"""Maps of scores, one for each output, from feature maps of several resolutions or from one.

What the maps mean, points or classes, is for a head's user to say.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import Tensor, nn

from zoo_lightning.layers.products import autocast_off

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


class MapHead(nn.Module):
    """Maps of scores from a network's stages or from its last feature map.

    From stages, those at least as coarse as ``stride`` are fused; a single map is enlarged by
    transposed convolutions.

    Args:
        channels: of each feature map.
        reductions: how many pixels of the image a cell of each feature map spans, rising.
        num_maps: ``K``.
        stride: pixels of the image that a cell of a map of scores spans; the nearest finer stage is
            taken if no stage has it.
        width: channels between features and scores; ``None`` for as many as the fused features
            have together (HRNet's choice), at most 256.
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
        self.join: nn.Module
        if len(joined) > 1:
            width = width or min(sum(joined), 256)
            self.join = Fusion(joined, width)
        else:
            doublings = max(round(math.log2(reductions[self.used[0]] / stride)), 0)
            width = (width or 256) if doublings else joined[0]
            self.join = Deconvolutions(joined[0], width, doublings)
        self.final = nn.Conv2d(width, num_maps, 1)
        nn.init.normal_(self.final.weight, std=FINAL_STD)
        nn.init.zeros_(self.final.bias)

    def forward(self, features: Tensor | Sequence[Tensor]) -> Tensor:
        """Scores ``(B, K, h, w)`` in the weights' type, from a feature map or a network's stages.

        Also under autocast: bfloat16 cannot tell neighbouring cells of a wide maximum apart.
        """
        if not isinstance(features, Tensor):
            maps = [features[i] for i in self.used]
            features = maps if isinstance(self.join, Fusion) else maps[0]
        joined = self.join(features)
        with autocast_off(joined.device):
            return self.final(joined.to(self.final.weight.dtype))
