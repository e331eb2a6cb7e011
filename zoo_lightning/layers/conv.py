"""``ZooConv2d``: a convolution whose kernel is aggregated from those of several sources."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch.nn.functional as F
from timm.layers import Conv2dSame, pad_same
from torch import Tensor, nn

from zoo_lightning.layers.aggregated import AggregatedLayer
from zoo_lightning.layers.per_sample import ConvGeometry

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zoo_lightning.layers.planner import Request


class ZooConv2d(AggregatedLayer):
    """Aggregated convolution, in place of an ordinary one.

    Args:
        like: the ordinary layer (``nn.Conv2d`` or timm's ``Conv2dSame``) whose channels, stride,
            padding, dilation and groups it takes over.
        weight: ``(m, C_out, C_in / g, kh, kw)``.
        bias: ``(m, C_out)`` or ``None``.
        options: ``mode``, ``aligned``, ``gate_start``, ``plan`` of :class:`AggregatedLayer`.
    """

    def __init__(
        self, like: nn.Conv2d, weight: Tensor, bias: Tensor | None, **options: Any
    ) -> None:
        super().__init__(weight, bias, like.in_channels, like.groups, **options)
        self.kernel_size = like.kernel_size
        self.padding_mode = like.padding_mode
        self.dynamic_same = isinstance(like, Conv2dSame)
        # What conv2d cannot pad by a pair of integers is padded beforehand.
        numeric = like.padding_mode == "zeros" and not isinstance(like.padding, str)
        self.explicit_padding: Sequence[int] | None = None
        if not numeric:
            self.explicit_padding = tuple(like._reversed_padding_repeated_twice)
        padding = like.padding if numeric and not self.dynamic_same else (0, 0)
        self.geometry = ConvGeometry(like.stride, tuple(padding), like.dilation, like.groups)

    def planned(self, x: Tensor, gates: Tensor, training: bool) -> Request:
        """What the layer asks of the planner for an input ``(B, C_in, H, W)``."""
        return self.request(self._pad(x), gates, self.geometry, training)

    def _pad(self, x: Tensor) -> Tensor:
        if self.dynamic_same:
            return pad_same(x, self.kernel_size, self.geometry.stride, self.geometry.dilation)
        if self.explicit_padding is None:
            return x
        mode = "constant" if self.padding_mode == "zeros" else self.padding_mode
        return F.pad(x, self.explicit_padding, mode=mode)

    def pool(self, x: Tensor) -> Tensor:
        """Average over the map: ``(B, C_in, H, W)`` to ``(B, C_in)``."""
        # Unlike a mean's, the gradient of a sum is not written out position by position.
        return x.sum(dim=(2, 3)) / (x.shape[2] * x.shape[3])

    def forward(self, x: Tensor) -> Tensor:
        """Convolve ``(B, C_in, H, W)`` to ``(B, C_out, H', W')``."""
        gates = self.gates(x)
        return self.aggregated(self._pad(x), gates, self.geometry)
