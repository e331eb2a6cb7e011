"""Convolution with one aggregated kernel per sample: the exact ways of computing it.

All ways compute ``y_b = (Σ_i a_i(x_b) T_i W_i) * x_b`` and differ only in speed and memory by the
shape of the layer; which one is used is :mod:`zoo_lightning.layers.planner`'s affair. Letters:
``B`` batch, ``m`` sources, ``C_in``, ``C_out`` channels, ``g`` groups. Padding is a pair of
integers here; whoever pads otherwise pads the input first.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo_lightning.layers.alignment import align, join_maps
from zoo_lightning.layers.mixed_inputs import mix_inputs
from zoo_lightning.layers.per_sample import (
    ConvGeometry,
    convolve_per_sample,
    is_pointwise,
    like,
    mix,
    output_size,
    subsample,
)
from zoo_lightning.layers.products import autocast_off, product

if TYPE_CHECKING:
    from collections.abc import Callable


class SourceKernels(NamedTuple):
    """The sources' kernels of one layer.

    Attributes:
        weight: ``(m, C_out, C_in / g, kh, kw)``.
        bias: ``(m, C_out)`` or ``None``.
        alignment: ``(m, g, o, o)``, still to be applied to both, or ``None``.
    """

    weight: Tensor
    bias: Tensor | None = None
    alignment: Tensor | None = None

    def aligned(self) -> SourceKernels:
        """The same with the alignment applied to kernels and biases, in their own type."""
        if self.alignment is None:
            return self
        bias = None if self.bias is None else align(self.bias, self.alignment)
        return SourceKernels(align(self.weight, self.alignment), bias)


def convolve(
    x: Tensor, kernels: SourceKernels, gates: Tensor, geometry: ConvGeometry, engine: str
) -> Tensor:
    """A kernel per sample, made slice by slice and made again for the gradients.

    Args:
        x: ``(B, C_in, H, W)``.
        kernels: of the sources.
        gates: ``(B, m)``.
        geometry: stride, padding, dilation, groups.
        engine: how a slice is convolved, see :mod:`zoo_lightning.layers.per_sample`.

    Returns:
        ``(B, C_out, H', W')``.
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
    """Scale the unfolded inputs by every source's gate, then one product a source.

    Arguments and result as in :func:`convolve`. Grouped convolutions mix outputs instead.
    """
    if geometry.groups > 1:
        return mixed_outputs(x, kernels, gates, geometry)
    weight, bias, _ = kernels.aligned()
    columns, size = _columns(x, weight, geometry)
    y = mix_inputs(columns.transpose(1, 2), weight.flatten(2).to(x.dtype), gates.to(x.dtype))
    y = y.view(len(x), *size, -1).permute(0, 3, 1, 2)
    return _add_bias(like(y, x), bias, gates)


def aligned_outputs(
    x: Tensor, kernels: SourceKernels, gates: Tensor, geometry: ConvGeometry
) -> Tensor:
    """Convolve with every source's kernel as it is, then align and mix the outputs in one product.

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


WAYS: dict[str, Callable[[Tensor, SourceKernels, Tensor, ConvGeometry], Tensor]] = {
    "grouped": partial(convolve, engine="grouped"),
    "looped": partial(convolve, engine="looped"),
    "unfolded": partial(convolve, engine="unfolded"),
    "mixed_inputs": mixed_inputs,
    "mixed_outputs": mixed_outputs,
    "aligned_outputs": aligned_outputs,
}


def aggregate(
    way: str, x: Tensor, kernels: SourceKernels, gates: Tensor, geometry: ConvGeometry
) -> Tensor:
    """Compute in one of ``WAYS``, in the type that autocast asks for.

    Kernels are aligned and mixed in their own type also under autocast: half precision would round
    every source first.
    """
    kind = x.device.type
    if torch.is_autocast_enabled(kind):
        x = x.to(torch.get_autocast_dtype(kind))
    with autocast_off(x.device):
        return WAYS[way](x, kernels, gates, geometry)


def _columns(x: Tensor, weight: Tensor, geometry: ConvGeometry) -> tuple[Tensor, tuple[int, int]]:
    """Unfolded inputs ``(B, C_in kh kw, L)``, and the output's size."""
    kernel = weight.shape[-2:]
    size = output_size(x.shape[2:], kernel, geometry)
    if is_pointwise(kernel, geometry):
        return subsample(x, geometry.stride).flatten(2), size
    stride, padding, dilation, _ = geometry
    return F.unfold(x, kernel, dilation, padding, stride), size


def _side_by_side(weight: Tensor, groups: int) -> Tensor:
    """Kernels ``(m, C_out, ...)`` as ``(m C_out, ...)``, all sources' filters of a group together.

    In a convolution of ``g`` groups the outputs are then ordered (group, source, filter).
    """
    m, out_channels = weight.shape[:2]
    filters = weight.reshape(m, groups, out_channels // groups, -1).transpose(0, 1)
    return filters.reshape(m * out_channels, *weight.shape[2:])


def _add_bias(y: Tensor, bias: Tensor | None, gates: Tensor) -> Tensor:
    if bias is None:
        return y
    return y + mix(bias, gates).to(y.dtype)[:, :, None, None]
