"""Gates: how much each source counts in one layer (Zoo-Tuning, Shu et al. 2021, section 3.3).

A gate looks at the layer's input and gives every source a weight in (0, 1), independently of the
other sources: a sigmoid, not a softmax. Letters: ``B`` batch, ``C`` channels, ``m`` sources.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

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
                self.expand.bias.copy_(self.before_squashing(torch.tensor(start)))

    @staticmethod
    def squash(scores: Tensor) -> Tensor:
        """Scores ``(..., m)`` to gates."""
        return torch.sigmoid(scores)

    @staticmethod
    def before_squashing(gates: Tensor) -> Tensor:
        """Scores that give these gates."""
        return torch.logit(gates)

    def initial(self) -> Tensor:
        """Gates for an input of zeros: ``(m,)``, what the layer starts from."""
        return self.squash(self.expand.bias.detach())

    def forward(self, x: Tensor) -> Tensor:
        """Gates ``(B, m)`` in float32 from the layer's globally averaged input ``(B, C)``."""
        hidden = torch.relu(self.reduce(x))
        return self.squash(self.expand(hidden).float())


class SoftmaxGate(Gate):
    """A gate whose values sum to one, so that sources compete: an ablation.

    As in dynamic convolution (Chen et al., CVPR 2020, equation 2). A start is brought to a sum of
    one.
    """

    @staticmethod
    def squash(scores: Tensor) -> Tensor:
        """Scores ``(..., m)`` to gates."""
        return scores.softmax(dim=-1)

    @staticmethod
    def before_squashing(gates: Tensor) -> Tensor:
        """Scores that give these gates' shares."""
        return gates.log()


class ConstantGate(nn.Module):
    """Learned weights of the sources that do not look at the input: an ablation.

    Args:
        in_channels: of the layer's input; of no use here.
        num_sources: ``m``.
        start: as :class:`Gate` has it; ``None`` is 0.5 for all, the middle of the authors' start.
    """

    def __init__(
        self, in_channels: int, num_sources: int, start: Sequence[float] | None = None
    ) -> None:
        super().__init__()
        gates = torch.full((num_sources,), 0.5) if start is None else torch.tensor(start)
        self.scores = nn.Parameter(torch.logit(gates))

    def initial(self) -> Tensor:
        """Gates ``(m,)``."""
        return torch.sigmoid(self.scores.detach())

    def forward(self, x: Tensor) -> Tensor:
        """The same gates for every sample of ``(B, C)``: ``(B, m)``, float32."""
        return torch.sigmoid(self.scores.float()).expand(x.shape[0], -1)


class SharedGate(Gate):
    """A gate whose values other layers take over: an ablation, see :func:`share_gate`.

    Attributes:
        latest: what the last pass gave, ``(B, m)``.
    """

    latest: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """As :class:`Gate`, and keep it for the followers."""
        self.latest = super().forward(x)
        return self.latest

    def __getstate__(self) -> dict[str, Any]:
        """Without the last pass, which cannot be copied while gradients hang on it."""
        return {**super().__getstate__(), "latest": None}


class FollowingGate(nn.Module):
    """The gates that another layer's gate gave in the same pass.

    Args:
        leader: of a layer that runs earlier.
    """

    def __init__(self, leader: SharedGate) -> None:
        super().__init__()
        self._leader = (leader,)  # in a tuple, so that its parameters are not also this one's

    def initial(self) -> Tensor:
        """Gates ``(m,)``."""
        return self._leader[0].initial()

    def forward(self, x: Tensor) -> Tensor:
        """Gates ``(B, m)``, whatever the layer's input is."""
        return self._leader[0].latest


Gating = Literal["sigmoid", "softmax", "constant", "shared"]

GATES: dict[str, type[Gate | ConstantGate]] = {
    "sigmoid": Gate,
    "softmax": SoftmaxGate,
    "constant": ConstantGate,
    "shared": SharedGate,
}


def share_gate(layers: Sequence[Any]) -> None:
    """Let all layers from the second on take the second one's gates.

    The first one keeps its own: it sees pixels, whose channels' averages say little of an image,
    and a gate for all layers should have a fair chance.

    Args:
        layers: aggregated layers with shared gates, in the order in which they run.
    """
    for layer in layers[2:]:
        layer.gate = FollowingGate(layers[1].gate)
