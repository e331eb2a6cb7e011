"""Base class of the classification data modules: checks, validation split, transforms."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_warn

from zoo_lightning.data.classification.dataset import ROTATIONS, ClassSet, Sample, broken_images
from zoo_lightning.data.classification.transforms import evaluation_transform, training_transform
from zoo_lightning.data.image_files import one_form
from zoo_lightning.data.loading import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    ImageDataModule,
    sample_generator,
)
from zoo_lightning.data.splitting import (
    check_pattern,
    person_of,
    random_subset,
    split_by_group_and_class,
)
from zoo_lightning.errors import ConfigError, DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from torchvision.transforms import v2

Part = Literal["train", "val", "test"]


class ClassData(ImageDataModule, ABC):
    """Base data module of labelled images, with training, validation and test parts.

    Without a validation part, validation images are split off the training part. Testing reads the
    test part alone. All files are checked before the first step. A subclass implements ``_read``,
    and sets the attributes below before it calls ``__init__``.

    Args:
        image_size: side of the network's input, pixels.
        batch_size: samples per step and process.
        num_workers: number of loader processes; ``None``: one less than the cores, at most 4.
        seed: seed of the sample order, the augmentation and the validation split.
        val_fraction: fraction of each class's training images kept for validation where the data
            have no validation part, in (0, 1).
        group_pattern: regular expression that is removed from file stems; images with the same
            remainder in the same folder, the class folder aside, form a group (frames of a film,
            images of a patient). A group, which may span classes, is never divided between training
            and validation. Empty: each image is its own group.
        train_fraction: fraction of each class's remaining training images that is used, in (0, 1],
            at least one image of each class; smaller fractions are subsets of larger ones. The
            validation set stays the same.
        targets: ``class``, or ``rotation`` to predict by which multiple of 90° an image was turned.
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

    classes: list[str]
    """Names of the classes; their number is fixed on construction."""

    def __init__(
        self,
        image_size: int = 64,
        batch_size: int = 64,
        num_workers: int | None = None,
        seed: int = 0,
        val_fraction: float = 0.1,
        group_pattern: str = "",
        train_fraction: float = 1.0,
        targets: Literal["class", "rotation"] = "class",
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
        self.targets = targets
        self.resize = resize
        self.crop_scale, self.flip, self.jitter = crop_scale, flip, jitter
        self.test_crops = test_crops
        self.skip_broken = skip_broken

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @property
    def class_names(self) -> list[str]:
        """Names of the classes, or of the rotations, in the order of the network's outputs."""
        turns = [f"turned by {90 * turn}°" for turn in range(ROTATIONS)]
        return turns if self.targets == "rotation" else self.classes

    def varies_training_images(self) -> bool:
        """Whether training images differ between epochs, by augmentation or random turns."""
        return self.targets == "rotation" or (self.crop_scale, self.flip, self.jitter) != (1, 0, 0)

    def facts(self) -> dict[str, Any]:
        """Facts of :class:`ImageDataModule`, class names in output order, and preprocessing."""
        preprocessing = {"kind": "crop", "squeeze": self.resize, "crops": self.test_crops}
        return super().facts() | {"classes": self.class_names, "preprocessing": preprocessing}

    def training_options(self) -> dict[str, Any]:
        """Options of :class:`ImageDataModule`, and those of split, targets and augmentation."""
        names = ["val_fraction", "group_pattern", "train_fraction", "targets", "resize"]
        names += ["crop_scale", "flip", "jitter"]
        return super().training_options() | {name: getattr(self, name) for name in names}

    @abstractmethod
    def _read(self, part: Part) -> list[Sample] | None:
        """Read the samples of a part; ``None`` if the data have no validation part.

        Raises:
            DataError: files are missing or malformed.
        """

    def setup(self, stage: str) -> None:
        """Read and check the images of a stage.

        Raises:
            DataError: data or an image cannot be used.
        """
        if stage in ("fit", "validate") and not hasattr(self, "val_set"):
            train, val = self._usable("train") or [], self._usable("val")
            self._check_classes(train)
            self._find_value_range(files_of([*train, *(val or [])]), str(self.root))
            if val is None:
                train, val = self._split(train)
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

    def _training_files(self) -> list[Path]:
        return files_of([*(self._read("train") or []), *(self._read("val") or [])])

    def _set(self, samples: list[Sample], transform: v2.Transform) -> ClassSet:
        names = [self._name(source, index) for index, (source, _) in enumerate(samples)]
        return ClassSet(samples, names, transform, self.seed, self.targets, self.value_range)

    def _name(self, source: object, index: int) -> str:
        if not isinstance(source, Path):
            return str(index)
        inside = source.is_relative_to(self.root)
        return (source.relative_to(self.root) if inside else source).as_posix()

    def _usable(self, part: Part) -> list[Sample] | None:
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

    def _check_classes(self, train: list[Sample]) -> None:
        if len(self.class_names) < 2:
            raise DataError(
                f"{self.root} has one class, {self.class_names[0]!r}, and there is nothing to tell "
                "apart; add images of what is not of it as a class of their own."
            )
        present = {label for _, label in train}
        absent = [name for label, name in enumerate(self.classes) if label not in present]
        if absent and self.targets == "class":
            more = f" and {len(absent) - 1} other classes" if len(absent) > 1 else ""
            raise DataError(
                f"{self.root} has no training image of class {absent[0]!r}{more}; add images or "
                "remove the class."
            )

    def _split(self, samples: list[Sample]) -> tuple[list[Sample], list[Sample]]:
        """Split every class by ``val_fraction``, keeping some of each for training."""
        grouped = self.group_pattern and all(isinstance(source, Path) for source, _ in samples)
        split = self._split_groups if grouped else self._split_classes
        train, val = split(samples)
        if not val:
            raise DataError(
                f"{self.root} has too few images to keep any of training for validation; raise "
                f"`val_fraction`, now {self.val_fraction}, or add images."
            )
        return train, val

    def _split_classes(self, samples: list[Sample]) -> tuple[list[Sample], list[Sample]]:
        """Split each class image by image."""
        generator = sample_generator(self.seed, 0, -2)
        train: list[Sample] = []
        val: list[Sample] = []
        members: list[list[Sample]] = [[] for _ in self.classes]
        for sample in samples:
            members[sample[1]].append(sample)
        for name, own in zip(self.classes, members, strict=True):
            if len(own) == 1 and self.targets == "class":
                raise self._single("image", name)
            order = torch.randperm(len(own), generator=generator).tolist()
            # The last one is left for training in any case.
            wanted = round(self.val_fraction * len(own))
            count = min(wanted, len(own) - 1) if wanted else 0
            val += [own[i] for i in sorted(order[:count])]
            train += [own[i] for i in sorted(order[count:])]
        return train, val

    def _split_groups(self, samples: list[Sample]) -> tuple[list[Sample], list[Sample]]:
        """Split by whole groups of images, each of which may have several classes."""
        groups = [self._group(source, label) for source, label in samples]
        labels = [label if self.targets == "class" else 0 for _, label in samples]
        if self.targets == "class":
            numbers = Counter(label for _, label in set(zip(groups, labels, strict=True)))
            for label, number in sorted(numbers.items()):
                if number == 1:
                    raise self._single("group of images (`group_pattern`)", self.classes[label])
        train, val = split_by_group_and_class(groups, labels, self.val_fraction, self.seed)
        return [samples[i] for i in train], [samples[i] for i in val]

    def _group(self, source: Path | np.ndarray, label: int) -> str:
        """Group of an image, from its path without the folder of the class."""
        path = PurePosixPath(one_form(self._name(source, 0)))
        folders = list(path.parent.parts)
        if self.classes[label] in folders:
            folders.remove(self.classes[label])
        return person_of(str(PurePosixPath(*folders, path.name)), self.group_pattern)

    def _single(self, what: str, name: str) -> DataError:
        return DataError(
            f"{self.root} has a single training {what} of class {name!r}, so none can be kept for "
            "validation; add images, remove the class, or give validation images of your own."
        )

    def _subset(self, samples: list[Sample]) -> list[Sample]:
        """Draw ``train_fraction`` of every class's images."""
        labels = np.array([label for _, label in samples])
        chosen = [
            random_subset(np.flatnonzero(labels == label), self.train_fraction, self.seed)
            for label in np.unique(labels)
        ]
        return [samples[i] for i in np.sort(np.concatenate(chosen))]


def in_class_order(names: Iterable[str]) -> list[str]:
    """Sort class names: numerically if all are integers, else alphabetically."""
    ordered = sorted(names)
    return sorted(ordered, key=int) if all(map(is_integer, ordered)) else ordered


def is_integer(name: str) -> bool:
    """Whether a name consists of ASCII digits: ``7`` or ``007``, but not ``+7``."""
    return name.isascii() and name.isdigit()


def files_of(samples: Sequence[Sample]) -> list[Path]:
    """Paths of the samples whose images are files."""
    return [source for source, _ in samples if isinstance(source, Path)]


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
