"""The dictionaries that landmark data sets hand to the task, alike for files and drawn faces."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from zoo_lightning.data.images import inverse_affine, transform_points

if TYPE_CHECKING:
    from zoo_lightning.data.schemes import LandmarkScheme


def to_chw(pixels: np.ndarray) -> torch.Tensor:
    """``(H, W, 3)`` uint8 array to ``(3, H, W)`` uint8 tensor of its own memory."""
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))


def train_sample(pixels: np.ndarray, points: np.ndarray, index: int) -> dict[str, Any]:
    """A training sample.

    Args:
        pixels: ``(S, S, 3)`` uint8.
        points: ``(K, 2)`` in the image's pixels.
        index: position in the training set.

    Returns:
        ``image`` uint8 ``(3, S, S)``, ``points`` float32 ``(K, 2)`` in its pixels, ``index``.
    """
    return {"image": to_chw(pixels), "points": _float(points), "index": index}


@dataclass(frozen=True)
class Truth:
    """What evaluation knows of an image besides its pixels.

    Args:
        original: ``(K, 2)`` true points in pixels of the original image.
        points: ``(K, 2)`` the same in pixels of the network's input.
        to_original: ``(2, 3)`` map of input pixels to original pixels.
        interocular: distance between the eyes, original pixels; NaN without eyes.
        box: ``sqrt(w * h)`` of the tight box around the points, original pixels.
        name: of the image.
        index: position in the data set.
    """

    original: np.ndarray
    points: np.ndarray
    to_original: np.ndarray
    interocular: float
    box: float
    name: str
    index: int

    def sample(self, pixels: np.ndarray) -> dict[str, Any]:
        """An evaluation sample: a training sample and all of these, as tensors.

        Args:
            pixels: ``(S, S, 3)`` uint8.
        """
        return {
            **train_sample(pixels, self.points, self.index),
            "original": _float(self.original),
            "to_original": _float(self.to_original),
            "interocular": torch.tensor(self.interocular, dtype=torch.float32),
            "box": torch.tensor(self.box, dtype=torch.float32),
            "name": self.name,
        }


def box_size(points: np.ndarray) -> np.ndarray:
    """``sqrt(w * h)`` of the tight box around points ``(..., K, 2)``, ``(...)``."""
    return np.sqrt(np.prod(np.ptp(points, axis=-2), axis=-1))


def truth_of(
    original: np.ndarray, to_input: np.ndarray, scheme: LandmarkScheme, name: str, index: int
) -> Truth:
    """Compute what evaluation needs from the true points and the map to the network's input."""
    return Truth(
        original,
        transform_points(original, to_input),
        inverse_affine(to_input),
        float(scheme.interocular(original)),
        float(box_size(original)),
        name,
        index,
    )


def _float(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.array(array, dtype=np.float32))
