"""Gates: how much each source counts in one layer (Zoo-Tuning, Shu et al. 2021, section 3.3).

A gate looks at the layer's input and gives every source a weight in (0, 1), independently of the
other sources: a sigmoid, not a softmax. Letters: ``B`` batch, ``C`` channels, ``m`` sources.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce

if TYPE_CHECKING:
    from collections.abc import Sequence

REDUCTION = 4
"""The hidden layer of a gate has ``C // REDUCTION + 1`` units, as in the authors' code."""


def batch_average(gates: Tensor) -> Tensor:
    """Average gates over the batch of all processes; gradients flow back to every process.

    With the average taken over all processes, lite training on several devices is training of one
    device on the joint batch, whatever the devices' shares of it.

    Args:
        gates: ``(B, m)``, this process's share.

    Returns:
        ``(m,)``.
    """
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return gates.mean(dim=0)
    share = torch.cat([gates.sum(dim=0), gates.new_tensor([float(len(gates))])])
    joint = all_reduce(share)
    return joint[:-1] / joint[-1].detach()


class Gate(nn.Module):
    """``a(x) = sigmoid(W2 relu(W1 GAP(x)) + b2)``, one value in (0, 1) for each source.

    Args:
        in_channels: channels ``C`` of the layer's input.
        num_sources: ``m``.
        start: the gates before training, ``m`` numbers in (0, 1), the same for every input; or
            ``None`` for the start of the authors' code, Kaiming-normal weights (fan-out) and zero
            bias, with which gates are scattered around 0.5.
    """

    def __init__(
        self, in_channels: int, num_sources: int, start: Sequence[float] | None = None
    ) -> None:
        super().__init__()
        hidden = in_channels // REDUCTION + 1
        self.reduce = nn.Linear(in_channels, hidden, bias=False)
        self.expand = nn.Linear(hidden, num_sources)
        nn.init.kaiming_normal_(self.reduce.weight, mode="fan_out", nonlinearity="relu")
        nn.init.kaiming_normal_(self.expand.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(self.expand.bias)
        if start is not None:
            # With no weight on the input the start is exact; the weights learn from there, since
            # their own gradient does not vanish with them.
            nn.init.zeros_(self.expand.weight)
            with torch.no_grad():
                self.expand.bias.copy_(torch.tensor([math.log(a / (1 - a)) for a in start]))

    def initial(self) -> Tensor:
        """Gates for an input of zeros: ``(m,)``, what the layer starts from."""
        return torch.sigmoid(self.expand.bias.detach())

    def forward(self, x: Tensor) -> Tensor:
        """Gates ``(B, m)`` in float32 from the layer's globally averaged input ``(B, C)``."""
        hidden = torch.relu(self.reduce(x))
        return torch.sigmoid(self.expand(hidden).float())
