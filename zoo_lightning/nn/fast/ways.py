"""Exact ways to convolve each sample with its own aggregated kernel.

Every way computes the same as :func:`zoo_lightning.nn.reference.reference`,
``y_b = (Σ_i a_i(x_b) T_i W_i) * x_b``, up to rounding; they differ in speed and memory by the
layer's shape, and :mod:`zoo_lightning.nn.fast.planner` chooses among them. Letters: ``B`` samples,
``m`` sources, ``C_in``, ``C_out`` channels, ``g`` groups. Padding is a pair of integers; any other
padding is applied to the input beforehand.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo_lightning.nn.alignment import align, join_maps
from zoo_lightning.nn.fast.per_sample import (
    convolve_per_sample,
    is_pointwise,
    like,
    mix,
    output_size,
    subsample,
)
from zoo_lightning.nn.fast.products import autocast_off, product, row_products
from zoo_lightning.nn.reference import REFERENCE, ConvGeometry, SourceKernels, reference


def convolve(
    x: Tensor, kernels: SourceKernels, gates: Tensor, geometry: ConvGeometry, engine: str
) -> Tensor:
    """Convolve with one kernel per sample, mixed slice by slice and mixed again for the gradients.

    Args:
        x: input, ``(B, C_in, H, W)``.
        kernels: kernels, biases and alignment of the sources.
        gates: gates of each sample, ``(B, m)``.
        geometry: stride, padding, dilation and groups.
        engine: name of the convolution of one slice, see :mod:`zoo_lightning.nn.fast.per_sample`.

    Returns:
        Output ``(B, C_out, H', W')``.
    """
    kernels = kernels.aligned()
    y = convolve_per_sample(x, kernels.weight, gates, geometry, engine)
    return _add_bias(like(y, x), kernels.bias, gates)


def mixed_outputs(
    x: Tensor, kernels: SourceKernels, gates: Tensor, geometry: ConvGeometry
) -> Tensor:
    """Convolve with every source's aligned kernel, then mix the outputs.

    Arguments and result as in :func:`convolve`.
    """
    weight, bias, _ = kernels.aligned()
    m, out_channels = weight.shape[:2]
    groups, block = geometry.groups, out_channels // geometry.groups
    gates = gates.to(x.dtype)
    y = F.conv2d(x, _side_by_side(weight, groups).to(x.dtype), None, *geometry)
    y = y.reshape(len(x), groups, m, block, *y.shape[2:])
    y = torch.einsum("bgmohw,bm->bgohw", y, gates).flatten(1, 2)
    return _add_bias(like(y, x), bias, gates)


def mixed_inputs(
    x: Tensor, kernels: SourceKernels, gates: Tensor, geometry: ConvGeometry
) -> Tensor:
    """Scale the unfolded inputs by every source's gate, then multiply by that source's kernel.

    Arguments and result as in :func:`convolve`. Grouped convolutions mix outputs instead.
    """
    if geometry.groups > 1:
        return mixed_outputs(x, kernels, gates, geometry)
    weight, bias, _ = kernels.aligned()
    columns, size = _columns(x, weight, geometry)
    y = mix_inputs(columns.transpose(1, 2), weight.flatten(2).to(x.dtype), gates.to(x.dtype))
    y = y.view(len(x), *size, -1).permute(0, 3, 1, 2)
    return _add_bias(like(y, x), bias, gates)


class _MixedInputs(torch.autograd.Function):
    """Product of mixed inputs for :func:`mix_inputs`, with no kernel and no output per source kept.

    Backwards, ``U_i = W_iᵀ g`` serves inputs and gates alike: ``∂x_b = Σ_i a_bi U_ib`` and
    ``∂a_bi = ⟨U_ib, x_b⟩``.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, gates: Tensor) -> Tensor:
        ctx.save_for_backward(rows, weight, gates)

        def part(matrix: Tensor, gate: Tensor) -> Tensor:
            return row_products((rows * gate[:, None, None]).flatten(0, 1), matrix)

        first, *others = zip(weight, gates.t(), strict=True)
        with autocast_off(rows.device):
            total = part(*first)
            for each in others:
                total.add_(part(*each))
        return total.view(*rows.shape[:2], -1)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        rows, weight, gates = ctx.saved_tensors
        with_rows, with_weight, with_gates = ctx.needs_input_grad
        grad = grad.flatten(0, 1)
        grad_rows = torch.zeros_like(rows) if with_rows else None
        grad_weight = torch.empty_like(weight) if with_weight else None
        grad_gates = torch.empty_like(gates) if with_gates else None
        with autocast_off(rows.device):
            for i, matrix in enumerate(weight):
                gate = gates[:, i, None, None]
                if with_rows or with_gates:
                    back = row_products(grad, matrix.t()).view(rows.shape)
                if grad_rows is not None:
                    grad_rows.addcmul_(back, gate)
                if grad_gates is not None:
                    grad_gates[:, i] = (back * rows).sum((1, 2))
                if grad_weight is not None:
                    scaled = (rows * gate).flatten(0, 1)
                    grad_weight[i] = row_products(grad.t(), scaled.t())
        return grad_rows, grad_weight, grad_gates


def mix_inputs(rows: Tensor, weight: Tensor, gates: Tensor) -> Tensor:
    """Multiply inputs, scaled by every source's gate, by its matrix: ``y_b = Σ_i a_bi x_b W_iᵀ``.

    Args:
        rows: unfolded inputs, ``(B, L, D)`` for ``L`` output positions.
        weight: matrices of the sources, ``(m, C_out, D)``, in the type of ``rows``.
        gates: gates of each sample, ``(B, m)``, in the type of ``rows``.

    Returns:
        Output ``(B, L, C_out)``.
    """
    return _MixedInputs.apply(rows, weight, gates)


