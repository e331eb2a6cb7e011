"""Norm layers' running statistics, estimated anew from images."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

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


def mixed(batches: Sequence[Tensor], most: int | None = None) -> list[Tensor]:
    """Batches of the same images in which images that were far apart are neighbors.

    Images often come class by class. The deviation within batches of one class each is smaller than
    that of all images together.

    Args:
        batches: ``(B, C, H, W)`` each, all but the last of one size.
        most: images to take, evenly spread over all; ``None`` for all.

    Returns:
        Batches of at least two images, one image less than there are where a single one would be
        left over.
    """
    images = torch.cat(list(batches))
    size = max(len(batches[0]), 2)
    count = len(images) if most is None else min(most, len(images))
    chosen = torch.linspace(0, len(images) - 1, count).round().long()
    parts = math.ceil(count / size)
    # Each part takes every so many images: of all classes, and of nearly equal numbers.
    return [images[chosen[part::parts]] for part in range(parts) if len(chosen[part::parts]) > 1]
