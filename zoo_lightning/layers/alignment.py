"""Channel alignment: a learnable map of every source's output channels (section 3.2 of the paper).

A filter may only be mixed with filters that see the same inputs, so the map is block-diagonal over
the groups of a grouped convolution and a scale per channel in a depthwise one. It is stored as its
blocks: ``(m, g, o, o)`` for ``m`` sources, ``g`` groups of ``o`` output channels each.
"""

from __future__ import annotations

import torch
from torch import Tensor


def identity_alignment(num_sources: int, out_channels: int, groups: int) -> Tensor:
    """Alignment that changes nothing: ``(m, g, o, o)``, identity blocks."""
    block = out_channels // groups
    return torch.eye(block).expand(num_sources, groups, block, block).clone()


def align(weight: Tensor, alignment: Tensor) -> Tensor:
    """Apply every source's alignment: ``W̃_i[p] = Σ_o T_i[p, o] W_i[o]``.

    Args:
        weight: kernels or biases of the sources, ``(m, C_out, ...)``.
        alignment: ``(m, g, o, o)`` with ``g * o = C_out``.

    Returns:
        Same shape as ``weight``.
    """
    m, groups, block, _ = alignment.shape
    return (alignment @ weight.reshape(m, groups, block, -1)).reshape(weight.shape)


def align_and_mix(weight: Tensor, alignment: Tensor, gates: Tensor) -> Tensor:
    """Aligned kernels mixed by one set of gates, in one matrix product over the joined sources.

    ``Σ_i a_i T_i W_i = [a_1 T_1 | ... | a_m T_m] [W_1; ...; W_m]``, so that the ``m`` aligned
    kernels never exist.

    Args:
        weight: ``(m, C_out, ...)``.
        alignment: ``(m, g, o, o)``.
        gates: ``(m,)``.

    Returns:
        ``(C_out, ...)``.
    """
    m, groups, block, _ = alignment.shape
    maps = alignment * gates.to(alignment.dtype).view(m, 1, 1, 1)
    joined_maps = maps.permute(1, 2, 0, 3).reshape(groups, block, m * block)
    kernels = weight.reshape(m, groups, block, -1).transpose(0, 1)
    mixed = joined_maps @ kernels.reshape(groups, m * block, -1)
    return mixed.reshape(weight.shape[1:])
