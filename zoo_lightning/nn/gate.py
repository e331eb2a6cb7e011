"""Gates: how much each source counts in one layer (Zoo-Tuning, Shu et al. 2021, section 3.3).

A gate maps the layer's input to a weight in (0, 1) for every source, independently of the other
sources: a sigmoid, not a softmax. Letters: ``B`` batch, ``C`` channels, ``m`` sources.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Sequence

REDUCTION = 4
"""The hidden layer of a gate has ``C // REDUCTION + 1`` units, as in the authors' code."""


def batch_average(gates: Tensor) -> Tensor:
    """Average gates over the batches of all processes; gradients flow back to every process.

    Lite training on several devices thus equals training on one device with the joint batch, even
    if the devices' batches differ in size.

    Args:
        gates: gates of this process's batch, ``(B, m)``.

    Returns:
        Average gates, ``(m,)``.
    """
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return gates.mean(dim=0)
    share = torch.cat([gates.sum(dim=0), gates.new_full((1,), float(len(gates)))])
    joint: Any = _SumOverProcesses.apply(share)
    return joint[:-1] / joint[-1].detach()


class _SumOverProcesses(torch.autograd.Function):
    """Sum over all processes, forward and of the gradients; compilers can trace it."""

    @staticmethod
    def forward(ctx: Any, share: Tensor) -> Tensor:
        return _summed(share)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return _summed(grad)


def _summed(share: Tensor) -> Tensor:
    total = share.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total)
    return total


class Gate(nn.Module):
    """Sigmoid gate ``a(x) = sigmoid(W2 relu(W1 GAP(x)) + b2)``, one value for each source.

    Args:
        in_channels: number of channels ``C`` of the layer's input.
        num_sources: number of sources ``m``.
        start: initial gates, ``m`` numbers in (0, 1), the same for every input; ``None`` for the
            authors' initialisation, Kaiming-normal weights (fan-out) and zero bias, with which
            gates are scattered around 0.5.
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
            # With no weight on the input the gates are exact; the weights still learn, since their
            # own gradient does not vanish with them.
            nn.init.zeros_(self.expand.weight)
            with torch.no_grad():
                self.expand.bias.copy_(self.before_squashing(torch.tensor(start)))

    @staticmethod
    def squash(scores: Tensor) -> Tensor:
        """Map scores ``(..., m)`` to gates in (0, 1)."""
        return torch.sigmoid(scores)

    @staticmethod
    def before_squashing(gates: Tensor) -> Tensor:
        """Map gates in (0, 1) to scores, the inverse of :meth:`squash`."""
        return torch.logit(gates)

    def initial(self) -> Tensor:
        """Gates for an input of zeros, ``(m,)``, with which ``gate_ema`` is initialised."""
        return self.squash(self.expand.bias.detach())

    def forward(self, x: Tensor) -> Tensor:
        """Map the layer's average input ``(B, C)`` to gates ``(B, m)`` in float32."""
        hidden = torch.relu(self.reduce(x))
        return self.squash(self.expand(hidden).float())


class SoftmaxGate(Gate):
    """Softmax gate, whose values sum to one, so that sources compete: an ablation.

    As in dynamic convolution (Chen et al., CVPR 2020, equation 2). ``start`` is divided by its sum.
    """

    @staticmethod
    def squash(scores: Tensor) -> Tensor:
        """Map scores ``(..., m)`` to gates that sum to one."""
        return scores.softmax(dim=-1)

    @staticmethod
    def before_squashing(gates: Tensor) -> Tensor:
        """Map gates above 0 to scores whose softmax is the gates divided by their sum."""
        return gates.log()


class ConstantGate(nn.Module):
    """Gate with one learned value for each source, whatever the input: an ablation.

    Args:
        in_channels: number of channels of the layer's input; not used.
        num_sources: number of sources ``m``.
        start: initial gates, ``m`` numbers in (0, 1); ``None`` for 0.5 for all sources.
    """

    def __init__(
        self, in_channels: int, num_sources: int, start: Sequence[float] | None = None
    ) -> None:
        super().__init__()
        gates = torch.full((num_sources,), 0.5) if start is None else torch.tensor(start)
        self.scores = nn.Parameter(torch.logit(gates))

    def initial(self) -> Tensor:
        """Current gates, ``(m,)``."""
        return torch.sigmoid(self.scores.detach())

    def forward(self, x: Tensor) -> Tensor:
        """Repeat the gates for every sample of ``(B, C)``: ``(B, m)``, float32."""
        return torch.sigmoid(self.scores.float()).expand(x.shape[0], -1)


class SharedGate(Gate):
    """Sigmoid gate whose values other layers use as well: an ablation, see :func:`share_gate`.

    Attributes:
        latest: gates of the last forward pass, ``(B, m)``.
    """

    latest: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C)`` to gates ``(B, m)`` as :class:`Gate` does, and store them."""
        gates = super().forward(x)
        self.latest = gates
        return gates

    def __getstate__(self) -> dict[str, Any]:
        """State without the stored gates, which cannot be copied while they have gradients."""
        return {**super().__getstate__(), "latest": None}


class FollowingGate(nn.Module):
    """Gate that repeats the values of another layer's gate in the same forward pass.

    Args:
        leader: gate of a layer that runs earlier.
    """

    def __init__(self, leader: SharedGate) -> None:
        super().__init__()
        self._leader = (leader,)  # in a tuple, so that its parameters are not also this one's

    def initial(self) -> Tensor:
        """Gates of the leader for an input of zeros, ``(m,)``."""
        return self._leader[0].initial()

    def forward(self, x: Tensor) -> Tensor:
        """Return the leader's gates ``(B, m)``, whatever the layer's input is.

        Raises:
            RuntimeError: the leader has not run yet.
        """
        gates = self._leader[0].latest
        if gates is None:
            raise RuntimeError("a shared gate was used before the layer that computes it has run")
        return gates


Gating = Literal["sigmoid", "softmax", "constant", "shared"]

GATES: dict[str, type[Gate | ConstantGate]] = {
    "sigmoid": Gate,
    "softmax": SoftmaxGate,
    "constant": ConstantGate,
    "shared": SharedGate,
}


def share_gate(layers: Sequence[Any]) -> None:
    """Make all layers after the second use the second layer's gate.

    The first layer keeps its own: its input is pixels, whose channel averages say little about an
    image.

    Args:
        layers: aggregated layers with shared gates, in the order in which they run.
    """
    for layer in layers[2:]:
        layer.gate = FollowingGate(layers[1].gate)
