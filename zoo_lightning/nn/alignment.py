"""Channel alignment: a learnable map of every source's output channels (section 3.2 of the paper).

A filter may only be mixed with filters that see the same inputs, so the map is block-diagonal over
the groups of a grouped convolution and a scale per channel in a depthwise one. It is stored as its
blocks: ``(m, g, o, o)`` for ``m`` sources, ``g`` groups of ``o`` output channels each.

Attention divides output channels into heads, which a map must not mix: there it is block-diagonal
over queries, keys and values of each head, and the blocks of queries and keys of one head are the
same map (:mod:`zoo_lightning.models.attention_heads`). Such a layer stores each map once, and
:func:`repeat_maps` brings them to the form above.
"""

from __future__ import annotations

import torch
from torch import Tensor

from zoo_lightning.nn.fast.products import product


def identity_alignment(num_sources: int, out_channels: int, groups: int) -> Tensor:
    """Blocks of an alignment that changes nothing: identities, ``(m, g, o, o)``.

    Args:
        num_sources: number of sources ``m``.
        out_channels: number of output channels ``g * o``.
        groups: number of groups ``g`` of the convolution.
    """
    block = out_channels // groups
    return torch.eye(block).expand(num_sources, groups, block, block).clone()


def repeat_maps(alignment: Tensor, blocks: Tensor | None) -> Tensor:
    """Repeat maps that several blocks share: ``(m, n, o, o)`` to ``(m, g, o, o)``.

    Args:
        alignment: maps of the sources.
        blocks: number of each block's map, ``(g,)``; ``None`` if each block has its own.
    """
    return alignment if blocks is None else alignment.index_select(1, blocks)


def align(weight: Tensor, alignment: Tensor) -> Tensor:
    """Apply every source's alignment: ``W̃_i[p] = Σ_o T_i[p, o] W_i[o]``.

    Args:
        weight: kernels or biases of the sources, ``(m, C_out, ...)``.
        alignment: blocks of the alignment, ``(m, g, o, o)`` with ``g * o = C_out``.

    Returns:
        Aligned kernels or biases, in the shape of ``weight``.
    """
    block = alignment.shape[-1]
    blocks = weight.reshape(-1, block, weight[0].numel() // weight.shape[1])
    return product(alignment.flatten(0, 1), blocks).reshape(weight.shape)


def join_maps(alignment: Tensor) -> Tensor:
    """Join the sources' maps to ``[T_1 | ... | T_m]``: ``(m, g, o, o)`` to ``(g, o, m o)``."""
    m, groups, block, _ = alignment.shape
    return alignment.permute(1, 2, 0, 3).reshape(groups, block, m * block)


def align_and_mix(weight: Tensor, alignment: Tensor, gates: Tensor) -> Tensor:
    """Align kernels and mix them by one set of gates, in one matrix product.

    ``Σ_i a_i T_i W_i = [a_1 T_1 | ... | a_m T_m] [W_1; ...; W_m]``, so that the ``m`` aligned
    kernels are never stored. The backward pass is two products of the same size, one for the
    kernels and one for the joined maps, from which the gates' gradient follows.

    Args:
        weight: kernels or biases of the sources, ``(m, C_out, ...)``.
        alignment: blocks of the alignment, ``(m, g, o, o)``.
        gates: one gate for each source, ``(m,)``.

    Returns:
        Aggregated kernel or bias, ``(C_out, ...)``.
    """
    m, groups, block, _ = alignment.shape
    maps = join_maps(alignment * gates.to(alignment.dtype).view(m, 1, 1, 1))
    if groups == 1:
        mixed = product(maps[0], weight.reshape(m * block, -1))
    else:
        kernels = weight.reshape(m, groups, block, -1).transpose(0, 1)
        mixed = product(maps, kernels.reshape(groups, m * block, -1))
    return mixed.reshape(weight.shape[1:])
