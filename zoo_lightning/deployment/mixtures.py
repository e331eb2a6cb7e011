"""Conversion of full zoos to mixtures of outputs, which exporters support.

A convolution with a kernel for each sample is a grouped convolution with as many groups as samples,
which ONNX cannot express for a variable batch size. Mixing the outputs of the sources' kernels
computes the same: ``y_b = Σ_i a_i(x_b) (T_i W_i * x_b)``, with the aligned kernels ``T_i W_i``
computed beforehand.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch.nn.functional as F
from torch import Tensor, nn

from zoo_lightning.nn import ZooConv2d, ZooLinear
from zoo_lightning.nn.aggregated import SampleCount, sample_count
from zoo_lightning.nn.conv import average_windows, repeat_for_windows
from zoo_lightning.nn.linear import join_windows, pool_channels

if TYPE_CHECKING:
    from zoo_lightning.models.backbone import ZooBackbone
    from zoo_lightning.nn import AggregatedLayer


class _Mixture(nn.Module):
    """Aggregated layer with constant aligned kernels and biases.

    Args:
        layer: aggregated layer in evaluation mode.
        copies: copies of gates by the original's id, so that layers with a common gate share it.
    """

    weight: Tensor
    bias: Tensor | None

    def __init__(self, layer: AggregatedLayer, copies: dict[int, Any] | None = None) -> None:
        super().__init__()
        kernels = layer.source_kernels().aligned()
        self.num_sources = layer.num_sources
        self.samples: SampleCount | None = None
        self.windowed = layer.windowed
        self.gate = copy.deepcopy(layer.gate, copies)
        self.register_buffer("weight", kernels.weight.detach().clone())
        bias = None if kernels.bias is None else kernels.bias.detach().clone()
        self.register_buffer("bias", bias)

    def count_samples(self, x: Tensor) -> int:
        """Number of samples in the input, as :meth:`AggregatedLayer.count_samples` counts."""
        return sample_count(x, self.samples, self.windowed)


class ConvMixture(_Mixture):
    """Full :class:`~zoo_lightning.nn.ZooConv2d` as a mixture of outputs, for any batch size.

    Args:
        layer: aggregated convolution in evaluation mode.
        copies: copies of gates by the original's id, so that layers with a common gate share it.
    """

    def __init__(self, layer: ZooConv2d, copies: dict[int, Any] | None = None) -> None:
        super().__init__(layer, copies)
        self.pad, self.geometry = layer.pad, layer.geometry
        groups = layer.geometry.groups
        # All sources' filters of a group side by side, as a convolution of ``groups`` has them.
        filters = self.weight.unflatten(1, (groups, -1)).transpose(0, 1)
        self.weight = filters.flatten(0, 2).contiguous()

    def forward(self, x: Tensor) -> Tensor:
        """Convolve ``(B, C_in, H, W)`` to ``(B, C_out, H', W')``."""
        pooled = average_windows(x.mean(dim=(2, 3)), self.count_samples(x))
        gates = repeat_for_windows(self.gate(pooled).to(x.dtype), x.shape[0])
        y = F.conv2d(self.pad(x), self.weight, None, *self.geometry)
        y = y.unflatten(1, (self.geometry.groups, self.num_sources, -1))
        y = (y * gates[:, None, :, None, None, None]).sum(dim=2).flatten(1, 2)
        return y if self.bias is None else y + (gates @ self.bias)[:, :, None, None]


class LinearMixture(_Mixture):
    """Full :class:`~zoo_lightning.nn.ZooLinear` as a mixture of outputs, for any batch size.

    Args:
        layer: aggregated linear layer in evaluation mode.
        copies: copies of gates by the original's id, so that layers with a common gate share it.
    """

    def __init__(self, layer: ZooLinear, copies: dict[int, Any] | None = None) -> None:
        super().__init__(layer, copies)
        self.positions = layer.positions
        self.weight = self.weight.flatten(2).flatten(0, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, ..., in)`` to ``(B, ..., out)``."""
        shape, x = x.shape, join_windows(x, self.count_samples(x))
        gates = self.gate(pool_channels(x, self.positions)).to(x.dtype)
        y = F.linear(x, self.weight).unflatten(-1, (self.num_sources, -1))
        between = (1,) * (x.dim() - 2)
        y = (y * gates.unflatten(0, (-1, *between))[..., None]).sum(dim=-2)
        if self.bias is not None:
            y = y + (gates @ self.bias).unflatten(0, (-1, *between))
        return y if y.shape[:-1] == shape[:-1] else y.reshape(*shape[:-1], -1)


def as_mixtures(backbone: ZooBackbone) -> nn.Module:
    """Copy the network of a full zoo, with every aggregated layer as a mixture of outputs.

    Args:
        backbone: backbone in evaluation mode; it is not changed.

    Returns:
        A new network that computes the same as the backbone's ``net``.
    """
    layers = backbone.aggregated_layers()
    kinds = {ZooConv2d: ConvMixture, ZooLinear: LinearMixture}
    # The sources' kernels are not copied on the way: there are as many as the zoo is large.
    gates: dict[int, Any] = {}
    memo = {id(layer): kinds[type(layer)](layer, gates) for layer in layers.values()}
    samples = SampleCount()
    for layer in layers.values():
        if layer.samples is not None:
            memo[id(layer)].samples = samples
    return copy.deepcopy(backbone.net, memo)
