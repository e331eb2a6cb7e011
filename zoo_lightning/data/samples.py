"""The dictionaries that landmark data sets hand to the task, alike for files and drawn faces."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch


def to_chw(pixels: np.ndarray) -> torch.Tensor:
    """``(H, W, 3)`` uint8 array to ``(3, H, W)`` uint8 tensor of its own memory."""
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))


def train_sample(
    pixels: np.ndarray, points: np.ndarray, visible: np.ndarray, index: int
) -> dict[str, Any]:
    """A training sample.

    Args:
        pixels: ``(S, S, 3)`` uint8.
        points: ``(K, 2)`` in the image's pixels.
        visible: ``(K,)`` bool, the points that count.
        index: position in the training set.

    Returns:
        ``image`` uint8 ``(3, S, S)``, ``points`` float32 ``(K, 2)`` in its pixels, ``visible`` bool
        ``(K,)``, ``index``.
    """
    return {
        "image": to_chw(pixels),
        "points": _float(points),
        "visible": torch.from_numpy(np.array(visible, bool)),
        "index": index,
    }


@dataclass(frozen=True)
class Truth:
    """What evaluation knows of an image besides its pixels.

    Args:
        original: ``(K, 2)`` true points in pixels of the original image.
        points: ``(K, 2)`` the same in pixels of the network's input.
        visible: ``(K,)`` bool, the points that count.
        to_original: ``(2, 3)`` map of input pixels to original pixels.
        distances: by the normalisations' names, original pixels.
        subsets: S times whether the face belongs to each of the data's S subsets.
        name: of the image.
        index: position in the data set.
    """

    original: np.ndarray
    points: np.ndarray
    visible: np.ndarray
    to_original: np.ndarray
    distances: dict[str, float]
    subsets: list[bool]
    name: str
    index: int

    def sample(self, pixels: np.ndarray) -> dict[str, Any]:
        """An evaluation sample: a training sample and all of these, as tensors.

        Args:
            pixels: ``(S, S, 3)`` uint8.
        """
        return {
            **train_sample(pixels, self.points, self.visible, self.index),
            "original": _float(self.original),
            "to_original": _float(self.to_original),
            "distances": {
                name: torch.tensor(distance, dtype=torch.float32)
                for name, distance in self.distances.items()
            },
            "subsets": torch.tensor(self.subsets, dtype=torch.bool),
            "name": self.name,
        }


def _float(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.array(array, dtype=np.float32))
