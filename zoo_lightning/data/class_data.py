"""What the data modules of classification share: checks, the validation split, transforms."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_warn

from zoo_lightning.data.class_set import ROTATIONS, ClassSet, Sample, broken_images
from zoo_lightning.data.class_transforms import evaluation_transform, training_transform
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
    from torchvision.transforms import v2

Part = Literal["train", "val", "test"]


class ClassData(ImageDataModule, ABC):
    """Images of classes: a part to train on, one to validate by or a split for it, one to test.

    The test part is never trained on and alone is enough for testing. Everything is checked before
    the first step. A subclass says how a part is read. What it knows of its files, the attributes
    below, it sets before it calls ``__init__``.

    Args:
        image_size: side of the network's input, pixels.
        batch_size: samples per step and process.
        num_workers: loader processes; ``None`` takes one less than the cores, at most 4.
        seed: of the order, the augmentation and the validation split.
        val_fraction: of each class's training images, kept for validation where the data have no
            validation part of their own, in (0, 1).
        group_pattern: regular expression; images whose files' stems are alike without what it
            matches, and whose folders are besides that of the class, belong together (frames of a
            film, pictures of a patient), of whatever classes they are, and are all trained on or
            all validated by. Empty: each image is by itself.
        train_fraction: of each class's images left for training, that are used, in (0, 1]; at least
            one, and a smaller fraction is a subset of a larger one. Validation stays the same.
        targets: ``class``, or ``rotation`` to learn which quarter turn an image was given.
        resize: side of the square that every whole image is squeezed into first, crops being cut
            from that (256 in the paper); ``None`` keeps the proportions.
        crop_scale: smallest share of the image's area that a training crop shows, in (0, 1].
        flip: probability of mirroring a training image.
        jitter: strength of brightness, contrast and saturation changes, at least 0.
        test_crops: 1, the centre, or 10, corners and centre of the image and of its mirror image,
            whose outputs are averaged; needs ``resize``.
        skip_broken: leave out files that are no readable images, and say how many, in place of
            refusing to run. Every image is decoded once before the first step, so that none is met
            later.
        mean: subtracted from each channel of an image in [0, 1].
        std: what each channel is then divided by.

    Raises:
        ConfigError: for options outside their range.
        DataError: for data that are absent or wrong.
    """

    root: Path
    """Folder of the data, which images' names are relative to."""

    classes: list[str]
    """Names of the classes; their number is known from construction on."""

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
    ) -> None:
        super().__init__(image_size, batch_size, num_workers, seed, mean, std)
        _check_options(image_size, val_fraction, resize, crop_scale, flip, jitter, test_crops)
        if not 0 < train_fraction <= 1:
            raise ConfigError(f"`train_fraction` must be in (0, 1], found {train_fraction}.")
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
        """Number of classes, known from construction on."""
        return len(self.class_names)

    @property
    def class_names(self) -> list[str]:
        """What is told apart, in the order of the network's outputs."""
        turns = [f"turned by {90 * turn}°" for turn in range(ROTATIONS)]
        return turns if self.targets == "rotation" else self.classes

    def facts(self) -> dict[str, Any]:
        """As :class:`ImageDataModule` has them, with ``classes``, in the order of the outputs."""
        preprocessing = {"kind": "crop", "squeeze": self.resize, "crops": self.test_crops}
        return super().facts() | {"classes": self.class_names, "preprocessing": preprocessing}

    def training_options(self) -> dict[str, Any]:
        """As :class:`ImageDataModule` has them, with the split, the targets and the variations."""
        names = ("val_fraction", "group_pattern", "train_fraction", "targets", "resize")
        names += ("crop_scale", "flip", "jitter")
        return super().training_options() | {name: getattr(self, name) for name in names}

    @abstractmethod
    def _read(self, part: Part) -> list[Sample] | None:
        """Samples of a part; ``None`` if the data have no validation part of their own.

        Raises:
            DataError: for files that are absent or wrong.
        """

    def setup(self, stage: str) -> None:
        """Read and check the images that the stage needs.

        Raises:
            DataError: for data or an image that cannot be used.
        """
        if stage in ("fit", "validate") and not hasattr(self, "val_set"):
            train, val = self._usable("train") or [], self._usable("val")
            self._check_classes(train)
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
            self.test_set = self._set(self._usable("test") or [], transform)

    def _set(self, samples: list[Sample], transform: v2.Transform) -> ClassSet:
        names = [self._name(source, index) for index, (source, _) in enumerate(samples)]
        return ClassSet(samples, names, transform, self.seed, self.targets)

    def _name(self, source: object, index: int) -> str:
        if not isinstance(source, Path):
            return str(index)
        inside = source.is_relative_to(self.root)
        return (source.relative_to(self.root) if inside else source).as_posix()

    def _usable(self, part: Part) -> list[Sample] | None:
        """Samples of a part without broken images, which are an error unless they are skipped."""
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
        """Split every class alike, at least one image or group of each for training."""
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
        """Each class by itself, each image by itself."""
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
        """Whole groups of images, each of which may have several classes."""
        groups = [self._group(source, label) for source, label in samples]
        labels = [label if self.targets == "class" else 0 for _, label in samples]
        if self.targets == "class":
            numbers = Counter(label for _, label in set(zip(groups, labels, strict=True)))
            for label, number in sorted(numbers.items()):
                if number == 1:
                    raise self._single("group of images (`group_pattern`)", self.classes[label])
        train, val = split_by_group_and_class(groups, labels, self.val_fraction, self.seed)
        return [samples[i] for i in train], [samples[i] for i in val]

    def _group(self, source: Path, label: int) -> str:
        """What an image shares with those that belong to it, whatever class they are of."""
        path = PurePosixPath(self._name(source, 0))
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
        """A fraction of every class's images."""
        labels = np.array([label for _, label in samples])
        chosen = [
            random_subset(np.flatnonzero(labels == label), self.train_fraction, self.seed)
            for label in np.unique(labels)
        ]
        return [samples[i] for i in np.sort(np.concatenate(chosen))]


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
        raise ConfigError(f"`val_fraction` must be between 0 and 1, found {val_fraction}.")
    if not 0 < crop_scale <= 1:
        raise ConfigError(f"`crop_scale` must be above 0 and at most 1, found {crop_scale}.")
    if not 0 <= flip <= 1:
        raise ConfigError(f"`flip` must be between 0 and 1, found {flip}.")
    if jitter < 0:
        raise ConfigError(f"`jitter` must be at least 0, found {jitter}.")
    if resize is not None and resize < image_size:
        raise ConfigError(f"`resize` must be at least `image_size`, {image_size}, found {resize}.")
    if test_crops not in (1, 10):
        raise ConfigError(f"`test_crops` must be 1 or 10, found {test_crops}.")
    if test_crops == 10 and (resize is None or resize == image_size):
        raise ConfigError(
            f"`test_crops: 10` needs `resize` above `image_size`, for instance "
            f"{round(image_size * 256 / 224)}: else all crops are the same."
        )
