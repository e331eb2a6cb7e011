"""What all aggregated layers share: sources' kernels, alignment, gate, and the gates' average.

An aggregated layer holds the kernels ``W_i`` of ``m`` sources and computes with
``W(x) = Σ_i a_i(x) · T_i W_i``: one kernel per sample in full mode, one per batch in lite mode.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo_lightning.layers.aggregation import SourceKernels, aggregate
from zoo_lightning.layers.alignment import align_and_mix, identity_alignment
from zoo_lightning.layers.gate import GATES, Gating, batch_average
from zoo_lightning.layers.kernel_cache import KernelCache
from zoo_lightning.layers.per_sample import ConvGeometry, is_pointwise, mix, subsample
from zoo_lightning.layers.planner import ONE_KERNEL, Request, request
from zoo_lightning.layers.planner import plan as choose
from zoo_lightning.layers.products import autocast_off

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
        plan: how to compute: ``auto``, ``benchmark`` or a way's name, see
            :mod:`zoo_lightning.layers.planner`.
        gating: kind of the gate: ``sigmoid``, ``softmax``, ``constant`` or ``shared``.

    Attributes:
        gate_ema: ``(m,)``, exponential moving average of the batch-average gates; what lite mode
            evaluates with and what a fold uses. It starts at the gates' own start.
        gate_updates: how often ``gate_ema`` was updated.
        steady: whether lite mode computes with ``gate_ema`` in training, too, so that the layer is
            the same function in training and evaluation, whatever the batch; the gates still get
            the gradient of the batch average. For reinforcement learning, where a policy must
            learn from the function that it acts by.
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
        plan: str = "auto",
        gating: Gating = "sigmoid",
    ) -> None:
        super().__init__()
        num_sources, out_channels = weight.shape[:2]
        self.mode = mode
        self.plan = plan
        self.steady = False
        self.weight = nn.Parameter(weight.detach().clone())
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone())
        blocks = identity_alignment(num_sources, out_channels, groups) if aligned else None
        self.alignment = None if blocks is None else nn.Parameter(blocks)
        self.gate = GATES[gating](in_channels, num_sources, gate_start)
        self.register_buffer("gate_ema", self.gate.initial())
        self.register_buffer("gate_updates", torch.zeros((), dtype=torch.long))
        # Not buffers: DDP would overwrite them with rank 0's in every forward pass.
        self.gate_sum: Tensor | None = None
        # A tensor once there is something to count: a compiler would take a number for a constant.
        self.gate_count: Tensor | int = 0
        self._aligned, self._mixed = KernelCache(), KernelCache()

    def train(self, mode: bool = True) -> AggregatedLayer:
        """Switch between training and evaluation; kernels kept for evaluation are forgotten."""
        self._aligned.clear()
        self._mixed.clear()
        return super().train(mode)

    @property
    def num_sources(self) -> int:
        """``m``."""
        return self.weight.shape[0]

    def planned(self, x: Tensor, gates: Tensor, training: bool) -> Request:
        """What the layer asks of the planner for an input of its own kind."""
        raise NotImplementedError

    def pool(self, x: Tensor) -> Tensor:
        """Global average of the layer's input, ``(B, C_in)``: what the gate sees."""
        raise NotImplementedError

    def gates(self, x: Tensor) -> Tensor:
        """Gates to compute with: ``(B, m)`` in full mode, ``(m,)`` in lite mode.

        Lite mode uses the batch average in training, unless ``steady``, and its moving average in
        evaluation. In training the gates seen are added up for :meth:`update_gate_ema`.
        """
        if self.mode == "lite" and not self.training:
            return self.gate_ema
        gates = self.gate(self.pool(x))
        # Only steps that learn count: acting, recalibration and the like run without gradients.
        if self.training and torch.is_grad_enabled():
            seen, count = gates.detach().sum(dim=0), gates.new_tensor(float(len(gates)))
            if self.gate_sum is None:
                self.gate_sum, self.gate_count = seen, count
            else:
                self.gate_sum, self.gate_count = self.gate_sum + seen, self.gate_count + count
        if self.mode != "lite":
            return gates
        average = batch_average(gates)
        if self.steady:
            return self.gate_ema + (average - average.detach())
        return average

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

    def source_kernels(self) -> SourceKernels:
        """Sources' kernels, biases and alignment; aligned already where that is kept.

        A linear layer's matrices come as 1×1 kernels.
        """
        kernels = SourceKernels(self.weight, self.bias, self.alignment)
        if not (self.training or torch.is_grad_enabled() or self.alignment is None):
            with autocast_off(self.weight.device):
                kernels = self._aligned.get(self._present(*kernels), kernels.aligned)
        # Not by _replace, which torch.compile of 2.6 cannot follow.
        weight = self._as_filters(kernels.weight)
        return SourceKernels(weight, kernels.bias, kernels.alignment)

    @staticmethod
    def _as_filters(weight: Tensor) -> Tensor:
        """Matrices ``(m, out, in)`` as 1×1 kernels; kernels as they are."""
        return weight if weight.dim() == 5 else weight[..., None, None]

    def kernel(self, gates: Tensor) -> tuple[Tensor, Tensor | None]:
        """The one aggregated kernel, and bias, of gates ``(m,)``: ``(C_out, ...)``, ``(C_out,)``.

        Built in float32 also under autocast: half precision would round every source first. The
        kernel of the gates' moving average is kept between evaluation passes.
        """
        with autocast_off(self.weight.device):
            if self.training or gates is not self.gate_ema:
                return self._mix(gates)
            used = self._present(self.weight, self.bias, self.alignment, gates)
            return self._mixed.get(used, lambda: self._mix(gates))

    @staticmethod
    def _present(*tensors: Tensor | None) -> tuple[Tensor, ...]:
        return tuple(t for t in tensors if t is not None)

    def _mix(self, gates: Tensor) -> tuple[Tensor, Tensor | None]:
        if self.alignment is None:
            bias = None if self.bias is None else mix(self.bias, gates)
            return mix(self.weight, gates), bias
        bias = None if self.bias is None else align_and_mix(self.bias, self.alignment, gates)
        return align_and_mix(self.weight, self.alignment, gates), bias

    def request(
        self, x: Tensor, gates: Tensor, geometry: ConvGeometry, training: bool | None = None
    ) -> Request:
        """What this layer asks of the planner for an input ``(B, C_in, H, W)``.

        Args:
            x: the input, padded as far as ``geometry`` does not pad.
            gates: ``(B, m)`` or ``(m,)``.
            geometry: stride, padding, dilation, groups.
            training: whether gradients will be wanted; ``None`` means as things are.
        """
        wanted = torch.is_grad_enabled() if training is None else training
        kernels = SourceKernels(self._as_filters(self.weight), self.bias, self.alignment)
        if not wanted and not self.training:
            # Alignment is kept from pass to pass: costs nothing.
            kernels = SourceKernels(kernels.weight, kernels.bias)
        return request(x, kernels, gates, geometry, wanted)

    def aggregated(self, x: Tensor, gates: Tensor, geometry: ConvGeometry) -> Tensor:
        """Convolve in the way that the plan says.

        Args:
            x: ``(B, C_in, H, W)``, padded as far as ``geometry`` does not pad.
            gates: ``(B, m)`` or ``(m,)``.
            geometry: stride, padding, dilation, groups.
        """
        if gates is self.gate_ema and not torch.is_grad_enabled():
            way = ONE_KERNEL  # which is kept from pass to pass
        else:
            asked = self.request(x, gates, geometry)
            way = choose(self.plan, asked, lambda name: self._try(name, x, gates, geometry))
        return self._compute(way, x, gates, geometry)

    def _compute(self, way: str, x: Tensor, gates: Tensor, geometry: ConvGeometry) -> Tensor:
        if way == ONE_KERNEL:
            weight, bias = self.kernel(gates)
            if is_pointwise(weight.shape[-2:], geometry) and geometry.groups == 1:
                # Libraries are slow at strides in 1×1 convolutions, which use a part of x only.
                x, geometry = subsample(x, geometry.stride), ConvGeometry()
            return F.conv2d(x, weight, bias, *geometry)
        return aggregate(way, x, self.source_kernels(), gates, geometry)

    def _try(self, way: str, x: Tensor, gates: Tensor, geometry: ConvGeometry) -> None:
        """Run a way forward and, where gradients are recorded, backward, and leave no trace."""
        if not torch.is_grad_enabled():
            self._compute(way, x, gates, geometry)
            return
        x = x.detach().requires_grad_(x.requires_grad)
        gates = gates.detach().requires_grad_()
        used = self._present(x, gates, self.weight, self.bias, self.alignment)
        y = self._compute(way, x, gates, geometry)
        wanted = [t for t in used if t.requires_grad]
        torch.autograd.grad(y, wanted, torch.ones_like(y))

    def extra_repr(self) -> str:
        """Sources, kernel shape and mode, for ``print(model)``."""
        shape = "x".join(map(str, self.weight.shape))
        aligned = "aligned" if self.alignment is not None else "not aligned"
        return f"{shape}, {self.mode}, {aligned}"
