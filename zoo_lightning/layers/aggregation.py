"""Convolution with one aggregated kernel per sample: exact ways of computing it, and the choice.

All ways compute ``y_b = (Σ_i a_i(x_b) W_i) * x_b`` and differ only in speed and memory by the shape
of the layer. Letters: ``B`` batch, ``m`` sources, ``C_in``, ``C_out`` channels, ``g`` groups.
Padding is a pair of integers here; whoever pads otherwise pads the input first.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class ConvGeometry(NamedTuple):
    """What a convolution needs to know beside its kernels; pairs are (vertical, horizontal)."""

    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1


def mix(weight: Tensor, gates: Tensor) -> Tensor:
    """Kernels or biases mixed by gates: ``(m, ...)`` and ``(B, m)`` or ``(m,)`` to ``(B, ...)``."""
    mixed = gates.to(weight.dtype) @ weight.flatten(1)
    return mixed.reshape(*gates.shape[:-1], *weight.shape[1:])


def grouped(
    x: Tensor, weight: Tensor, bias: Tensor | None, gates: Tensor, geometry: ConvGeometry
) -> Tensor:
    """One grouped convolution over the batch merged into the channels, as in the authors' code.

    Args:
        x: ``(B, C_in, H, W)``.
        weight: ``(m, C_out, C_in / g, kh, kw)``.
        bias: ``(m, C_out)`` or ``None``.
        gates: ``(B, m)``.
        geometry: stride, padding, dilation, groups.

    Returns:
        ``(B, C_out, H', W')``.
    """
    batch, out_channels = len(x), weight.shape[1]
    kernels = mix(weight, gates).flatten(0, 1).to(x.dtype)
    merged = x.reshape(1, -1, *x.shape[2:])
    y = F.conv2d(merged, kernels, None, *geometry[:3], groups=batch * geometry.groups)
    y = y.reshape(batch, out_channels, *y.shape[2:])
    return _add_bias(y, bias, gates)


def unfolded(
    x: Tensor, weight: Tensor, bias: Tensor | None, gates: Tensor, geometry: ConvGeometry
) -> Tensor:
    """Batched matrix product of kernels and unfolded inputs; 1×1 kernels need no unfolding.

    Arguments and result as in :func:`grouped`.
    """
    batch, out_channels = len(x), weight.shape[1]
    size = [_output_size(x, weight, geometry, axis) for axis in (0, 1)]
    if weight.shape[-2:] == (1, 1) and geometry.padding == (0, 0):
        columns = x[:, :, :: geometry.stride[0], :: geometry.stride[1]]
    else:
        columns = F.unfold(
            x, weight.shape[-2:], geometry.dilation, geometry.padding, geometry.stride
        )
    columns = columns.reshape(batch, geometry.groups, -1, size[0] * size[1])
    kernels = mix(weight, gates).to(x.dtype)
    kernels = kernels.reshape(batch, geometry.groups, out_channels // geometry.groups, -1)
    return _add_bias((kernels @ columns).reshape(batch, out_channels, *size), bias, gates)


def mixed_outputs(
    x: Tensor, weight: Tensor, bias: Tensor | None, gates: Tensor, geometry: ConvGeometry
) -> Tensor:
    """Convolve with every source, then mix the outputs: no kernel per sample ever exists.

    Arguments and result as in :func:`grouped`.
    """
    m, out_channels = weight.shape[:2]
    groups, block = geometry.groups, out_channels // geometry.groups
    # All sources' filters of one group must lie side by side.
    filters = weight.reshape(m, groups, block, -1).transpose(0, 1)
    filters = filters.reshape(m * out_channels, *weight.shape[2:]).to(x.dtype)
    y = F.conv2d(x, filters, None, *geometry)
    y = y.reshape(len(x), groups, m, block, *y.shape[2:])
    y = torch.einsum("bgmohw,bm->bgohw", y, gates.to(y.dtype)).flatten(1, 2)
    return _add_bias(y, bias, gates)


WAYS = {"grouped": grouped, "unfolded": unfolded, "mixed_outputs": mixed_outputs}

FEW_SOURCES = 4
"""Up to here convolving with every source costs less than one grouped convolution, which libraries
compute group by group."""


def choose(weight: Tensor, geometry: ConvGeometry) -> str:
    """Name of the way for a layer with kernels ``(m, C_out, C_in / g, kh, kw)``.

    A first rule from a few measurements: batched products for 1×1 kernels, otherwise mixed outputs
    for few sources and a grouped convolution for many.
    """
    if weight.shape[-2:] == (1, 1) and geometry.groups == 1:
        return "unfolded"
    return "mixed_outputs" if len(weight) <= FEW_SOURCES else "grouped"


def _output_size(x: Tensor, weight: Tensor, geometry: ConvGeometry, axis: int) -> int:
    reach = geometry.dilation[axis] * (weight.shape[3 + axis] - 1) + 1
    room = x.shape[2 + axis] + 2 * geometry.padding[axis] - reach
    return room // geometry.stride[axis] + 1


def _add_bias(y: Tensor, bias: Tensor | None, gates: Tensor) -> Tensor:
    if bias is None:
        return y
    return y + mix(bias, gates).to(y.dtype)[:, :, None, None]
