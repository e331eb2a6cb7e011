"""Landmarks of image files, annotated in CSV: reading, checking, splitting and loading them."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_info
from torch.utils.data import Dataset

from zoo_lightning.data.augmentation import NO_AUGMENTATION, Augmentation, augment
from zoo_lightning.data.images import SquareImages, check_present, transform_points
from zoo_lightning.data.landmark_csv import LandmarkTable, read_landmark_csv, read_num_points
from zoo_lightning.data.loading import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    ImageDataModule,
    sample_generator,
)
from zoo_lightning.data.samples import box_size, train_sample, truth_of
from zoo_lightning.data.schemes import LandmarkScheme, scheme_for
from zoo_lightning.errors import ConfigError, DataError

__all__ = ["LandmarkCSV", "LandmarkTable", "read_landmark_csv"]

CACHE_RATIO = 1.5
"""Training images are cached at this multiple of the input's side: the warp that follows is
bilinear, sharp enough when it enlarges and free of aliasing when it shrinks."""


def person_of(name: str, pattern: str) -> str:
    """Who an image shows: its name without what the pattern matches in the stem.

    If nothing remains of the stem, the folder tells the person; without a folder, each image is its
    own person.
    """
    path = PurePosixPath(name)
    remainder = re.sub(pattern, "", path.stem)
    if not remainder and path.parent == PurePosixPath("."):
        remainder = path.stem
    return str(path.parent / remainder)


def split_by_group(groups: list[str], fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Split samples so that each group is wholly on one side.

    Args:
        groups: of each sample.
        fraction: of the samples, at least which goes to the second side, in (0, 1).
        seed: decides which groups.

    Returns:
        Increasing indices of the first and of the second side.

    Raises:
        DataError: if there are too few groups for both sides.
    """
    names, members = np.unique(groups, return_inverse=True)
    order = torch.randperm(len(names), generator=sample_generator(seed, 0, -2)).numpy()
    sizes = np.bincount(members)[order]
    count = int(np.searchsorted(np.cumsum(sizes), fraction * len(groups) - 1e-9)) + 1
    if count >= len(names):
        raise DataError(
            f"{len(groups)} images of {len(names)} persons cannot be split for validation; lower "
            "`val_fraction`, or set `group_pattern` so that removing what it matches from a file's "
            "name leaves the person (an empty pattern: every image is its own)."
        )
    second = np.isin(members, order[:count])
    return np.flatnonzero(~second), np.flatnonzero(second)


class TrainSet(Dataset):
    """Varied training samples, indexed by ``(epoch, index)``.

    Args:
        images: the squares.
        points: ``(N, K, 2)`` in original pixels.
        size: side of the network's input, pixels.
        options: how far to vary.
        flip: permutation of the points under mirroring, or ``None``.
        seed: of the variations.
    """

    def __init__(
        self,
        images: SquareImages,
        points: np.ndarray,
        size: int,
        options: Augmentation,
        flip: tuple[int, ...] | None,
        seed: int,
    ) -> None:
        self.images = images
        self.points = [transform_points(points[i], images.transform(i)) for i in range(len(images))]
        self.size = size
        self.options = options
        self.flip = flip
        self.seed = seed

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, position: tuple[int, int]) -> dict[str, Any]:
        epoch, index = position
        pixels, points = augment(
            self.images[index],
            self.points[index],
            self.size,
            self.options,
            self.flip,
            sample_generator(self.seed, epoch, index),
        )
        return train_sample(pixels, points, index)


class EvaluationSet(Dataset):
    """Unvaried samples with all that evaluation in original pixels needs.

    Args:
        images: the squares, of the input's size.
        table: names and true points.
        scheme: says which points are the eyes.

    Raises:
        DataError: naming an image whose points leave nothing to normalise the error by.
    """

    def __init__(self, images: SquareImages, table: LandmarkTable, scheme: LandmarkScheme) -> None:
        self.images = images
        interocular, boxes = scheme.interocular(table.points), box_size(table.points)
        for distances, what in ((interocular, "eyes"), (boxes, "outermost points")):
            if (distances == 0).any():
                name = table.names[int(np.argmin(distances))]
                raise DataError(
                    f"The {what} are 0 pixels apart in {name!r}: its error cannot be normalised; "
                    "correct its line or remove it."
                )
        self.truths = [
            truth_of(table.points[i], images.transform(i), scheme, name, i)
            for i, name in enumerate(table.names)
        ]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.truths[index].sample(self.images[index])


