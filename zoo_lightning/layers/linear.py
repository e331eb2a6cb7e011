"""``ZooLinear``: a linear layer whose matrix is aggregated from those of several sources."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo_lightning.layers.aggregated import AggregatedLayer
from zoo_lightning.layers.aggregation import mix


class ZooLinear(AggregatedLayer):
    """Aggregated linear layer, in place of an ordinary one inside a backbone.

    Args:
        like: the ordinary layer.
        weight: ``(m, out, in)``.
        bias: ``(m, out)`` or ``None``.
        options: ``mode``, ``aligned``, ``gate_start`` of :class:`AggregatedLayer`.
    """

    def __init__(
        self, like: nn.Linear, weight: Tensor, bias: Tensor | None, **options: Any
    ) -> None:
        super().__init__(weight, bias, like.in_features, **options)

    def pool(self, x: Tensor) -> Tensor:
        """Average over all but batch and channels: ``(B, ..., in)`` to ``(B, in)``."""
        return x.flatten(1, -2).mean(dim=1) if x.dim() > 2 else x

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, ..., in)`` to ``(B, ..., out)``; the gates see the average over the middle."""
        gates = self.gates(x)
        if gates.dim() == 1:
            return F.linear(x, *self.kernel(gates))
        with torch.autocast(x.device.type, enabled=False):
            weight, bias = self.aligned_weight()
        # Every source's output, then mixed: a product per source is cheaper than a matrix per
        # sample, which would be written once and read once.
        outputs = torch.einsum("b...c,moc->bm...o", x, weight.to(x.dtype))
        y = torch.einsum("bm...o,bm->b...o", outputs, gates.to(outputs.dtype))
        if bias is None:
            return y
        mixed = mix(bias, gates).to(y.dtype)
        return y + mixed.reshape(len(mixed), *[1] * (y.dim() - 2), -1)
