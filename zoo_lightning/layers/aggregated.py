"""What all aggregated layers share: sources' kernels, alignment, gate, and the gates' average.

An aggregated layer holds the kernels ``W_i`` of ``m`` sources and computes with
``W(x) = Σ_i a_i(x) · T_i W_i``: one kernel per sample in full mode, one per batch in lite mode.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from zoo_lightning.layers.aggregation import mix
from zoo_lightning.layers.alignment import align, align_and_mix, identity_alignment
from zoo_lightning.layers.gate import Gate, batch_average

if TYPE_CHECKING:
    from collections.abc import Sequence

Mode = Literal["full", "lite"]


class AggregatedLayer(nn.Module):
    """Parameters and gates of an aggregated layer; subclasses say how to compute with a kernel.

    Args:
        weight: kernels of the sources, ``(m, C_out, C_in / g, ...)``.
        bias: biases of the sources, ``(m, C_out)``, or ``None``.
        in_channels: channels of the layer's input.
        groups: ``g``.
        mode: ``full`` or ``lite``.
        aligned: whether the layer has a channel alignment.
        gate_start: see :class:`~zoo_lightning.layers.gate.Gate`.

    Attributes:
        gate_ema: ``(m,)``, exponential moving average of the batch-average gates; what lite mode
            evaluates with and what a fold uses. It starts at the gates' own start.
        gate_updates: how often ``gate_ema`` was updated.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        in_channels: int,
        groups: int = 1,
        mode: Mode = "full",
        aligned: bool = True,
        gate_start: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        num_sources, out_channels = weight.shape[:2]
        self.mode = mode
        self.weight = nn.Parameter(weight.detach().clone())
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone())
        blocks = identity_alignment(num_sources, out_channels, groups) if aligned else None
        self.alignment = None if blocks is None else nn.Parameter(blocks)
        self.gate = Gate(in_channels, num_sources, gate_start)
        self.register_buffer("gate_ema", self.gate.initial())
        self.register_buffer("gate_updates", torch.zeros((), dtype=torch.long))
        # Not buffers: DDP would overwrite them with rank 0's in every forward pass.
        self.gate_sum: Tensor | None = None
        self.gate_count = 0

    @property
    def num_sources(self) -> int:
        """``m``."""
        return self.weight.shape[0]

    def pool(self, x: Tensor) -> Tensor:
        """Global average of the layer's input, ``(B, C_in)``: what the gate sees."""
        raise NotImplementedError

    def gates(self, x: Tensor) -> Tensor:
        """Gates to compute with: ``(B, m)`` in full mode, ``(m,)`` in lite mode.

        Lite mode uses the batch average in training and its moving average in evaluation. In
        training the gates seen are added up for :meth:`update_gate_ema`.
        """
        if self.mode == "lite" and not self.training:
            return self.gate_ema
        gates = self.gate(self.pool(x))
        # Only steps that learn count: acting, recalibration and the like run without gradients.
        if self.training and torch.is_grad_enabled():
            seen = gates.detach().sum(dim=0)
            self.gate_sum = seen if self.gate_sum is None else self.gate_sum + seen
            self.gate_count += len(gates)
        return batch_average(gates) if self.mode == "lite" else gates

    @torch.no_grad()
    def update_gate_ema(self, average: Tensor, momentum: float) -> None:
        """``ema ← (1 − μ) ema + μ ā``; the first update takes ``ā`` itself.

        The authors' code starts from zero instead, which scales all kernels down for the first
        tens of steps.

        Args:
            average: ``(m,)``, batch-average gates of one step over all processes.
            momentum: ``μ`` in (0, 1].
        """
        if self.gate_updates == 0:
            self.gate_ema.copy_(average)
        else:
            self.gate_ema.lerp_(average.to(self.gate_ema.dtype), momentum)
        self.gate_updates += 1

    def aligned_weight(self) -> tuple[Tensor, Tensor | None]:
        """Sources' kernels and biases after alignment, shapes unchanged, in float32."""
        if self.alignment is None:
            return self.weight, self.bias
        bias = None if self.bias is None else align(self.bias, self.alignment)
        return align(self.weight, self.alignment), bias

    def kernel(self, gates: Tensor) -> tuple[Tensor, Tensor | None]:
        """The one aggregated kernel, and bias, of gates ``(m,)``: ``(C_out, ...)``, ``(C_out,)``.

        Built in float32 also under autocast: half precision would round every source first.
        """
        with torch.autocast(self.weight.device.type, enabled=False):
            if self.alignment is None:
                bias = None if self.bias is None else mix(self.bias, gates)
                return mix(self.weight, gates), bias
            if self.bias is not None:
                bias = align_and_mix(self.bias, self.alignment, gates)
            else:
                bias = None
            return align_and_mix(self.weight, self.alignment, gates), bias

    def extra_repr(self) -> str:
        """Sources, kernel shape and mode, for ``print(model)``."""
        shape = "x".join(map(str, self.weight.shape))
        aligned = "aligned" if self.alignment is not None else "not aligned"
        return f"{shape}, {self.mode}, {aligned}"
