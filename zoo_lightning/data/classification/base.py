"""Base class of the classification data modules: classes, validation split by class."""

from __future__ import annotations

from collections import Counter
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_info

from zoo_lightning.data.classification.dataset import ROTATIONS, ClassSet, Sample
from zoo_lightning.data.image_files import one_form
from zoo_lightning.data.labelled import LabelledImages
from zoo_lightning.data.labelled_set import Source
from zoo_lightning.data.loading import BalancedSampler, ShuffledSampler, sample_generator
from zoo_lightning.data.splitting import person_of, random_subset, split_by_group_and_class
from zoo_lightning.errors import ConfigError, DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from torchvision.transforms import v2


class ClassData(LabelledImages[int]):
    """Base data module of images of classes, with training, validation and test parts.

    A subclass implements ``_read``, and sets ``root`` and ``classes`` before it calls ``__init__``.

    Args:
        image_size: side of the network's input, pixels.
        batch_size: samples per step and process.
        targets: ``class``, or ``rotation`` to predict by which multiple of 90° an image was turned.
        balanced: whether training draws each class equally often, see
            :class:`~zoo_lightning.data.loading.BalancedSampler`; validation, test and the probes
            of an informed start see the images as they are.
        options: further options of :class:`~zoo_lightning.data.labelled.LabelledImages`.

    Raises:
        ConfigError: an option is out of range.
        DataError: images are missing or malformed.
    """

    target_kind = "a class for each image"
    """Kind of the targets, by which tasks know whether the data are for them."""

    train_set: ClassSet
    classes: list[str]
    """Names of the classes; their number is fixed on construction."""

    def __init__(
        self,
        image_size: int = 64,
        batch_size: int = 64,
        targets: Literal["class", "rotation"] = "class",
        balanced: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(image_size, batch_size, **options)
        self.targets = targets
        self.balanced = balanced
        self._balance_said = False

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
        return self.targets == "rotation" or super().varies_training_images()

    def facts(self) -> dict[str, Any]:
        """Facts of :class:`LabelledImages`, and class names in output order."""
        return super().facts() | {"classes": self.class_names}

    def training_options(self) -> dict[str, Any]:
        """Options of :class:`LabelledImages`, ``targets`` and ``balanced``."""
        own = {"targets": self.targets, "balanced": self.balanced}
        return super().training_options() | own

    def training_labels(self) -> list[int]:
        """Class of each training image; call ``setup("fit")`` first.

        Raises:
            ConfigError: the targets are rotations, which are drawn and all equally frequent.
        """
        if self.targets == "rotation":
            raise ConfigError(
                "class_weights: auto weighs rare classes, and the targets are rotations, which are "
                "all equally frequent; leave class_weights out"
            )
        return list(self.train_set.labels)

    def _training_sampler(self, batch_size: int, rank: int, world_size: int) -> ShuffledSampler:
        if not self.balanced:
            return super()._training_sampler(batch_size, rank, world_size)
        labels = self.train_set.labels
        sampler = BalancedSampler(labels, batch_size, self.seed, rank, world_size)
        if self.trainer is not None and not self._balance_said:
            self._balance_said = True
            counts = Counter(labels).most_common()
            (most, common), (least, rare), drawn = counts[0], counts[-1], sampler.blocks
            rank_zero_info(
                f"balanced: an epoch draws {drawn} training images of each of {len(counts)} "
                f"classes: each of {self.classes[most]} ({common} images) {drawn / common:.3g} "
                f"times, each of {self.classes[least]} ({rare}) {drawn / rare:.3g} times"
            )
        return sampler

    def _set(self, samples: list[Sample], transform: v2.Transform) -> ClassSet:
        names = self._names(samples)
        return ClassSet(samples, names, transform, self.seed, self.targets, self.value_range)

    def _check_training(self, train: list[Sample]) -> None:
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
        named = not any(isinstance(source, np.ndarray) for source, _ in samples)
        grouped = self.group_pattern and named
        split = self._split_groups if grouped else self._split_classes
        return split(samples)

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

    def _group(self, source: Source, label: int) -> str:
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


def say_order(root: Path, classes: Sequence[str]) -> None:
    """Log that folders of classes are in the order of the numbers that they are named by.

    Nothing is logged where the order of the names is the same.
    """
    if all(map(is_integer, classes)) and list(classes) != sorted(classes):
        count = len(classes)
        rank_zero_info(
            f"{root}: the {count} class folders are numbers, and are in the order of the numbers: "
            f"{', '.join(classes[:5])}{', ...' * (count > 5)}"
        )


def is_integer(name: str) -> bool:
    """Whether a name is an integer in ASCII: ``7``, ``007`` or ``-1``, but not ``+7``."""
    digits = name.removeprefix("-")
    return digits.isascii() and digits.isdigit()
