"""Usual implementation of Zoo-Tuning's layer, which the package's layers are compared with.

Each forward pass computes everything again: alignment by a grouped 1×1 convolution of the stacked
kernels, aggregation by an einsum over the sources, and one grouped convolution over the batch
merged into the channels. Lite mode updates the moving average of its gates in the forward pass.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo_lightning.nn import AggregatedLayer, ZooConv2d, ZooLinear


class ReferenceConv2d(nn.Module):
    """The same function of the same parameters as a ``ZooConv2d``, in the usual implementation.

    Args:
        layer: layer to copy parameters, gates and geometry from.
    """

    def __init__(self, layer: ZooConv2d) -> None:
        super().__init__()
        own = copy.deepcopy(layer)
        self.mode, self.geometry, self.pad = own.mode, own.geometry, own.pad
        self.weight, self.bias, self.alignment = own.weight, own.bias, own.alignment
        self.gate = own.gate
        self.register_buffer("gate_ema", own.gate_ema)

    def aligned(self, stacked: Tensor) -> Tensor:
        """Align kernels ``(m, C_out, ...)`` by a grouped 1×1 convolution over ``m C_out``."""
        if self.alignment is None:
            return stacked
        m, groups, block, _ = self.alignment.shape
        image = stacked.reshape(m * groups * block, -1).t()[
            ..., None, None
        ]  # (C_in k k, m C_out, 1, 1)
        maps = self.alignment.reshape(m * groups * block, block, 1, 1)
        mapped = F.conv2d(image.contiguous(), maps, groups=m * groups)
        return mapped[..., 0, 0].t().reshape(stacked.shape)

    def gates(self, x: Tensor) -> Tensor:
        """Compute gates ``(B, m)``; in lite mode all rows are equal."""
        if self.mode == "lite" and not self.training:
            return self.gate_ema.expand(len(x), -1)
        gates = self.gate(F.adaptive_avg_pool2d(x, 1).flatten(1))
        if self.mode == "full":
            return gates
        average = gates.mean(0)
        with torch.no_grad():
            self.gate_ema.mul_(0.9).add_(average, alpha=0.1)
        return average.expand(len(x), -1)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve ``(B, C_in, H, W)`` to ``(B, C_out, H', W')``."""
        gates = self.gates(x)
        x = self.pad(x)
        batch, out_channels = len(x), self.weight.shape[1]
        kernels = torch.einsum("bm,moihw->boihw", gates, self.aligned(self.weight))
        y = F.conv2d(
            x.reshape(1, -1, *x.shape[2:]),
            kernels.flatten(0, 1),
            None,
            *self.geometry[:3],
            batch * self.geometry.groups,
        )
        y = y.view(batch, out_channels, *y.shape[2:])
        if self.bias is None:
            return y
        bias = torch.einsum("bm,mo->bo", gates, self.aligned(self.bias))
        return y + bias[..., None, None]


class ReferenceLinear(nn.Module):
    """The same function of the same parameters as a ``ZooLinear``, in the usual implementation.

    Args:
        layer: layer without alignment to copy parameters and gates from, whose input has a row for
            each sample.

    Raises:
        TypeError: the layer is aligned, or its input has a row for each window.
    """

    def __init__(self, layer: ZooLinear) -> None:
        super().__init__()
        if layer.alignment is not None or layer.windowed:
            raise TypeError("no reference for an aligned linear layer, nor for one of windows")
        own = copy.deepcopy(layer)
        self.mode, self.weight, self.bias, self.gate = own.mode, own.weight, own.bias, own.gate
        self.register_buffer("gate_ema", own.gate_ema)

    def gates(self, x: Tensor) -> Tensor:
        """Compute gates ``(B, m)``; in lite mode all rows are equal."""
        if self.mode == "lite" and not self.training:
            return self.gate_ema.expand(len(x), -1)
        gates = self.gate(x.flatten(1, -2).mean(1) if x.dim() > 2 else x)
        if self.mode == "full":
            return gates
        average = gates.mean(0)
        with torch.no_grad():
            self.gate_ema.mul_(0.9).add_(average, alpha=0.1)
        return average.expand(len(x), -1)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, ..., in)`` to ``(B, ..., out)``, with a matrix for each sample."""
        gates = self.gates(x)
        matrices = torch.einsum("bm,moi->bio", gates, self.weight)
        y = torch.bmm(x.reshape(len(x), -1, x.shape[-1]), matrices)
        if self.bias is not None:
            y = y + torch.einsum("bm,mo->bo", gates, self.bias)[:, None]
        return y.reshape(*x.shape[:-1], -1)


def reference_network(network: nn.Module) -> nn.Module:
    """Copy a network with every aggregated layer in the usual implementation.

    Raises:
        TypeError: there is no usual implementation of an aggregated layer.
    """
    network = copy.deepcopy(network)
    for name, layer in list(network.named_modules()):
        if isinstance(layer, ZooConv2d):
            network.set_submodule(name, ReferenceConv2d(layer))
        elif isinstance(layer, ZooLinear) and layer.positions == 1:
            network.set_submodule(name, ReferenceLinear(layer))
        elif isinstance(layer, AggregatedLayer):
            raise TypeError(f"layer {name!r} is a {type(layer).__name__}; no reference for it")
    return network
