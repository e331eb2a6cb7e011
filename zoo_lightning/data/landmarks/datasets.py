"""Data sets of annotated faces: augmented samples for training, unaugmented ones for evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from zoo_lightning.data.augmentation import Augmentation, augment
from zoo_lightning.data.images import SquareImages, inverse_affine, transform_points
from zoo_lightning.data.loading import SizedDataset, sample_generator

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zoo_lightning.data.landmarks.table import LandmarkTable


def to_chw(pixels: np.ndarray) -> torch.Tensor:
    """Copy a uint8 array ``(H, W, 3)`` to a uint8 tensor ``(3, H, W)``."""
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))


def train_sample(
    pixels: np.ndarray, points: np.ndarray, visible: np.ndarray, index: int
) -> dict[str, Any]:
    """Build a training sample.

    Args:
        pixels: ``(S, S, 3)`` uint8.
        points: ``(K, 2)`` in the image's pixels.
        visible: ``(K,)`` bool mask of the points that count.
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
    """Ground truth of an image for evaluation.

    Args:
        original: ``(K, 2)`` true points in pixels of the original image.
        points: ``(K, 2)`` true points in pixels of the network's input.
        visible: ``(K,)`` bool mask of the points that count.
        to_original: ``(2, 3)`` map of input pixels to original pixels.
        distances: normalisation distances by name, original pixels; NaN where the face lacks the
            points.
        subsets: for each of the data's S subsets, whether the face belongs to it.
        name: name of the image.
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
        """Build an evaluation sample: image, points and this ground truth as tensors.

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


class TrainSet(SizedDataset):
    """Augmented training samples, indexed by ``(epoch, index)``.

    Args:
        images: training images as squares.
        points: ``(N, K, 2)`` in original pixels.
        visible: ``(N, K)`` bool mask of the points that count.
        size: side of the network's input, pixels.
        options: options of the augmentation.
        flip: permutation of the points under mirroring, or ``None``.
        seed: seed of the augmentation.
        extent: fraction of the squares' side that fills the input without augmentation.
    """

    def __init__(
        self,
        images: SquareImages,
        points: np.ndarray,
        visible: np.ndarray,
        size: int,
        options: Augmentation,
        flip: tuple[int, ...] | None,
        seed: int,
        extent: float = 1.0,
    ) -> None:
        self.images = images
        self.points = [transform_points(points[i], images.transform(i)) for i in range(len(images))]
        self.visible = visible
        self.size = size
        self.options = options
        self.flip = flip
        self.seed = seed
        self.extent = extent

    def __len__(self) -> int:
        return len(self.images)

    def sample_name(self, index: int) -> str:
        """Path of a sample's image file, or its index if the image is in memory."""
        source = self.images.sources[index]
        return str(source) if isinstance(source, Path) else f"sample {index}"

    def __getitem__(self, position: tuple[int, int]) -> dict[str, Any]:
        epoch, index = position
        pixels, points, visible = augment(
            self.images[index],
            self.points[index],
            self.size,
            self.options,
            self.flip,
            sample_generator(self.seed, epoch, index),
            self.visible[index],
            self.extent,
        )
        return train_sample(pixels, points, visible, index)


class EvaluationSet(SizedDataset):
    """Unaugmented samples with their ground truth in original pixels.

    Args:
        images: evaluation images as squares of the network's input size.
        table: names, true points and subsets.
        visible: ``(N, K)`` bool mask of the points that count.
        distances: normalisation distances by name, ``(N,)`` each, original pixels; NaN where a face
            lacks the points.
        subset_names: names of the subsets, in the order of a sample's ``subsets``; a subset that
            the table lacks has no members.
    """

    def __init__(
        self,
        images: SquareImages,
        table: LandmarkTable,
        visible: np.ndarray,
        distances: dict[str, np.ndarray],
        subset_names: Sequence[str] = (),
    ) -> None:
        self.images = images
        self.truths = []
        for i, name in enumerate(table.names):
            to_input = images.transform(i)
            self.truths.append(
                Truth(
                    table.points[i],
                    transform_points(table.points[i], to_input),
                    visible[i],
                    inverse_affine(to_input),
                    {key: float(values[i]) for key, values in distances.items()},
                    [
                        subset in table.subsets and table.subsets[subset][i]
                        for subset in subset_names
                    ],
                    name,
                    i,
                )
            )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.truths[index].sample(self.images[index])
