"""Estimation of batch norms' running statistics from images."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


@torch.no_grad()
def estimate_norms(network: nn.Module, batches: Iterable[Tensor]) -> None:
    """Replace the running statistics of a network's batch norms by the average over batches.

    All other layers stay in their mode, training or evaluation.

    Args:
        network: network on the images' device; only its statistics change.
        batches: normalised images ``(B, C, H, W)``. Batches of one image should be left out: where
            a feature map has one position, one image has no deviation.
    """
    layers = [layer for layer in network.modules() if isinstance(layer, _BatchNorm)]
    if not layers:
        return
    before = [(layer.momentum, layer.training) for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # an average over all batches, in which each counts the same
        layer.train()
    for images in batches:
        network(images.contiguous(memory_format=torch.channels_last))
    for layer, (momentum, training) in zip(layers, before, strict=True):
        layer.momentum = momentum
        layer.train(training)


def interleaved(batches: Sequence[Tensor], limit: int | None = None) -> list[Tensor]:
    """Regroup images so that each batch has images from the whole sequence.

    Images are often ordered by class, and the deviation within batches of one class is smaller than
    that of all images together.

    Args:
        batches: batches of images ``(B, C, H, W)``, all but the last of one size.
        limit: number of images to take, evenly spread; ``None`` takes all.

    Returns:
        Batches of at least two images; a single image that would be left over is dropped.
    """
    images = torch.cat(list(batches))
    size = max(len(batches[0]), 2)
    count = len(images) if limit is None else min(limit, len(images))
    chosen = torch.linspace(0, len(images) - 1, count).round().long()
    parts = math.ceil(count / size)
    # Each part takes every so many images: of all classes, and of nearly equal numbers.
    return [images[chosen[part::parts]] for part in range(parts) if len(chosen[part::parts]) > 1]
