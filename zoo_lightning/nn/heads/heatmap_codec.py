"""Encoding of points as heat maps, and decoding of heat maps to points.

Cell ``(i, j)`` of a map ``(h, w)`` stands for the fraction ``((j + 0.5) / w, (i + 0.5) / h)`` of
the image, so a map may have any size, whatever the image's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

Decoding = Literal["soft_argmax", "argmax", "taylor"]


def encode_heatmaps(points: Tensor, size: tuple[int, int], sigma: float) -> Tensor:
    """Encode points as Gaussians, centred on the points and not on the nearest cells.

    Args:
        points: points ``(B, K, 2)``, fractions of the image.
        size: height and width of the maps, in cells.
        sigma: standard deviation of the Gaussians, in cells.

    Returns:
        Heat maps ``(B, K, h, w)`` in [0, 1], 1 where a point lies on a cell's centre; close to 0
        everywhere for a point outside the image.
    """
    height, width = size
    x, y = points[..., 0:1] * width, points[..., 1:2] * height
    across = torch.exp(-0.5 * ((centres(width, points) - x) / sigma) ** 2)
    down = torch.exp(-0.5 * ((centres(height, points) - y) / sigma) ** 2)
    return down[..., :, None] * across[..., None, :]


def centres(length: int, like: Tensor) -> Tensor:
    """Centres of ``length`` cells along one axis, in cells: 0.5, 1.5, ...

    Args:
        length: number of cells.
        like: tensor whose device and type the result has.
    """
    return torch.arange(length, device=like.device, dtype=like.dtype) + 0.5


def probabilities(scores: Tensor) -> Tensor:
    """Softmax of scores ``(B, K, h, w)`` over all cells of each map."""
    return scores.flatten(2).softmax(dim=-1).view_as(scores)


def soft_argmax(scores: Tensor) -> Tensor:
    """Decode by the mean position under the softmax (Sun et al., ECCV 2018, equation 3).

    Args:
        scores: scores of all cells, ``(B, K, h, w)``.

    Returns:
        Points ``(B, K, 2)``, fractions of the image, between the outermost cells' centres.
    """
    height, width = scores.shape[-2:]
    shares = probabilities(scores)
    x = (shares.sum(-2) * centres(width, scores)).sum(-1) / width
    y = (shares.sum(-1) * centres(height, scores)).sum(-1) / height
    return torch.stack([x, y], dim=-1)


def argmax(heatmaps: Tensor) -> Tensor:
    """Decode by the brightest cell, moved a quarter of a cell towards its brighter neighbours.

    As HRNet's authors do (Sun et al., CVPR 2019, section 3), along each axis. At the map's edge the
    point is not moved along the axis that has only one neighbour.

    Args:
        heatmaps: heat maps ``(B, K, h, w)``.

    Returns:
        Points ``(B, K, 2)``, fractions of the image.
    """
    return _peaks(heatmaps, lambda slope, _: 0.25 * slope.sign())


def taylor(heatmaps: Tensor) -> Tensor:
    """Decode by the brightest cell, moved to the top of a parabola through the maps' logarithm.

    For Gaussian maps that top is the centre itself (Zhang et al., *DARK*, CVPR 2020, equation 8,
    here for each axis alone). Steps longer than one cell are ignored.

    Args:
        heatmaps: heat maps ``(B, K, h, w)``; values are clamped to at least a thousandth of a
            map's largest value.

    Returns:
        Points ``(B, K, 2)``, fractions of the image.
    """

    def towards_top(slope: Tensor, bend: Tensor) -> Tensor:
        step = torch.where(bend < 0, -slope / bend, 0.0)
        return torch.where(step.abs() <= 1, step, 0.0)

    top = heatmaps.amax(dim=(-2, -1), keepdim=True).clamp(min=1e-6)
    return _peaks(heatmaps.maximum(top * 1e-3).log(), towards_top)


def _peaks(maps: Tensor, move: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Brightest cells, moved along each axis by a function of slope and curvature there."""
    height, width = maps.shape[-2:]
    index = maps.flatten(2).argmax(dim=-1)
    row, column = index // width, index % width

    def value(rows: Tensor, columns: Tensor) -> Tensor:
        return maps.flatten(2).gather(2, (rows * width + columns)[..., None])[..., 0]

    def along(place: Tensor, length: int, at: Callable[[Tensor], Tensor]) -> Tensor:
        inside = (place > 0) & (place < length - 1)
        before, after = at((place - 1).clamp(min=0)), at((place + 1).clamp(max=length - 1))
        step = move((after - before) / 2, after - 2 * at(place) + before)
        return (place + 0.5 + torch.where(inside, step, 0.0)) / length

    x = along(column, width, lambda columns: value(row, columns))
    y = along(row, height, lambda rows: value(rows, column))
    return torch.stack([x, y], dim=-1)


DECODINGS = {"soft_argmax": soft_argmax, "argmax": argmax, "taylor": taylor}
"""Functions from heat maps to points, by the names of the option ``decode``."""
