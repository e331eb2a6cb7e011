"""Where a group's channels lie along an axis: what both ways of matching compare channels by."""

from __future__ import annotations

import torch
from torch import Tensor

from zoo_lightning.matching.channels import Group


def indices_of(group: Group, channels: Tensor) -> Tensor | None:
    """Indices along an axis of each of a group's channels: ``(channels, times)``.

    Args:
        group: to look for.
        channels: ``(size,)``, numbers of the channels along the axis.

    Returns:
        ``None`` if they are not all there.
    """
    inside = (channels >= group.start) & (channels < group.span.stop)
    index = inside.nonzero().flatten()
    times = len(index) // group.channels
    if not times or len(index) % group.channels:
        return None
    order = torch.argsort(channels[index], stable=True)
    return index[order].reshape(group.channels, times)


def rows_of(tensor: Tensor, dim: int, indices: Tensor) -> Tensor:
    """A tensor's slices along an axis, those of one channel side by side: ``(channels, rest)``."""
    chosen = tensor.index_select(dim, indices.flatten()).movedim(dim, 0)
    return chosen.reshape(len(indices), -1)
