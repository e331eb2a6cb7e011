"""``ZooConv2d``: a convolution whose kernel is aggregated from those of several sources."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from timm.layers import Conv2dSame, pad_same
from torch import Tensor, nn

from zoo_lightning.nn.aggregated import AggregatedLayer
from zoo_lightning.nn.reference import ConvGeometry

if TYPE_CHECKING:
    from collections.abc import Callable

    from zoo_lightning.nn.fast.planner import Request


class ZooConv2d(AggregatedLayer):
    """Aggregated convolution, in place of an ordinary one.

    Args:
        like: ordinary layer (``nn.Conv2d`` or timm's ``Conv2dSame``) with the channels, stride,
            padding, dilation and groups.
        weight: kernels of the sources, ``(m, C_out, C_in / g, kh, kw)``.
        bias: biases of the sources, ``(m, C_out)``, or ``None``.
        options: ``mode``, ``aligned``, ``gate_start``, ``plan``, ``gating`` of
            :class:`AggregatedLayer`.
    """

    def __init__(
        self, like: nn.Conv2d, weight: Tensor, bias: Tensor | None, **options: Any
    ) -> None:
        super().__init__(weight, bias, like.in_channels, like.groups, **options)
        self.pad, padding = padding_of(like)
        self.geometry = ConvGeometry(_pair(like.stride), padding, _pair(like.dilation), like.groups)

    def planned(self, x: Tensor, gates: Tensor, training: bool) -> Request:
        """Describe the layer and an input ``(B, C_in, H, W)`` for the planner."""
        return self.request(self.pad(x), gates, self.geometry, training)

    def pool(self, x: Tensor) -> Tensor:
        """Average the input ``(B, C_in, H, W)`` over its positions to ``(B, C_in)``."""
        return average_windows(self._pool_rows(x), self.count_samples(x))

    def _pool_rows(self, x: Tensor) -> Tensor:
        # Unlike a mean's, the gradient of a sum is not written out position by position. In half
        # precision a sum goes beyond the largest number that there is, 65,504.
        if x.dtype == torch.float16:
            total = x.sum(dim=(2, 3), dtype=torch.float32)
            return (total / (x.shape[2] * x.shape[3])).to(x.dtype)
        return x.sum(dim=(2, 3)) / (x.shape[2] * x.shape[3])

    def forward(self, x: Tensor) -> Tensor:
        """Convolve ``(B, C_in, H, W)`` to ``(B, C_out, H', W')``."""
        gates = self.gates(x)
        if gates.dim() == 2:
            gates = repeat_for_windows(gates, x.shape[0])
        return self.aggregated(self.pad(x), gates, self.geometry)


def average_windows(pooled: Tensor, samples: int) -> Tensor:
    """Average over the windows of each sample: ``(B w, C)`` to ``(B, C)``."""
    return pooled if pooled.shape[0] == samples else pooled.unflatten(0, (samples, -1)).mean(dim=1)


def repeat_for_windows(gates: Tensor, rows: int) -> Tensor:
    """Repeat the gates of each sample for its windows: ``(B, m)`` to ``(B w, m)``."""
    samples = gates.shape[0]
    return gates if samples == rows else gates.repeat_interleave(rows // samples, dim=0)


def padding_of(like: nn.Conv2d) -> tuple[Callable[[Tensor], Tensor], tuple[int, int]]:
    """Split the padding of an ordinary convolution into a function and a pair of integers.

    Args:
        like: ordinary convolution, with any padding that torch or timm has.

    Returns:
        A function that pads images ``(B, C, H, W)`` as far as ``conv2d`` cannot do it by a pair of
        integers, and that pair for the rest.
    """
    if isinstance(like, Conv2dSame):
        sizes = [list(_pair(each)) for each in (like.kernel_size, like.stride, like.dilation)]
        kernel_size, stride, dilation = sizes
        return partial(pad_same, kernel_size=kernel_size, stride=stride, dilation=dilation), (0, 0)
    if like.padding_mode == "zeros" and not isinstance(like.padding, str):
        return _no_padding, _pair(like.padding)
    mode = "constant" if like.padding_mode == "zeros" else like.padding_mode
    return partial(F.pad, pad=tuple(like._reversed_padding_repeated_twice), mode=mode), (0, 0)


def _no_padding(x: Tensor) -> Tensor:
    return x


def _pair(values: tuple[int, ...]) -> tuple[int, int]:
    vertical, horizontal = values
    return vertical, horizontal
