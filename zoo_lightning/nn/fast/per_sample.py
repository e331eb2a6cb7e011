"""Convolution with one kernel per sample that stores no kernel per sample.

Computes the same as :func:`zoo_lightning.nn.reference.reference` without alignment:
``y_b = K_b * x_b`` with ``K_b = Σ_i a_bi W_i``. The ``B`` kernels are mixed a few output channels
at a time, so that they stay in the processor's cache, and mixed again in the backward pass instead
of being stored: memory grows with the sources, not with the batch. An engine convolves with a slice
of kernels: by a grouped convolution, a convolution per sample, or matrix products of unfolded
inputs. Letters: ``B`` samples, ``m`` sources, ``g`` groups, ``o`` output channels of a slice,
``D = C_in / g * kh * kw``, ``L`` output positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo_lightning.nn.fast.products import autocast_off, row_products
from zoo_lightning.nn.reference import ConvGeometry


def slice_elements(threads: int) -> int:
    """Number of kernel elements, over all samples, to mix at a time.

    On one thread 2 MiB in float32, which a second- or third-level cache holds (measured: twice as
    many cost 10 % in late layers, four times 30 %). Several threads share each small product, and
    a short one costs them more in waiting than the cache saves (two threads, evaluation of
    ResNet-50: 2**19 take 0.83 s, 2**22 0.63 s; training takes the same time with both).

    Args:
        threads: number of threads that torch computes with.
    """
    return 2**19 if threads == 1 else 2**21 * threads


WIDE_SLICE = 2**28
"""Number of kernel elements, over all samples, to mix at a time on accelerators and in compiled
networks: 1 GiB in float32. There, every further slice costs calls and leaves processors idle, and
no cache holds one anyway."""


def mix(weight: Tensor, gates: Tensor) -> Tensor:
    """Mix kernels or biases ``(m, ...)`` by gates ``(B, m)`` or ``(m,)`` to ``(B, ...)``."""
    mixed = gates.to(weight.dtype) @ weight.flatten(1)
    return mixed.reshape(*gates.shape[:-1], *weight.shape[1:])


def output_size(
    image: Sequence[int], kernel: Sequence[int], geometry: ConvGeometry
) -> tuple[int, int]:
    """Compute height and width of a convolution's output.

    Args:
        image: height and width of the input.
        kernel: height and width of the kernel.
        geometry: stride, padding, dilation and groups.
    """

    def along(axis: int) -> int:
        reach = geometry.dilation[axis] * (kernel[axis] - 1) + 1
        return (image[axis] + 2 * geometry.padding[axis] - reach) // geometry.stride[axis] + 1

    return along(0), along(1)


def is_channels_last(x: Tensor) -> bool:
    """Whether ``(B, C, H, W)`` is channels last in memory and not also contiguous."""
    return x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()


def like(y: Tensor, x: Tensor) -> Tensor:
    """Return ``y`` in the memory format of ``x``: channels last or contiguous."""
    kind = torch.channels_last if is_channels_last(x) else torch.contiguous_format
    return y.contiguous(memory_format=kind)


def is_pointwise(kernel: Sequence[int], geometry: ConvGeometry) -> bool:
    """Whether a convolution is a matrix product without unfolding."""
    return tuple(kernel) == (1, 1) and tuple(geometry.padding) == (0, 0)


def subsample(x: Tensor, stride: tuple[int, int]) -> Tensor:
    """Take every ``stride``-th position of ``(B, C, H, W)``, in the memory format of ``x``."""
    if tuple(stride) == (1, 1):
        return x
    return like(x[:, :, :: stride[0], :: stride[1]], x)


class _Engine:
    """Convolution with one slice of kernels, forward and backward.

    Args:
        x: input, ``(B, C_in, H, W)``.
        shape: shape of the sources' kernels, ``(m, C_out, C_in / g, kh, kw)``.
        geometry: stride, padding, dilation and groups.
    """

    def __init__(self, x: Tensor, shape: torch.Size, geometry: ConvGeometry) -> None:
        self.x, self.geometry = x, geometry
        self.kernel_size = tuple(shape[-2:])
        self.size = output_size(x.shape[2:], self.kernel_size, geometry)
        self.last = is_channels_last(x)
        self.prepare()

    def prepare(self) -> None:
        """Compute what all slices share."""

    def forward(self, kernels: Tensor) -> Tensor:
        """Convolve with kernels ``(B, o, C_in / g, kh, kw)`` to outputs ``(B, o, H', W')``."""
        raise NotImplementedError

    def backward(self, grad: Tensor, kernels: Tensor, with_x: bool) -> tuple[Tensor | None, Tensor]:
        """Gradients of the input, in the engine's own layout, and of the kernels.

        Args:
            grad: gradient of the outputs, ``(B, o, H', W')``.
            kernels: kernels of the slice, as in :meth:`forward`.
            with_x: whether the input needs a gradient; ``None`` is returned for it otherwise.
        """
        raise NotImplementedError

    def input_gradient(self, total: Tensor) -> Tensor:
        """Bring the sum of all slices' input gradients to ``(B, C_in, H, W)``."""
        return total

    def _conv_backward(
        self, grad: Tensor, x: Tensor, kernels: Tensor, with_x: bool, groups: int
    ) -> tuple[Tensor | None, Tensor]:
        stride, padding, dilation, _ = self.geometry
        grad_x, grad_kernels, _ = torch.ops.aten.convolution_backward(
            grad, x, kernels, None, stride, padding, dilation, False, (0, 0), groups,
            (with_x, True, False),
        )  # fmt: skip
        return grad_x, grad_kernels


