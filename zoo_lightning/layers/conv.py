"""``ZooConv2d``: a convolution whose kernel is aggregated from those of several sources."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from timm.layers import Conv2dSame, pad_same
from torch import Tensor, nn

from zoo_lightning.layers.aggregated import AggregatedLayer
from zoo_lightning.layers.per_sample import ConvGeometry

if TYPE_CHECKING:
    from collections.abc import Callable

    from zoo_lightning.layers.planner import Request


class ZooConv2d(AggregatedLayer):
    """Aggregated convolution, in place of an ordinary one.

    Args:
        like: the ordinary layer (``nn.Conv2d`` or timm's ``Conv2dSame``) whose channels, stride,
            padding, dilation and groups it takes over.
        weight: ``(m, C_out, C_in / g, kh, kw)``.
        bias: ``(m, C_out)`` or ``None``.
        options: ``mode``, ``aligned``, ``gate_start``, ``plan``, ``gating`` of
            :class:`AggregatedLayer`.
    """

    def __init__(
        self, like: nn.Conv2d, weight: Tensor, bias: Tensor | None, **options: Any
    ) -> None:
        super().__init__(weight, bias, like.in_channels, like.groups, **options)
        self.pad, padding = padding_of(like)
        self.geometry = ConvGeometry(like.stride, padding, like.dilation, like.groups)

    def planned(self, x: Tensor, gates: Tensor, training: bool) -> Request:
        """What the layer asks of the planner for an input ``(B, C_in, H, W)``."""
        return self.request(self.pad(x), gates, self.geometry, training)

    def pool(self, x: Tensor) -> Tensor:
        """Average over the map: ``(B, C_in, H, W)`` to ``(B, C_in)``."""
        # Unlike a mean's, the gradient of a sum is not written out position by position. In half
        # precision a sum goes beyond the largest number that there is, 65,504.
        if x.dtype == torch.float16:
            total = x.sum(dim=(2, 3), dtype=torch.float32)
            return (total / (x.shape[2] * x.shape[3])).to(x.dtype)
        return x.sum(dim=(2, 3)) / (x.shape[2] * x.shape[3])

    def forward(self, x: Tensor) -> Tensor:
        """Convolve ``(B, C_in, H, W)`` to ``(B, C_out, H', W')``."""
        gates = self.gates(x)
        return self.aggregated(self.pad(x), gates, self.geometry)


def padding_of(like: nn.Conv2d) -> tuple[Callable[[Tensor], Tensor], tuple[int, int]]:
    """How an ordinary convolution pads.

    Returns:
        A function that pads images ``(B, C, H, W)`` as far as ``conv2d`` cannot do it by a pair of
        integers, and that pair for the rest.
    """
    if isinstance(like, Conv2dSame):
        options = {"kernel_size": like.kernel_size, "stride": like.stride}
        return partial(pad_same, **options, dilation=like.dilation), (0, 0)
    if like.padding_mode == "zeros" and not isinstance(like.padding, str):
        return _as_it_is, tuple(like.padding)
    mode = "constant" if like.padding_mode == "zeros" else like.padding_mode
    return partial(F.pad, pad=tuple(like._reversed_padding_repeated_twice), mode=mode), (0, 0)


def _as_it_is(x: Tensor) -> Tensor:
    return x
