"""Base of the aggregated layers: sources' kernels, channel alignment, gate and gate average.

An aggregated layer holds the kernels ``W_i`` of ``m`` sources and computes with
``W(x) = Σ_i a_i(x) · T_i W_i``: one kernel per sample in full mode, one per batch in lite mode.
:mod:`zoo_lightning.nn.reference` has the equation as code.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import Self

from zoo_lightning.nn.alignment import align_and_mix, identity_alignment, repeat_maps
from zoo_lightning.nn.fast.kernel_cache import KernelCache
from zoo_lightning.nn.fast.per_sample import is_pointwise, mix, subsample
from zoo_lightning.nn.fast.planner import ONE_KERNEL, Request, request
from zoo_lightning.nn.fast.planner import plan as choose
from zoo_lightning.nn.fast.products import autocast_off
from zoo_lightning.nn.fast.ways import aggregate
from zoo_lightning.nn.gate import (
    GATES,
    ConstantGate,
    FollowingGate,
    Gate,
    Gating,
    batch_average,
)
from zoo_lightning.nn.reference import REFERENCE, ConvGeometry, SourceKernels

if TYPE_CHECKING:
    from collections.abc import Sequence

Mode = Literal["full", "lite"]


class SampleCount:
    """Number of samples in the current forward pass, which the network's first layer notes.

    Layers whose input has a row for each window of a sample, as in Swin and MobileViT, need it: a
    sample has one set of gates and one kernel, whatever windows it is divided into.

    Attributes:
        value: number of samples; 0 before the first pass.
    """

    value: int = 0


class AggregatedLayer(nn.Module):
    """Base class of aggregated layers: parameters and gates; subclasses define the convolution.

    Args:
        weight: kernels of the sources, ``(m, C_out, C_in / g, ...)``.
        bias: biases of the sources, ``(m, C_out)``, or ``None``.
        in_channels: number of channels of the layer's input.
        groups: number of groups ``g`` of the convolution.
        mode: ``full`` for one kernel per sample, ``lite`` for one per batch.
        aligned: whether the layer has a channel alignment.
        gate_start: initial gates, ``m`` numbers in (0, 1), or ``None``; see
            :class:`~zoo_lightning.nn.gate.Gate`.
        plan: how to compute: ``auto``, ``benchmark``, ``reference`` (the equation as it stands,
            slow) or the name of another way, see :mod:`zoo_lightning.nn.fast.planner`. All give
            the same result up to rounding.
        gating: kind of the gate: ``sigmoid``, ``softmax``, ``constant`` or ``shared``.
        blocks: number of the map of each of some equal blocks of output channels, for an aligned
            layer whose output is divided into attention heads; ``None`` for one map per group.
        num_maps: number of maps that ``blocks`` refers to; layers may share them.

    Attributes:
        alignment: maps of the sources, ``(m, g, o, o)``, or ``(m, num_maps, o, o)`` if there are
            ``blocks``; ``None`` in a layer that is not aligned.
        alignment_blocks: ``blocks`` as a tensor, or ``None``.
        gate_ema: exponential moving average of the batch-average gates, ``(m,)``, with which lite
            mode evaluates and folds. It starts at the gates' values for an input of zeros.
        gate_updates: number of updates of ``gate_ema``.
        steady: whether lite mode computes with ``gate_ema`` in training, too, so that the layer is
            the same function in training and evaluation, whatever the batch; the gates still get
            the gradient of the batch average. For reinforcement learning, where updates must use
            the same function as the rollouts.
        gate_sum: sum of the training gates since the last update of ``gate_ema``, ``(m,)``;
            ``None`` if there was no training step since.
        gate_count: number of samples in ``gate_sum``.
        samples: number of samples, in a network that divides samples into windows; else ``None``.
        windowed: whether the layer's input has a row for each window; other layers note the number
            of their rows in ``samples``.
    """

    gate: Gate | ConstantGate | FollowingGate
    gate_ema: Tensor
    gate_updates: Tensor
    alignment_blocks: Tensor | None

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
        blocks: Sequence[int] | None = None,
        num_maps: int = 0,
    ) -> None:
        super().__init__()
        self._aligned: KernelCache[SourceKernels] = KernelCache()
        self._mixed: KernelCache[tuple[Tensor, Tensor | None]] = KernelCache()
        num_sources, out_channels = weight.shape[:2]
        self.mode = mode
        self.plan = plan
        self.steady = False
        self.samples: SampleCount | None = None
        self.windowed = False
        self.weight = nn.Parameter(weight.detach().clone())
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone())
        self.alignment: nn.Parameter | None = None
        if aligned:
            count = groups if blocks is None else len(blocks)
            maps = identity_alignment(num_sources, out_channels, count)
            if blocks is not None:
                maps = maps[:, :1].repeat(1, num_maps, 1, 1)
            self.alignment = nn.Parameter(maps)
        index = None if not aligned or blocks is None else torch.tensor(blocks)
        self.register_buffer("alignment_blocks", index)
        self.gate = GATES[gating](in_channels, num_sources, gate_start)
        self.register_buffer("gate_ema", self.gate.initial())
        self.register_buffer("gate_updates", torch.zeros((), dtype=torch.long))
        # Not buffers: DDP would overwrite them with rank 0's in every forward pass.
        self.gate_sum: Tensor | None = None
        # A tensor once there is something to count: a compiler would take a number for a constant.
        self.gate_count: Tensor | int = 0

    def register_parameter(self, name: str, param: nn.Parameter | None) -> None:
        """Add or replace a parameter; discards the kernels stored for evaluation."""
        self._clear_caches()
        super().register_parameter(name, param)

    def train(self, mode: bool = True) -> Self:
        """Switch between training and evaluation; discards the kernels stored for evaluation."""
        self._clear_caches()
        return super().train(mode)

    def _clear_caches(self) -> None:
        self._aligned.clear()
        self._mixed.clear()

    @property
    def num_sources(self) -> int:
        """Number of sources ``m``."""
        return self.weight.shape[0]

    @property
    def is_averaged(self) -> bool:
        """Whether the layer is in lite mode and in evaluation, where it uses ``gate_ema``."""
        return self.mode == "lite" and not self.training

    def planned(self, x: Tensor, gates: Tensor, training: bool) -> Request:
        """Describe the layer and an input of ``forward`` for the planner.

        Args:
            x: input, in the shape that ``forward`` takes.
            gates: gates of the input, ``(B, m)`` in full mode, ``(m,)`` in lite mode.
            training: whether gradients will be computed.
        """
        raise NotImplementedError

    def pool(self, x: Tensor) -> Tensor:
        """Average the layer's input over all positions to ``(B, C_in)``, the gate's input."""
        raise NotImplementedError

    def count_samples(self, x: Tensor) -> int:
        """Number of samples ``B`` in the input: its rows, unless these are windows of samples."""
        return sample_count(x, self.samples, self.windowed)

    def gates(self, x: Tensor) -> Tensor:
        """Gates to compute with: ``(B, m)`` in full mode, ``(m,)`` in lite mode.

        Lite mode uses the batch average in training, unless ``steady``, and its moving average in
        evaluation. In training the gates are added to ``gate_sum`` for :meth:`update_gate_ema`.
        """
        if self.is_averaged:
            return self.gate_ema
        gates = self.gate(self.pool(x))
        # Only training steps count: acting and recalibration run without gradients.
        if self.training and torch.is_grad_enabled():
            # Filled on the device: a number copied to it would make the host wait.
            seen, count = gates.detach().sum(dim=0), gates.new_full((), float(len(gates)))
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
        """Update ``gate_ema``: ``ema ← (1 − μ) ema + μ ā``; the first update takes ``ā`` itself.

        The authors' code starts from zero instead, which scales all kernels down for the first
        tens of steps.

        Args:
            average: batch-average gates ``ā`` of one step over all processes, ``(m,)``.
            momentum: weight ``μ`` of the new average, in (0, 1].
        """
        update_gate_emas([self], [(average, average.new_ones(()))], momentum)

    def take_gate_sum(self) -> tuple[Tensor, Tensor]:
        """Sum ``(m,)`` and number ``()`` of the gates since the last call; both are 0 if none were.

        They stay on the layer's device.
        """
        total, count = self.gate_sum, self.gate_count
        self.gate_sum, self.gate_count = None, 0
        if total is None or not isinstance(count, Tensor):
            return torch.zeros_like(self.gate_ema), self.gate_ema.new_zeros(())
        return total, count

    def source_kernels(self) -> SourceKernels:
        """Sources' kernels, biases and alignment; in evaluation already aligned, and cached.

        They are aligned and cached only in evaluation without gradients. The matrices of a linear
        layer are returned as 1×1 kernels.
        """
        kernels = SourceKernels(self.weight, self.bias, self.maps())
        if not (self.training or torch.is_grad_enabled() or self.alignment is None):
            used = self._present(self.weight, self.bias, self.alignment)
            with autocast_off(self.weight.device):
                kernels = self._aligned.get(used, kernels.aligned)
        return SourceKernels(self._as_filters(kernels.weight), kernels.bias, kernels.alignment)

    def parameters_as_kernels(self) -> SourceKernels:
        """Sources' kernels, biases and alignment as in the parameters: neither aligned nor cached.

        The matrices of a linear layer are returned as 1×1 kernels.
        """
        return SourceKernels(self._as_filters(self.weight), self.bias, self.maps())

    def maps(self) -> Tensor | None:
        """Blocks of the channel alignment, ``(m, g, o, o)``; ``None`` in a layer without one."""
        if self.alignment is None:
            return None
        return repeat_maps(self.alignment, self.alignment_blocks)

    @staticmethod
    def _as_filters(weight: Tensor) -> Tensor:
        """Bring matrices ``(m, out, in)`` to 1×1 kernels; kernels stay as they are."""
        return weight if weight.dim() == 5 else weight[..., None, None]

    def kernel(self, gates: Tensor) -> tuple[Tensor, Tensor | None]:
        """Aggregate the kernel ``(C_out, ...)`` and bias ``(C_out,)`` for gates ``(m,)``.

        Computed in float32 also under autocast: half precision would round every source first. In
        lite evaluation the result is cached for the next pass.
        """
        with autocast_off(self.weight.device):
            if not self.is_averaged:
                return self._mix(gates)
            used = self._present(self.weight, self.bias, self.alignment, gates)
            return self._mixed.get(used, lambda: self._mix(gates))

    @staticmethod
    def _present(*tensors: Tensor | None) -> tuple[Tensor, ...]:
        return tuple(t for t in tensors if t is not None)

    def _mix(self, gates: Tensor) -> tuple[Tensor, Tensor | None]:
        maps = self.maps()
        if maps is None:
            bias = None if self.bias is None else mix(self.bias, gates)
            return mix(self.weight, gates), bias
        bias = None if self.bias is None else align_and_mix(self.bias, maps, gates)
        return align_and_mix(self.weight, maps, gates), bias

    def request(
        self, x: Tensor, gates: Tensor, geometry: ConvGeometry, training: bool | None = None
    ) -> Request:
        """Describe the layer and an input ``(B, C_in, H, W)`` for the planner.

        Args:
            x: input, padded as far as ``geometry`` does not pad.
            gates: gates of the input, ``(B, m)`` or ``(m,)``.
            geometry: stride, padding, dilation and groups.
            training: whether gradients will be computed; ``None`` for whether they are enabled now.
        """
        wanted = torch.is_grad_enabled() if training is None else training
        kernels = self.parameters_as_kernels()
        if not wanted and not self.training:
            # Aligned kernels are stored from pass to pass: alignment costs nothing.
            kernels = SourceKernels(kernels.weight, kernels.bias)
        return request(x, kernels, gates, geometry, wanted)

    def aggregated(self, x: Tensor, gates: Tensor, geometry: ConvGeometry) -> Tensor:
        """Convolve with the aggregated kernels, by the computation that the plan chooses.

        Args:
            x: input ``(B, C_in, H, W)``, padded as far as ``geometry`` does not pad.
            gates: gates ``(B, m)`` or ``(m,)``.
            geometry: stride, padding, dilation and groups.
        """
        if self.plan != REFERENCE and self.is_averaged and not torch.is_grad_enabled():
            way = ONE_KERNEL  # stored from pass to pass
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
        kernels = self.parameters_as_kernels() if way == REFERENCE else self.source_kernels()
        return aggregate(way, x, kernels, gates, geometry)

    def _try(self, way: str, x: Tensor, gates: Tensor, geometry: ConvGeometry) -> None:
        """Run a way forward and, where gradients are recorded, backward, without side effects."""
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


def sample_count(x: Tensor, samples: SampleCount | None, windowed: bool) -> int:
    """Number of samples in a layer's input; a layer without windows notes it for the others.

    Args:
        x: input of the layer, ``(B, ...)``, or ``(B w, ...)`` for ``w`` windows of each sample.
        samples: common count of the network's layers; ``None`` if no layer sees windows.
        windowed: whether the layer sees windows.
    """
    rows = x.shape[0]  # len(x) would make the batch size of an exported network a constant
    if samples is None:
        return rows
    if not windowed:
        samples.value = rows
    return samples.value or rows


@torch.no_grad()
def update_gate_emas(
    layers: Sequence[AggregatedLayer], sums: Sequence[tuple[Tensor, Tensor]], momentum: float
) -> None:
    """Update ``gate_ema`` of all layers, see :meth:`AggregatedLayer.update_gate_ema`.

    Nothing is read from the device, so the host need not wait for it; layers with as many sources
    share each operation.

    Args:
        layers: layers to update.
        sums: sum ``(m,)`` and number ``()`` of each layer's gates in one step over all processes; a
            layer whose number is 0 is left as it is.
        momentum: weight ``μ`` of the new averages, in (0, 1].
    """
    alike: dict[tuple[int, torch.dtype], list[int]] = {}
    for place, layer in enumerate(layers):
        alike.setdefault((layer.num_sources, layer.gate_ema.dtype), []).append(place)
    for places in alike.values():
        emas = [layers[place].gate_ema for place in places]
        updates = [layers[place].gate_updates for place in places]
        counts = torch.stack([sums[place][1] for place in places])
        totals = torch.stack([sums[place][0] for place in places])
        averages = (totals / counts.clamp(min=1)[:, None]).to(emas[0].dtype)
        # Layer by layer in one call: rounded as if each were alone, whatever the others are.
        followed = torch.stack(torch._foreach_lerp(emas, averages.unbind(), momentum))
        first = torch.stack(updates) == 0
        updated = torch.where(first[:, None], averages, followed)
        used = counts > 0
        kept = torch.where(used[:, None], updated, torch.stack(emas))
        torch._foreach_copy_(emas, kept.unbind())
        torch._foreach_add_(updates, used.to(updates[0].dtype).unbind())