class LandmarkCSV(ImageDataModule):
    """Landmarks annotated as ``image,x0,y0,x1,y1,...``, in pixels of the original images.

    ``train.csv`` is split by person for validation; ``test.csv`` is never trained on and alone is
    enough for testing. Everything is checked before the first step.

    Args:
        root: folder of the CSV files and of the image folder.
        train_csv: file name inside ``root``; needed for training and validation only.
        test_csv: file name inside ``root``; needed for testing only.
        images: image folder inside ``root``, which the names in the CSV files are relative to.
        image_size: side of the network's input, pixels.
        batch_size: samples per step and process.
        num_workers: loader processes; ``None`` takes one less than the cores, at most 4.
        seed: of the order, the augmentation and the validation split.
        val_fraction: of the images of ``train_csv``, kept for validation, in (0, 1).
        group_pattern: regular expression; what remains of a file's stem after removing what it
            matches is the person, who is wholly trained on or wholly validated on. An empty
            pattern takes each image for a person of its own.
        train_fraction: of the images left for training, that are used, in (0, 1]; a smaller
            fraction is a subset of a larger one. Validation stays the same.
        scheme: name of a landmark scheme (``ibug68``, ``faces5``); ``None`` recognises them by the
            number of points.
        flip_pairs: own pairs of points that swap under mirroring, in place of a scheme.
        eyes: two groups of indices whose means are the inter-ocular distance apart.
        augment: how far training images are varied; ``true`` for the defaults, ``false`` for none.
        cache_mb: megabytes of decoded images to keep, per split; beyond it they are decoded each
            time.
        mean: subtracted from each channel of an image in [0, 1].
        std: what each channel is then divided by.

    Raises:
        ConfigError: for options outside their range or against the data.
        DataError: for files that are absent or wrong; on construction only if no header is
            readable.
    """

    def __init__(
        self,
        root: str,
        train_csv: str = "train.csv",
        test_csv: str = "test.csv",
        images: str = "images",
        image_size: int = 64,
        batch_size: int = 32,
        num_workers: int | None = None,
        seed: int = 0,
        val_fraction: float = 0.1,
        group_pattern: str = r"_?\d+$",
        train_fraction: float = 1.0,
        scheme: str | None = None,
        flip_pairs: list[tuple[int, int]] | None = None,
        eyes: tuple[list[int], list[int]] | None = None,
        augment: bool | Augmentation = True,
        cache_mb: float = 1024.0,
        mean: tuple[float, float, float] = IMAGENET_MEAN,
        std: tuple[float, float, float] = IMAGENET_STD,
    ) -> None:
        super().__init__(image_size, batch_size, num_workers, seed, mean, std)
        _check_fractions(val_fraction, train_fraction)
        try:
            re.compile(group_pattern)
        except re.error as error:
            raise ConfigError(
                f"`group_pattern` {group_pattern!r} is no regular expression ({error})."
            ) from error
        self.train_csv = Path(root) / train_csv
        self.test_csv = Path(root) / test_csv
        self.image_folder = Path(root) / images
        self.val_fraction = val_fraction
        self.group_pattern = group_pattern
        self.train_fraction = train_fraction
        self.cache_mb = cache_mb
        first = self.train_csv
        if not first.is_file() and self.test_csv.is_file():
            first = self.test_csv
        self._num_points = read_num_points(first)
        self.scheme = scheme_for(self._num_points, scheme, flip_pairs, eyes)
        self.augmentation = _augmentation(augment, self.scheme)

    @property
    def num_points(self) -> int:
        """K, known from construction on."""
        return self._num_points

    def setup(self, stage: str) -> None:
        """Read and check what the stage needs: ``fit``, ``validate``, ``test`` or ``predict``.

        Raises:
            DataError: for anything about the files that would stop training or testing.
        """
        if stage in ("fit", "validate") and not hasattr(self, "val_set"):
            table = self._read(self.train_csv)
            groups = [person_of(name, self.group_pattern) for name in table.names]
            train, val = split_by_group(groups, self.val_fraction, self.seed)
            self._train_table = table.take(random_subset(train, self.train_fraction, self.seed))
            self.val_set = self._evaluation_set(table.take(val))
        if stage == "fit" and not hasattr(self, "train_set"):
            self.train_set = self._training_set(self._train_table)
        if stage in ("test", "predict") and not hasattr(self, "test_set"):
            self.test_set = self._evaluation_set(self._read(self.test_csv))

    def _read(self, path: Path) -> LandmarkTable:
        table = read_landmark_csv(path)
        if table.points.shape[1] != self.num_points:
            raise DataError(
                f"{path} has {table.points.shape[1]} points, but {self.train_csv} has "
                f"{self.num_points}; both must have the same."
            )
        check_present(table.names, self.image_folder, path)
        return table

    def _images(self, table: LandmarkTable, side: int, enlarge: bool) -> SquareImages:
        paths = [self.image_folder / name for name in table.names]
        images = SquareImages(paths, side, self.cache_mb, enlarge)
        outside = (table.points < 0) | (table.points > np.array(images.sizes)[:, None])
        if outside.any():
            rank_zero_info(
                f"{int(outside.any(-1).sum())} of {outside[..., 0].size} points lie outside their "
                f"image, in {int(outside.any((-2, -1)).sum())} of {len(table)} images; they are "
                "used as they are."
            )
        return images

    def _training_set(self, table: LandmarkTable) -> TrainSet:
        images = self._images(table, round(CACHE_RATIO * self.image_size), enlarge=False)
        flip = self.scheme.flip
        return TrainSet(images, table.points, self.image_size, self.augmentation, flip, self.seed)

    def _evaluation_set(self, table: LandmarkTable) -> EvaluationSet:
        return EvaluationSet(self._images(table, self.image_size, True), table, self.scheme)


def random_subset(indices: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """At least one of the indices, increasing; smaller fractions are subsets of larger ones."""
    count = max(round(fraction * len(indices)), 1)
    order = torch.randperm(len(indices), generator=sample_generator(seed, 0, -3)).numpy()
    return np.sort(indices[order[:count]])


def _check_fractions(val_fraction: float, train_fraction: float) -> None:
    if not 0 < val_fraction < 1:
        raise ConfigError(f"`val_fraction` must be between 0 and 1, found {val_fraction}.")
    if not 0 < train_fraction <= 1:
        raise ConfigError(f"`train_fraction` must be in (0, 1], found {train_fraction}.")


def _augmentation(augment: bool | Augmentation, scheme: LandmarkScheme) -> Augmentation:
    """The variations to make, without mirroring where nobody knows which points swap."""
    if augment is False:
        return NO_AUGMENTATION
    options = Augmentation() if augment is True else augment
    if options.flip and scheme.flip is None:
        rank_zero_info(
            f"Images are not mirrored: which of the {scheme.num_points} points swap is not known. "
            "Give `flip_pairs` to mirror them."
        )
        options = replace(options, flip=0.0)
    return options
