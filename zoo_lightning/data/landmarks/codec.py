"""Conversion of landmarks between fractions, network pixels and original pixels.

A network predicts fractions of its input's width and height, so that one head serves any input
size; errors are measured in pixels of the original image. All coordinates are continuous, with the
origin at the top left corner of the top left pixel: a pixel's centre is at a half, and resizing by
a factor multiplies every coordinate by it.
"""

from __future__ import annotations

import torch
from torch import Tensor


class FractionCodec:
    """Codec between points in pixels and fractions of the image."""

    def encode(self, points: Tensor, size: tuple[int, int]) -> Tensor:
        """Convert pixels to fractions of an image of the given size.

        Args:
            points: ``(B, K, 2)`` x and y in pixels.
            size: width and height in pixels.

        Returns:
            ``(B, K, 2)``, in [0, 1] for points inside the image.
        """
        return points / _like(points, size)

    def decode(self, fractions: Tensor, size: tuple[int, int]) -> Tensor:
        """Convert fractions to pixels in an image of the given size.

        Args:
            fractions: ``(B, K, 2)`` of the width and the height.
            size: width and height in pixels.

        Returns:
            ``(B, K, 2)`` x and y in pixels.
        """
        return fractions * _like(fractions, size)


def _like(points: Tensor, size: tuple[int, int]) -> Tensor:
    """Width and height ``(2,)`` beside points, filled on their device: a copy there would wait."""
    return torch.stack([points.new_full((), side) for side in size])


def to_original(points: Tensor, affine: Tensor) -> Tensor:
    """Map points from the network's input to the original image, keeping their dtype.

    Args:
        points: ``(B, K, 2)`` in pixels of the input.
        affine: ``(B, 2, 3)``, a sample's ``to_original``.

    Returns:
        ``(B, K, 2)`` in pixels of the original image.
    """
    # No product of matrices: autocast would round it to half precision, pixels in large images.
    x, y, shift = (affine[:, None, :, column] for column in range(3))
    return points[..., :1] * x + points[..., 1:] * y + shift