class _Grouped(_Engine):
    """One grouped convolution over the batch merged into the channels, as in the authors' code."""

    def prepare(self) -> None:
        self.merged = self.x.reshape(1, -1, *self.x.shape[2:])
        self.groups = len(self.x) * self.geometry.groups

    def forward(self, kernels: Tensor) -> Tensor:
        y = F.conv2d(self.merged, kernels.flatten(0, 1), None, *self.geometry[:3], self.groups)
        return y.view(len(self.x), -1, *self.size)

    def backward(self, grad: Tensor, kernels: Tensor, with_x: bool) -> tuple[Tensor | None, Tensor]:
        merged = grad.reshape(1, -1, *self.size)
        grad_x, grad_kernels = self._conv_backward(
            merged, self.merged, kernels.flatten(0, 1), with_x, self.groups
        )
        return grad_x, grad_kernels.view(kernels.shape)

    def input_gradient(self, total: Tensor) -> Tensor:
        return like(total.view(self.x.shape), self.x)


class _Looped(_Engine):
    """One convolution per sample, one after the other."""

    def forward(self, kernels: Tensor) -> Tensor:
        samples = zip(self.x.split(1), kernels, strict=True)
        return torch.cat([F.conv2d(x, kernel, None, *self.geometry) for x, kernel in samples])

    def backward(self, grad: Tensor, kernels: Tensor, with_x: bool) -> tuple[Tensor | None, Tensor]:
        samples = zip(grad.split(1), self.x.split(1), kernels, strict=True)
        pairs = [self._conv_backward(*s, with_x, self.geometry.groups) for s in samples]
        inputs = [grad_x for grad_x, _ in pairs if grad_x is not None]
        return torch.cat(inputs) if with_x else None, torch.stack([pair[1] for pair in pairs])


class _Unfolded(_Engine):
    """Matrix products of kernels and unfolded inputs; 1×1 kernels need no unfolding."""

    def prepare(self) -> None:
        batch, groups = len(self.x), self.geometry.groups
        self.pointwise = is_pointwise(self.kernel_size, self.geometry)
        if self.pointwise:
            columns = subsample(self.x, self.geometry.stride).flatten(2)
        else:
            columns = F.unfold(
                self.x, self.kernel_size, self.geometry.dilation, self.geometry.padding,
                self.geometry.stride,
            )  # fmt: skip
        positions = self.size[0] * self.size[1]
        self.columns = columns.reshape(batch * groups, -1, positions)  # (B g, D, L)

    def _merge(self, kernels: Tensor) -> Tensor:
        groups = len(self.columns)
        return kernels.reshape(groups, -1, self.columns.shape[1])  # (B g, o / g, D)

    def forward(self, kernels: Tensor) -> Tensor:
        batch, merged = len(self.x), self._merge(kernels)
        if self.last and self.geometry.groups == 1:
            y = row_products(self.columns.transpose(1, 2), merged)
            return y.view(batch, *self.size, -1).permute(0, 3, 1, 2)
        y = row_products(merged, self.columns.transpose(1, 2))
        return y.view(batch, -1, *self.size)

    def backward(self, grad: Tensor, kernels: Tensor, with_x: bool) -> tuple[Tensor | None, Tensor]:
        merged = self._merge(kernels)
        rows = grad.flatten(2).reshape(len(merged), -1, self.columns.shape[2])  # (B g, o / g, L)
        grad_kernels = row_products(rows, self.columns).view(kernels.shape)
        if not with_x:
            return None, grad_kernels
        if self.last:
            across = row_products(rows.transpose(1, 2), merged.transpose(1, 2))
            return across.transpose(1, 2), grad_kernels
        return row_products(merged.transpose(1, 2), rows.transpose(1, 2)), grad_kernels

    def input_gradient(self, total: Tensor) -> Tensor:
        x, geometry = self.x, self.geometry
        if not self.pointwise:
            columns = total.reshape(len(x), -1, total.shape[-1])
            return F.fold(
                columns, x.shape[2:], self.kernel_size, geometry.dilation, geometry.padding,
                geometry.stride,
            )  # fmt: skip
        columns = total.unflatten(-1, self.size)
        columns = columns.reshape(len(x), -1, *self.size)
        if geometry.stride == (1, 1):
            return columns
        grad_x = torch.zeros_like(x)
        grad_x[:, :, :: geometry.stride[0], :: geometry.stride[1]] = columns
        return grad_x


ENGINES: dict[str, type[_Engine]] = {"grouped": _Grouped, "looped": _Looped, "unfolded": _Unfolded}


