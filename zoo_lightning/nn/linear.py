"""``ZooLinear``: a linear layer whose matrix is aggregated from those of several sources."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch.nn.functional as F
from torch import Tensor, nn

from zoo_lightning.nn.aggregated import AggregatedLayer
from zoo_lightning.nn.reference import REFERENCE, ConvGeometry

if TYPE_CHECKING:
    from zoo_lightning.nn.fast.planner import Request


class ZooLinear(AggregatedLayer):
    """Aggregated linear layer, in place of an ordinary one inside a backbone.

    Args:
        like: ordinary layer. If its input is a flattened feature map, its attribute ``positions``
            (default 1) must be the number of the map's positions; the gate's input is then the
            average of each channel over them.
        weight: matrices of the sources, ``(m, out, in)``.
        bias: biases of the sources, ``(m, out)``, or ``None``.
        options: ``mode``, ``aligned``, ``gate_start``, ``plan``, ``gating`` of
            :class:`AggregatedLayer`.
    """

    def __init__(
        self, like: nn.Linear, weight: Tensor, bias: Tensor | None, **options: Any
    ) -> None:
        positions = getattr(like, "positions", 1)
        super().__init__(weight, bias, like.in_features // positions, **options)
        self.positions = positions

    def pool(self, x: Tensor) -> Tensor:
        """Average the input ``(B, ..., in)`` over its positions to ``(B, in / positions)``."""
        return pool_channels(join_windows(x, self.count_samples(x)), self.positions)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, ..., in)`` to ``(B, ..., out)``; gates use the average over middle axes."""
        gates = self.gates(x)
        if gates.dim() == 1 and self.plan != REFERENCE:
            return F.linear(x, *self.kernel(gates))
        y = self.aggregated(self._as_image(x), gates, ConvGeometry())
        return y.flatten(2).transpose(1, 2).reshape(*x.shape[:-1], -1)

    def planned(self, x: Tensor, gates: Tensor, training: bool) -> Request:
        """Describe the layer and an input ``(B, ..., in)`` for the planner."""
        return self.request(self._as_image(x), gates, ConvGeometry(), training)

    def _as_image(self, x: Tensor) -> Tensor:
        """Bring ``(B, ..., in)`` to ``(B, in, L, 1)``: a linear map is a 1×1 convolution."""
        return x.reshape(self.count_samples(x), -1, x.shape[-1]).transpose(1, 2)[..., None]


def join_windows(x: Tensor, samples: int) -> Tensor:
    """Join the windows of each sample: ``(B w, ..., in)`` to ``(B, w ..., in)``.

    Args:
        x: input of a linear layer.
        samples: number of samples ``B``.
    """
    return x if x.shape[0] == samples else x.reshape(samples, -1, x.shape[-1])


def pool_channels(x: Tensor, positions: int) -> Tensor:
    """Average ``(B, ..., in)`` over the middle axes and over a flattened map's positions.

    Args:
        x: input, ``(B, ..., in)``, with ``positions`` neighbouring values of each channel.
        positions: number of positions of the map that was flattened; 1 where there was none.

    Returns:
        Average of each channel, ``(B, in / positions)``.
    """
    x = x.flatten(1, -2).mean(dim=1) if x.dim() > 2 else x
    return x.unflatten(-1, (-1, positions)).mean(dim=-1) if positions > 1 else x
