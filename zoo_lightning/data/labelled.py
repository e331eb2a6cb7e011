"""Base class of data modules of labelled images: checks, validation split, transforms."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

import numpy as np
from lightning.pytorch.utilities import rank_zero_warn

from zoo_lightning.data.labelled_set import LabelledSet, Source, broken_images
from zoo_lightning.data.loading import IMAGENET_MEAN, IMAGENET_STD, ImageDataModule
from zoo_lightning.data.splitting import check_pattern, person_of, random_subset, split_by_group
from zoo_lightning.data.stored_images import ImageFile, StoredImage
from zoo_lightning.data.transforms import evaluation_transform, training_transform
from zoo_lightning.errors import ConfigError, DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torchvision.transforms import v2

Part = Literal["train", "val", "test"]

L = TypeVar("L")


class LabelledImages(ImageDataModule, ABC, Generic[L]):
    """Base data module of images with a label each, with training, validation and test parts.

    Without a validation part, validation images are split off the training part. Testing reads the
    test part alone. All files are checked before the first step. A subclass implements ``_read``,
    and sets the attributes below before it calls ``__init__``.

    Args:
        image_size: side of the network's input, pixels.
        batch_size: samples per step and process.
        num_workers: number of loader processes; ``None``: one less than the cores, at most 4.
        seed: seed of the sample order, the augmentation and the validation split.
        val_fraction: fraction of the training images (of each class, where there are classes) kept
            for validation where the data have no validation part, in (0, 1).
        group_pattern: regular expression that is removed from file stems; images with the same
            remainder in the same folder, the class folder aside, form a group (frames of a film,
            images of a patient). A group, which may span classes, is never divided between training
            and validation. Empty: each image is its own group.
        train_fraction: fraction of the remaining training images (of each class, where there are
            classes) that is used, in (0, 1], at least one image; smaller fractions are subsets of
            larger ones. The validation set stays the same.
        resize: side in pixels of the square that images are resized to, ignoring their aspect
            ratio, before they are cropped (256 in the paper); ``None`` keeps the aspect ratio.
        crop_scale: smallest share of the image's area that a training crop shows, in (0, 1].
        flip: probability of mirroring a training image.
        jitter: strength of brightness, contrast and saturation changes, at least 0.
        test_crops: 1 for the centre crop, or 10 for the corners and centre of the image and of its
            mirror image, with averaged outputs; 10 needs ``resize``.
        skip_broken: leave out unreadable image files, with a warning of how many, instead of
            raising an error. Every image is decoded once before the first step, so that none fails
            later.
        mean: per-channel mean, subtracted from images in [0, 1].
        std: standard deviation that each channel is then divided by.
        value_range: ``LOW,HIGH``, pixel values of black and white in images with more than 8 bits
            or floating-point values, such as ``0,4095`` for a 12-bit detector; ``None`` estimates
            one range for all images from the training images.

    Raises:
        ConfigError: an option is out of range.
        DataError: images are missing or malformed.
    """

    root: Path
    """Folder of the data, which image names are relative to."""

    def __init__(
        self,
        image_size: int = 64,
        batch_size: int = 64,
        num_workers: int | None = None,
        seed: int = 0,
        val_fraction: float = 0.1,
        group_pattern: str = "",
        train_fraction: float = 1.0,
        resize: int | None = None,
        crop_scale: float = 0.35,
        flip: float = 0.5,
        jitter: float = 0.3,
        test_crops: Literal[1, 10] = 1,
        skip_broken: bool = False,
        mean: tuple[float, float, float] = IMAGENET_MEAN,
        std: tuple[float, float, float] = IMAGENET_STD,
        value_range: tuple[float, float] | str | None = None,
    ) -> None:
        super().__init__(image_size, batch_size, num_workers, seed, mean, std, value_range)
        _check_options(image_size, val_fraction, resize, crop_scale, flip, jitter, test_crops)
        if not 0 < train_fraction <= 1:
            raise ConfigError(f"`train_fraction` must be in (0, 1], got {train_fraction}.")
        check_pattern(group_pattern)
        self.val_fraction = val_fraction
        self.group_pattern = group_pattern
        self.train_fraction = train_fraction
        self.resize = resize
        self.crop_scale, self.flip, self.jitter = crop_scale, flip, jitter
        self.test_crops = test_crops
        self.skip_broken = skip_broken

    def varies_training_images(self) -> bool:
        """Whether training images differ between epochs, by augmentation."""
        return (self.crop_scale, self.flip, self.jitter) != (1, 0, 0)

    def facts(self) -> dict[str, Any]:
        """Facts of :class:`ImageDataModule`, and preprocessing."""
        preprocessing = {"kind": "crop", "squeeze": self.resize, "crops": self.test_crops}
        return super().facts() | {"preprocessing": preprocessing}

    def training_options(self) -> dict[str, Any]:
        """Options of :class:`ImageDataModule`, and those of split and augmentation."""
        names = ["val_fraction", "group_pattern", "train_fraction", "resize"]
        names += ["crop_scale", "flip", "jitter"]
        return super().training_options() | {name: getattr(self, name) for name in names}

    @abstractmethod
    def _read(self, part: Part) -> list[tuple[Source, L]] | None:
        """Read the samples of a part; ``None`` if the data have no validation part.

        Raises:
            DataError: files are missing or malformed.
        """

    def _check_training(self, train: list[tuple[Source, L]]) -> None:
        """Check the labels of the training images.

        Raises:
            DataError: a network cannot be trained on them.
        """

    def setup(self, stage: str) -> None:
        """Read and check the images of a stage.

        Raises:
            DataError: data or an image cannot be used.
        """
        if stage in ("fit", "validate") and not hasattr(self, "val_set"):
            train, val = self._usable("train") or [], self._usable("val")
            self._check_training(train)
            self._find_value_range(files_of([*train, *(val or [])]), str(self.root))
            if val is None:
                train, val = self._split(train)
                if not val:
                    raise DataError(
                        f"{self.root} has too few images to keep any of training for validation; "
                        f"raise `val_fraction`, now {self.val_fraction}, or add images."
                    )
            train = self._subset(train)
            augment = training_transform(
                self.image_size, self.resize, self.crop_scale, self.flip, self.jitter
            )
            self.train_set = self._set(train, augment)
            self.val_set = self._set(val, evaluation_transform(self.image_size, self.resize))
        if stage in ("test", "predict") and not hasattr(self, "test_set"):
            transform = evaluation_transform(self.image_size, self.resize, self.test_crops)
            test = self._usable("test") or []
            self._find_test_value_range(files_of(test), self._training_files, str(self.root))
            self.test_set = self._set(test, transform)

    def _training_files(self) -> list[ImageFile]:
        return files_of([*(self._read("train") or []), *(self._read("val") or [])])

    def _set(self, samples: list[tuple[Source, L]], transform: v2.Transform) -> LabelledSet[L]:
        """Create the data set of a part."""
        return LabelledSet(samples, self._names(samples), transform, self.seed, self.value_range)

    def _names(self, samples: list[tuple[Source, L]]) -> list[str]:
        return [self._name(source, index) for index, (source, _) in enumerate(samples)]

    def _name(self, source: object, index: int) -> str:
        if isinstance(source, StoredImage):
            return source.name
        if not isinstance(source, Path):
            return str(index)
        inside = source.is_relative_to(self.root)
        return (source.relative_to(self.root) if inside else source).as_posix()

    def _usable(self, part: Part) -> list[tuple[Source, L]] | None:
        """Read a part without broken images, which are an error unless they are skipped."""
        samples = self._read(part)
        if samples is None:
            return None
        broken = broken_images([source for source, _ in samples], decode=self.skip_broken)
        if broken:
            first = next(iter(broken.values()))
            others = f" So are {len(broken) - 1} others." if len(broken) > 1 else ""
            if not self.skip_broken:
                raise DataError(f"{first}{others} Or set `skip_broken: true`.")
            rank_zero_warn(
                f"{len(broken)} of {len(samples)} {part} images are skipped. {first}",
                category=UserWarning,
            )
        usable = [sample for index, sample in enumerate(samples) if index not in broken]
        if not usable:
            raise DataError(f"{self.root} has no {part} images that can be used; add some.")
        return usable

    def _split(
        self, samples: list[tuple[Source, L]]
    ) -> tuple[list[tuple[Source, L]], list[tuple[Source, L]]]:
        """Split training samples into training and validation, whole groups together."""
        names = self._names(samples)
        groups = [
            person_of(name, self.group_pattern) if self.group_pattern else name for name in names
        ]
        train, val = split_by_group(groups, self.val_fraction, self.seed)
        return [samples[i] for i in train], [samples[i] for i in val]

    def _subset(self, samples: list[tuple[Source, L]]) -> list[tuple[Source, L]]:
        """Draw ``train_fraction`` of the training samples."""
        chosen = random_subset(np.arange(len(samples)), self.train_fraction, self.seed)
        return [samples[i] for i in chosen]


def files_of(samples: Sequence[tuple[Source, Any]]) -> list[ImageFile]:
    """Images of the samples that are files, or inside files."""
    return [source for source, _ in samples if not isinstance(source, np.ndarray)]


def _check_options(
    image_size: int,
    val_fraction: float,
    resize: int | None,
    crop_scale: float,
    flip: float,
    jitter: float,
    test_crops: int,
) -> None:
    if not 0 < val_fraction < 1:
        raise ConfigError(f"`val_fraction` must be between 0 and 1, got {val_fraction}.")
    if not 0 < crop_scale <= 1:
        raise ConfigError(f"`crop_scale` must be above 0 and at most 1, got {crop_scale}.")
    if not 0 <= flip <= 1:
        raise ConfigError(f"`flip` must be between 0 and 1, got {flip}.")
    if jitter < 0:
        raise ConfigError(f"`jitter` must be at least 0, got {jitter}.")
    if resize is not None and resize < image_size:
        raise ConfigError(f"`resize` must be at least `image_size`, {image_size}, got {resize}.")
    if test_crops not in (1, 10):
        raise ConfigError(f"`test_crops` must be 1 or 10, got {test_crops}.")
    if test_crops == 10 and (resize is None or resize == image_size):
        raise ConfigError(
            f"`test_crops: 10` needs `resize` above `image_size`, for instance "
            f"{round(image_size * 256 / 224)}: else all crops are the same."
        )