def aligned_outputs(
    x: Tensor, kernels: SourceKernels, gates: Tensor, geometry: ConvGeometry
) -> Tensor:
    """Convolve with every source's unaligned kernel, then align and mix the outputs in one product.

    ``y_b = [T_1 | ... | T_m] [a_b1 W_1 * x_b; ...; a_bm W_m * x_b]``. Where a batch has fewer
    positions than the layer has channels this is cheaper than aligning kernels.

    Arguments and result as in :func:`convolve`; ``gates`` may be one set for all, ``(m,)``.
    """
    weight, bias, alignment = kernels
    if alignment is None:
        return mixed_outputs(x, kernels, gates.expand(len(x), -1), geometry)
    each = gates.expand(len(x), -1)
    groups, block = alignment.shape[1:3]
    m = len(weight)
    if bias is not None:
        bias = align(bias, alignment)
    if groups > 1:
        y = F.conv2d(x, _side_by_side(weight, groups).to(x.dtype), None, *geometry)
        scale = each[:, None, :, None].expand(-1, groups, -1, block).reshape(len(x), -1, 1, 1)
        maps = join_maps(alignment).reshape(groups * block, m * block, 1, 1)
        y = F.conv2d(y * scale.to(y.dtype), maps.to(y.dtype), groups=groups)
        return _add_bias(like(y, x), bias, each)
    if gates.dim() == 1:
        alignment = alignment * gates.to(alignment.dtype).view(m, 1, 1, 1)
    columns, size = _columns(x, weight, geometry)
    columns = columns.transpose(0, 1).flatten(1)
    y = product(weight.reshape(m * block, -1).to(x.dtype), columns)
    if gates.dim() == 2:
        y = y.view(m, block, len(x), -1) * gates.t().to(y.dtype)[:, None, :, None]
    y = product(join_maps(alignment)[0].to(x.dtype), y.view(m * block, -1))
    y = y.view(block, len(x), *size).transpose(0, 1)
    return _add_bias(like(y, x), bias, each)


def by_definition(
    x: Tensor, kernels: SourceKernels, gates: Tensor, geometry: ConvGeometry
) -> Tensor:
    """Convolve by :func:`~zoo_lightning.nn.reference.reference`, in the input's memory format.

    Arguments and result as in :func:`convolve`; ``gates`` may be one set for all, ``(m,)``.
    """
    return like(reference(x, kernels, gates, geometry), x)


WAYS: dict[str, Callable[[Tensor, SourceKernels, Tensor, ConvGeometry], Tensor]] = {
    REFERENCE: by_definition,
    "grouped": partial(convolve, engine="grouped"),
    "looped": partial(convolve, engine="looped"),
    "unfolded": partial(convolve, engine="unfolded"),
    "mixed_inputs": mixed_inputs,
    "mixed_outputs": mixed_outputs,
    "aligned_outputs": aligned_outputs,
}
"""Functions that compute a layer, by the names that the option ``plan`` takes."""


def aggregate(
    way: str, x: Tensor, kernels: SourceKernels, gates: Tensor, geometry: ConvGeometry
) -> Tensor:
    """Compute a layer in one of :data:`WAYS`, in the type that autocast asks for.

    Kernels are aligned and mixed in their own type also under autocast: half precision would round
    every source first.

    Args:
        way: key of :data:`WAYS`.
        x: input, ``(B, C_in, H, W)``.
        kernels: kernels, biases and alignment of the sources.
        gates: gates ``(B, m)``; ``reference`` and ``aligned_outputs`` take ``(m,)`` as well.
        geometry: stride, padding, dilation and groups.

    Returns:
        Output ``(B, C_out, H', W')``.
    """
    kind = x.device.type
    if torch.is_autocast_enabled(kind):
        x = x.to(torch.get_autocast_dtype(kind))
    with autocast_off(x.device):
        return WAYS[way](x, kernels, gates, geometry)


def _columns(x: Tensor, weight: Tensor, geometry: ConvGeometry) -> tuple[Tensor, tuple[int, int]]:
    """Unfold inputs to ``(B, C_in kh kw, L)``; also returns the output's height and width."""
    kernel = weight.shape[-2:]
    size = output_size(x.shape[2:], kernel, geometry)
    if is_pointwise(kernel, geometry):
        return subsample(x, geometry.stride).flatten(2), size
    stride, padding, dilation, _ = geometry
    return F.unfold(x, kernel, dilation, padding, stride), size


def _side_by_side(weight: Tensor, groups: int) -> Tensor:
    """Reorder kernels ``(m, C_out, ...)`` to ``(m C_out, ...)``, group by group.

    In a convolution of ``g`` groups the outputs are ordered by group, source and filter.
    """
    m, out_channels = weight.shape[:2]
    filters = weight.reshape(m, groups, out_channels // groups, -1).transpose(0, 1)
    return filters.reshape(m * out_channels, *weight.shape[2:])


def _add_bias(y: Tensor, bias: Tensor | None, gates: Tensor) -> Tensor:
    """Add the sources' biases ``(m, C_out)``, mixed by the gates, to outputs."""
    if bias is None:
        return y
    return y + mix(bias, gates).to(y.dtype)[:, :, None, None]