def _slices(
    x: Tensor, shape: torch.Size, geometry: ConvGeometry, engine: str
) -> list[tuple[int, int]]:
    """Ranges of output channels that make a slice; one range in a grouped convolution.

    Unfolded, a slice has at least twice as many channels as there are positions: each adds its
    share to the unfolded inputs' gradients, which must not cost more than the kernels do.
    """
    out_channels, filter_size = shape[1], shape[2:].numel()
    step = out_channels
    if geometry.groups == 1:
        wide = x.device.type != "cpu" or torch.compiler.is_compiling()
        elements = WIDE_SLICE if wide else slice_elements(torch.get_num_threads())
        step = elements // (len(x) * filter_size)
        if engine == "unfolded":
            height, width = output_size(x.shape[2:], shape[-2:], geometry)
            step = max(step, 2 * height * width)
        step = max(16, step // 16 * 16)
    return [(i, min(i + step, out_channels)) for i in range(0, out_channels, step)]


class _PerSample(torch.autograd.Function):
    """Convolution whose kernels per sample are mixed again in the backward pass."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, gates: Tensor, geometry: ConvGeometry, engine: str
    ) -> Tensor:
        ctx.save_for_backward(x, weight, gates)
        ctx.geometry, ctx.engine = geometry, engine
        parts = []
        with autocast_off(x.device):
            worker, mixer = (
                ENGINES[engine](x, weight.shape, geometry),
                _Mixer(weight, gates, x.dtype),
            )
            for start, stop in _slices(x, weight.shape, geometry, engine):
                kernels = mixer.kernels(start, stop)
                parts.append(worker.forward(kernels))
            return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, gates = ctx.saved_tensors
        with_x, with_weight, with_gates = ctx.needs_input_grad[:3]
        total: Tensor | None = None
        grad_gates = torch.zeros_like(gates) if with_gates else None
        grad_weight = torch.empty_like(weight) if with_weight else None
        with autocast_off(x.device):
            worker = ENGINES[ctx.engine](x, weight.shape, ctx.geometry)
            mixer = _Mixer(weight, gates, x.dtype)
            for start, stop in _slices(x, weight.shape, ctx.geometry, ctx.engine):
                part_x, grad_kernels = worker.backward(
                    grad[:, start:stop], mixer.kernels(start, stop), with_x
                )
                if part_x is not None:
                    total = part_x if total is None else total.add_(part_x)
                rows = grad_kernels.reshape(len(x), -1).to(weight.dtype)
                if grad_gates is not None:
                    grad_gates += (mixer.rows(weight, start, stop) @ rows.t()).t()
                if grad_weight is not None:
                    mixer.rows(grad_weight, start, stop).copy_(gates.t() @ rows)
            grad_x = None if total is None else worker.input_gradient(total)
        return grad_x, grad_weight, grad_gates, None, None


class _Mixer:
    """Mixer of all samples' kernels for some output channels, in memory that is used again.

    Args:
        weight: kernels of the sources, ``(m, C_out, ...)``.
        gates: gates of each sample, ``(B, m)``.
        dtype: type of the mixed kernels.
    """

    def __init__(self, weight: Tensor, gates: Tensor, dtype: torch.dtype) -> None:
        self.weight, self.gates, self.dtype = weight, gates, dtype
        self.filter_size = weight.shape[2:].numel()
        self.memory: Tensor | None = None

    def rows(self, sources: Tensor, start: int, stop: int) -> Tensor:
        """View output channels ``start`` to ``stop`` of ``(m, C_out, ...)``, one row per source."""
        return sources.flatten(1)[:, start * self.filter_size : stop * self.filter_size]

    def kernels(self, start: int, stop: int) -> Tensor:
        """Mix kernels ``(B, stop - start, ...)``, valid until the next call."""
        rows = self.rows(self.weight, start, stop)
        if torch.compiler.is_compiling():
            mixed = self.gates @ rows
        else:
            if self.memory is None:
                self.memory = rows.new_empty(len(self.gates) * rows.shape[1])
            mixed = self.memory[: len(self.gates) * rows.shape[1]].view(-1, rows.shape[1])
            torch.mm(self.gates, rows, out=mixed)
        return mixed.view(-1, stop - start, *self.weight.shape[2:]).to(self.dtype)


def convolve_per_sample(
    x: Tensor, weight: Tensor, gates: Tensor, geometry: ConvGeometry, engine: str
) -> Tensor:
    """Convolve each sample with its own mix of kernels: ``y_b = (Σ_i a_bi W_i) * x_b``.

    Args:
        x: input, ``(B, C_in, H, W)``.
        weight: kernels of the sources, ``(m, C_out, C_in / g, kh, kw)``; float32 under autocast.
        gates: gates of each sample, ``(B, m)``.
        geometry: stride, padding, dilation and groups.
        engine: key of ``ENGINES``.

    Returns:
        Output ``(B, C_out, H', W')`` in the type of ``x``, channels last if ``x`` is.
    """
    return _PerSample.apply(x, weight.contiguous(), gates.to(weight.dtype), geometry, engine)
