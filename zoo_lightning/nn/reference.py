"""The equation of an aggregated layer, written out: what every faster way must compute.

``W(x) = Σ_i a_i(x) T_i W_i`` and ``y = W(x) * x`` (Shu et al., *Zoo-Tuning*, ICML 2021,
sections 3.2 and 3.3), one sample after the other, in torch's own operations. The layer option
``plan="reference"`` runs it; :mod:`zoo_lightning.nn.fast` computes the same in less time. Letters:
``B`` samples, ``m`` sources, ``C_in`` and ``C_out`` channels, ``g`` groups of ``o`` output channels
each.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo_lightning.nn.alignment import align

REFERENCE = "reference"
"""Name of the plan that computes by :func:`reference`."""


class ConvGeometry(NamedTuple):
    """Stride, padding, dilation and groups of a convolution.

    Attributes:
        stride: stride, (vertical, horizontal).
        padding: zeros added on both sides, (vertical, horizontal).
        dilation: dilation of the kernel, (vertical, horizontal).
        groups: number of groups.
    """

    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1


class SourceKernels(NamedTuple):
    """Kernels, biases and channel alignment of all sources in one layer.

    Attributes:
        weight: kernels, ``(m, C_out, C_in / g, kh, kw)``.
        bias: biases, ``(m, C_out)``, or ``None``.
        alignment: blocks of the channel alignment, ``(m, g, o, o)``, still to be applied to kernels
            and biases; or ``None``.
    """

    weight: Tensor
    bias: Tensor | None = None
    alignment: Tensor | None = None

    def aligned(self) -> SourceKernels:
        """Kernels and biases with the alignment applied; the result has no alignment left."""
        if self.alignment is None:
            return self
        bias = None if self.bias is None else align(self.bias, self.alignment)
        return SourceKernels(align(self.weight, self.alignment), bias)


def reference(x: Tensor, kernels: SourceKernels, gates: Tensor, geometry: ConvGeometry) -> Tensor:
    """Convolve each sample with its aggregated kernel, by the definition.

    Args:
        x: input, ``(B, C_in, H, W)``.
        kernels: kernels, biases and alignment of the sources.
        gates: gates ``a``: ``(B, m)``, or ``(m,)`` for one set for the whole batch.
        geometry: stride, padding, dilation and groups.

    Returns:
        Output ``(B, C_out, H', W')``.
    """
    weight, bias, alignment = kernels
    if alignment is not None:
        maps = torch.stack([torch.block_diag(*blocks) for blocks in alignment])  # T_i
        weight = torch.einsum("mpo,moikl->mpikl", maps, weight)  # T_i W_i
        bias = None if bias is None else torch.einsum("mpo,mo->mp", maps, bias)
    outputs = []
    for sample, a in zip(x.split(1), gates.to(weight.dtype).expand(len(x), -1), strict=True):
        kernel = torch.einsum("m,mpikl->pikl", a, weight)  # W(x) = Σ_i a_i(x) T_i W_i
        offset = None if bias is None else (a @ bias).to(x.dtype)
        # Contiguous: torch 2.15 gives wrong gradients for grouped convolutions of one sample of a
        # channels-last batch.
        outputs.append(F.conv2d(sample.contiguous(), kernel.to(x.dtype), offset, *geometry))
    return torch.cat(outputs)
