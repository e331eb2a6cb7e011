"""``ZooLinear``: a linear layer whose matrix is aggregated from those of several sources."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch.nn.functional as F
from torch import Tensor, nn

from zoo_lightning.layers.aggregated import AggregatedLayer
from zoo_lightning.layers.per_sample import ConvGeometry

if TYPE_CHECKING:
    from zoo_lightning.layers.planner import Request


class ZooLinear(AggregatedLayer):
    """Aggregated linear layer, in place of an ordinary one inside a backbone.

    Args:
        like: the ordinary layer. Where its input is a flattened map, an attribute ``positions`` of
            it says of how many positions; the gate then sees the channels' averages over them.
        weight: ``(m, out, in)``.
        bias: ``(m, out)`` or ``None``.
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
        """Average over all but batch and channels: ``(B, ..., in)`` to ``(B, in / positions)``."""
        return pool_channels(x, self.positions)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, ..., in)`` to ``(B, ..., out)``; the gates see the average over the middle."""
        gates = self.gates(x)
        if gates.dim() == 1:
            return F.linear(x, *self.kernel(gates))
        y = self.aggregated(self._as_image(x), gates, ConvGeometry())
        return y.flatten(2).transpose(1, 2).reshape(*x.shape[:-1], -1)

    def planned(self, x: Tensor, gates: Tensor, training: bool) -> Request:
        """What the layer asks of the planner for an input ``(B, ..., in)``."""
        return self.request(self._as_image(x), gates, ConvGeometry(), training)

    def _as_image(self, x: Tensor) -> Tensor:
        """``(B, ..., in)`` as ``(B, in, L, 1)``: a linear map is a 1×1 convolution."""
        return x.reshape(len(x), -1, x.shape[-1]).transpose(1, 2)[..., None]


def pool_channels(x: Tensor, positions: int) -> Tensor:
    """Average ``(B, ..., in)`` over the middle and over a flattened map's positions.

    Args:
        x: with channels of ``positions`` neighbouring values each.
        positions: of the map that was flattened; 1 where there was none.

    Returns:
        ``(B, in / positions)``.
    """
    x = x.flatten(1, -2).mean(dim=1) if x.dim() > 2 else x
    return x.unflatten(-1, (-1, positions)).mean(dim=-1) if positions > 1 else x
