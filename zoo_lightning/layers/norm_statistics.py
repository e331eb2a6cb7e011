"""Norm layers' running statistics, estimated anew from images."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


@torch.no_grad()
def estimate_norms(network: nn.Module, batches: Iterable[Tensor]) -> None:
    """Replace the running statistics of a network's batch norms by a plain average over batches.

    All but these layers run as they are, in training or evaluation.

    Args:
        network: on the images' device; only its statistics change.
        batches: normalised images ``(B, C, H, W)``. One image alone has no deviation where a
            feature map is down to one place, so batches of one image are better left out.
    """
    layers = [layer for layer in network.modules() if isinstance(layer, _BatchNorm)]
    if not layers:
        return
    before = [(layer.momentum, layer.training) for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # torch's sign for a plain average over all batches
        layer.train()
    for images in batches:
        network(images.contiguous(memory_format=torch.channels_last))
    for layer, (momentum, training) in zip(layers, before, strict=True):
        layer.momentum = momentum
        layer.train(training)
