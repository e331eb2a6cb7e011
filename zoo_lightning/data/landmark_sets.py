"""The data sets of annotated faces: varied samples to train on, plain ones to evaluate."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch.utils.data import Dataset

from zoo_lightning.data.augmentation import Augmentation, augment
from zoo_lightning.data.images import SquareImages, inverse_affine, transform_points
from zoo_lightning.data.loading import sample_generator
from zoo_lightning.data.samples import Truth, train_sample

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from zoo_lightning.data.landmark_table import LandmarkTable


class TrainSet(Dataset):
    """Varied training samples, indexed by ``(epoch, index)``.

    Args:
        images: the squares.
        points: ``(N, K, 2)`` in original pixels.
        visible: ``(N, K)`` bool, the points that count.
        size: side of the network's input, pixels.
        options: how far to vary.
        flip: permutation of the points under mirroring, or ``None``.
        seed: of the variations.
        extent: fraction of the squares' side that unvaried fills the input.
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
        """File of a sample, or its number where it is of no file."""
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


class EvaluationSet(Dataset):
    """Unvaried samples with all that evaluation in original pixels needs.

    Args:
        images: the squares, of the input's size.
        table: names, true points and subsets.
        visible: ``(N, K)`` bool, the points that count.
        distances: ``(N,)`` each, to divide errors by.
        subset_names: the order of the subsets; one that the table does not have has no member.
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
